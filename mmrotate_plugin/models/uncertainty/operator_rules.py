"""Variance through modules that are made of compiled operators, which torch's function protocol cannot see."""

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ...adf import Gaussian, NoMomentRule
from ...adf.gaussian import gaussians

Rule = TypeVar('Rule', bound=Callable[..., Tensor])

RULES: dict[tuple[str, str], Callable[..., Tensor]] = {}  # module and name of a class: its rule
ENTRIES = 2**22  # numbers that a rule holds at a time


def operator_rule(*classes: str) -> Callable[[Rule], Rule]:
    r"""Register the rule of modules that are linear in their feature maps, :math:`y = W x`.

    The rule takes the module and the arguments of its forward, the first of them, its feature maps, as variances, and
    returns :math:`W^{\circ 2} v`, the variance for independent values; a list of them where the module puts out a
    list. The mean is that of the module itself.

    Args:
        classes: 'package.module:Class'. Nothing is imported for them: a model that holds one has done it. Subclasses
            are meant too, unless they have another forward.
    """

    def decorator(rule: Rule) -> Rule:
        for name in classes:
            module, _, kind = name.partition(':')
            RULES[module, kind] = rule
        return rule

    return decorator


@contextmanager
def operator_rules(model: nn.Module) -> Iterator[None]:
    """While open, modules of `model` that are made of compiled operators take a Gaussian.

    Their means are those of the plain module, to the bit; tensors they take as ever. Those without a rule stay as they
    are. On leaving, also by an exception, all is as before.

    Args:
        model: Anything that holds such modules, or one itself.
    """
    rules = _rules()
    with ExitStack() as stack:
        for module in model.modules():
            rule = _rule_of(module, rules)
            if rule is not None:
                stack.enter_context(_forward(module, partial(_propagate, module, rule, module.forward)))
        yield


def _propagate(
    module: nn.Module, rule: Callable[..., Tensor], forward: Callable[..., Tensor], *args: Any, **kwargs: Any
) -> Any:
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
    """Means and variances, tensors or lists of them, with the traits of `like`."""
    if isinstance(mean, (list, tuple)):
        return type(mean)([_joined(like, m, v) for m, v in zip(mean, var, strict=True)])
    return like.replace(mean, var.to(mean.dtype).clamp_min(like.min_variance))


def _rules() -> dict[type, Callable[..., Tensor]]:
    """The classes that are loaded."""
    found = {getattr(sys.modules.get(module), kind, None): rule for (module, kind), rule in RULES.items()}
    return {kind: rule for kind, rule in found.items() if isinstance(kind, type)}


def _rule_of(module: nn.Module, rules: dict[type, Callable[..., Tensor]]) -> Callable[..., Tensor] | None:
    for kind in type(module).__mro__:
        if kind in rules:
            return rules[kind] if type(module).forward is kind.forward else None
    return None


@contextmanager
def _forward(module: nn.Module, function: Callable[..., Any]) -> Iterator[None]:
    """Another forward for one module, for a while."""
    own = {'forward': module.__dict__['forward']} if 'forward' in module.__dict__ else {}
    module.__dict__['forward'] = function
    try:
        yield
    finally:
        del module.__dict__['forward']
        module.__dict__.update(own)


def _map(values: Any, function: Callable[[Tensor | Gaussian], Tensor]) -> Any:
    """`function` of a feature map, or of each in a sequence."""
    if isinstance(values, (list, tuple)):
        return type(values)([_map(value, function) for value in values])
    return function(values)


@operator_rule(
    'mmdet.models.roi_heads.roi_extractors:SingleRoIExtractor',
    'mmrotate.models.roi_heads.roi_extractors:RotatedSingleRoIExtractor',
)
def roi_extractor(extractor: nn.Module, feats: Sequence[Tensor], rois: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The extractor over the variances, its RoI layers with squared weights.

    **Exact if independent**, as its layers are.

    Args:
        extractor: With `roi_layers`, one for each level.
        feats: Variances, (B, C, H, W) for each level.
        rois: Regions as the layers take them.
        args, kwargs: Others of its forward.

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
            stack.enter_context(_forward(layer, partial(rule, layer)))
        return type(extractor).forward(extractor, feats, rois, *args, **kwargs)
