"""Fold batch norms into the convolutions before them, where the forward pass allows it."""

import inspect
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import TypeGuard

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm


def fold_norms_(root: nn.Module) -> None:
    """Fold the batch norms of a module in eval mode where possible; warn of those that stay."""
    for module in root.modules():
        # mmcv's ConvModule can fold on the fly, but reads statistics that an Identity does not have
        if getattr(module, 'efficient_conv_bn_eval_forward', None) is not None:
            vars(module)['efficient_conv_bn_eval_forward'] = None
    # not `children()`, which counts one with two names once
    places = Counter(id(child) for parent in root.modules() for child in parent._modules.values())
    for owner in list(root.modules()):
        if 'forward' not in vars(owner) and any(_foldable_norm(child) for child in owner.children()):
            for conv, norm, name in _pairs(owner):
                if places[id(conv)] == places[id(norm)] == 1:
                    _fold_(conv, norm)
                    parent, _, leaf = name.rpartition('.')
                    setattr(owner.get_submodule(parent), leaf, nn.Identity().eval())
    left = [name for name, module in root.named_modules() if name and isinstance(module, _BatchNorm)]
    if left:
        warnings.warn(
            f'{len(left)} batch norms are exported as they are, having no convolution to be folded into: '
            + ', '.join(left),
            stacklevel=3,
        )


class _Tracer(fx.Tracer):
    """Follow one forward pass without entering the modules that it calls."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002  torch's signature
        return True


def _pairs(owner: nn.Module) -> Iterator[tuple[nn.Conv2d, _BatchNorm, str]]:
    """Find convolutions of `owner` whose output only a norm reads; also yields the norm and its name."""
    parameters = inspect.signature(owner.forward).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # torch.fx cannot guard every kind of default, and need not
            graph = _Tracer().trace(owner, concrete_args=defaults)
    except Exception:  # a forward pass is any code; if it cannot be followed, its norms stay
        return
    calls = Counter(node.target for node in graph.nodes if node.op == 'call_module')
    for node in graph.nodes:
        if node.op != 'call_module' or len(node.all_input_nodes) != 1:
            continue
        (source,) = node.all_input_nodes
        if source.op != 'call_module' or list(source.users) != [node]:
            continue
        conv, norm = owner.get_submodule(str(source.target)), owner.get_submodule(str(node.target))
        once = calls[source.target] == calls[node.target] == 1
        if once and _foldable_conv(conv) and _foldable_norm(norm):
            yield conv, norm, str(node.target)


def _foldable_conv(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    # a subclass may do anything in its forward pass, such as standardising the filter
    return (
        isinstance(module, nn.Conv2d)
        and type(module).forward is nn.Conv2d.forward
        and type(module)._conv_forward is nn.Conv2d._conv_forward
        and 'weight' in module._parameters  # otherwise it is computed, for example by spectral norm
        and not _altered(module)
    )


def _foldable_norm(module: nn.Module) -> TypeGuard[_BatchNorm]:
    return (
        isinstance(module, _BatchNorm)
        and type(module).forward in (_BatchNorm.forward, nn.SyncBatchNorm.forward)
        and module.running_var is not None
        and not _altered(module)
    )


def _altered(module: nn.Module) -> bool:
    """Tell whether a call of this instance does more than its class's forward pass."""
    return bool(module._forward_hooks or module._forward_pre_hooks or 'forward' in vars(module))


def _fold_(conv: nn.Conv2d, norm: _BatchNorm) -> None:
    """Make the convolution compute what both layers computed together."""

    def double(x: Tensor | None, default: float) -> Tensor:
        return conv.weight.new_full((), default, dtype=torch.float64) if x is None else x.double()

    scale = double(norm.weight, 1) / (double(norm.running_var, 1) + norm.eps).sqrt()
    weight = conv.weight.double() * scale.view(-1, 1, 1, 1)
    bias = scale * (double(conv.bias, 0) - double(norm.running_mean, 0)) + double(norm.bias, 0)
    conv.weight = nn.Parameter(weight.to(conv.weight.dtype), conv.weight.requires_grad)
    conv.bias = nn.Parameter(bias.to(conv.weight.dtype), conv.weight.requires_grad)
