"""Propagate variances through modules with compiled operators, which torch's function protocol cannot see."""

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from ...adf import Gaussian, NoMomentRule
from ...adf.gaussian import gaussians
from ...utils.contexts import temporary_attributes

AnyRule = Callable[..., Tensor | list[Tensor]]
Rule = TypeVar('Rule', bound=AnyRule)

RULES: dict[tuple[str, str], AnyRule] = {}  # module and name of a class: its rule
ENTRIES = 2**22  # numbers that a rule holds at a time


def operator_rule(*classes: str) -> Callable[[Rule], Rule]:
    r"""Register the rule of modules that are linear in their feature maps, :math:`y = W x`.

    The rule takes the module and the arguments of its forward, where the first argument, its feature maps, holds
    variances. It returns :math:`W^{\circ 2} v`, the variance for independent values, or a list of variances if the
    module returns a list. The mean is that of the module itself.

    Args:
        classes: 'package.module:Class'. They are not imported: a model that holds one has done it. The rule holds for
            subclasses too, unless they have another forward.
    """

    def decorator(rule: Rule) -> Rule:
        for name in classes:
            module, _, kind = name.partition(':')
            RULES[module, kind] = rule
        return rule

    return decorator


@contextmanager
def operator_rules(model: nn.Module) -> Iterator[None]:
    """Temporarily let modules with compiled operators take a Gaussian; modules without a rule stay as they are.

    Their means are those of the plain module, to the bit; tensors pass as before.

    Args:
        model: Anything that contains such modules, or one itself.
    """
    rules = _rules()
    with ExitStack() as stack:
        kinds = {type(module) for module in model.modules()}
        special = {kind for kind in kinds if any(issubclass(kind, known) for known in rules)}
        for module in model.modules() if special else ():
            rule = _rule_of(module, rules)
            if rule is not None:
                stack.enter_context(
                    temporary_attributes(module, forward=partial(_propagate, module, rule, module.forward))
                )
        yield


def _propagate(module: nn.Module, rule: AnyRule, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    first = next(gaussians((args, kwargs)), None)
    if first is None:
        return forward(*args, **kwargs)
    bound = inspect.signature(type(module).forward).bind(module, *args, **kwargs)
    _, features, *others = bound.arguments
    for name in others:
        if next(gaussians(bound.arguments[name]), None) is not None:
            raise NoMomentRule(
                f"{type(module).__name__} has a variance rule for Gaussian feature maps '{features}', but its '{name}' "
                'is Gaussian: it must be a constant. Hand over its mean'
            )
    maps = bound.arguments[features]
    bound.arguments[features] = _map(maps, lambda x: x.mu if isinstance(x, Gaussian) else x)
    mean = forward(*bound.args[1:], **bound.kwargs)
    bound.arguments[features] = _map(maps, lambda x: x.v if isinstance(x, Gaussian) else torch.zeros_like(x))
    return _joined(first, mean, rule(*bound.args, **bound.kwargs))


def _joined(like: Gaussian, mean: Any, var: Any) -> Any:
    """Join means and variances, tensors or lists of them, to Gaussians with the traits of `like`."""
    if isinstance(mean, (list, tuple)):
        return type(mean)([_joined(like, m, v) for m, v in zip(mean, var, strict=True)])
    return like.replace(mean, var.to(mean.dtype).clamp_min(like.min_variance))


def _rules() -> dict[type[nn.Module], AnyRule]:
    """The rules of the classes that are loaded."""
    found = {getattr(sys.modules.get(module), kind, None): rule for (module, kind), rule in RULES.items()}
    return {kind: rule for kind, rule in found.items() if isinstance(kind, type) and issubclass(kind, nn.Module)}


def _rule_of(module: nn.Module, rules: Mapping[type[nn.Module], AnyRule]) -> AnyRule | None:
    for kind in type(module).__mro__:
        if issubclass(kind, nn.Module) and kind in rules:
            return rules[kind] if type(module).forward is kind.forward else None
    return None


def _map(values: Any, function: Callable[[Tensor | Gaussian], Tensor]) -> Any:
    """Apply a function to a feature map, or to each in a sequence."""
    if isinstance(values, (list, tuple)):
        return type(values)([_map(value, function) for value in values])
    return function(values)


class RoIExtractor(Protocol):
    """A single-level RoI extractor of mmdet or mmrotate."""

    roi_layers: nn.ModuleList

    def forward(self, feats: Sequence[Tensor], rois: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Pool each region from one level."""


@operator_rule(
    'mmdet.models.roi_heads.roi_extractors:SingleRoIExtractor',
    'mmrotate.models.roi_heads.roi_extractors:RotatedSingleRoIExtractor',
)
def roi_extractor(extractor: RoIExtractor, feats: Sequence[Tensor], rois: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Run a RoI extractor on variances, with the squared weights of its RoI layers.

    **Exact if independent**, like its layers.

    Args:
        extractor: With `roi_layers`, one for each level.
        feats: Variances, (B, C, H, W) for each level.
        rois: Regions as the layers take them.
        args, kwargs: Other arguments of its forward.

    Shape:
        - Output: (n, C, h, w), for n regions.

    Raises:
        NoMomentRule: For a RoI layer without a rule.
    """
    rules = _rules()
    with ExitStack() as stack:
        for layer in extractor.roi_layers:
            rule = _rule_of(layer, rules)
            if rule is None:
                raise NoMomentRule(
                    f"the RoI layer {type(layer).__name__} has no variance rule: register one with '@operator_rule' in "
                    'mmrotate_plugin/models/uncertainty/operator_rules.py'
                )
            stack.enter_context(temporary_attributes(layer, forward=partial(rule, layer)))
        return type(extractor).forward(extractor, feats, rois, *args, **kwargs)
