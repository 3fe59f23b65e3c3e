"""Reshape, index, join, split and convert: move values without changing them."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..deferred import Deferred
from ..gaussian import Gaussian
from ..moment_rules import NoMomentRule, moment_rule

Function = Callable[..., Any]


# means and variances move alike, which is exact
MOVED = (
    'view', 'view_as', 'reshape', 'reshape_as', 'flatten', 'unflatten', 'ravel', 'squeeze', 'unsqueeze',
    'permute', 'transpose', 'swapaxes', 'swapdims', 'movedim', 'moveaxis', 't',
    'roll', 'flip', 'fliplr', 'flipud', 'rot90', 'pixel_shuffle', 'pixel_unshuffle', 'channel_shuffle',
    'expand', 'expand_as', 'broadcast_to', 'repeat', 'repeat_interleave', 'tile',
    'chunk', 'split', 'split_with_sizes', 'tensor_split', 'hsplit', 'vsplit', 'dsplit', 'unsafe_chunk', 'unsafe_split',
    'unbind', 'narrow', 'select', 'diagonal', 'diag', 'diag_embed', 'tril', 'triu',
    'atleast_1d', 'atleast_2d', 'atleast_3d', 'adjoint',
    'index_select', 'gather', 'take_along_dim', 'masked_select', '__getitem__',
    'clone', 'contiguous', 'detach', 'requires_grad_', 'to', 'type', 'type_as', 'float', 'double', 'half', 'bfloat16',
    'cpu', 'cuda',
)  # fmt: skip
RESHAPES = (torch.reshape, Tensor.reshape, Tensor.view, torch.flatten, Tensor.flatten)  # of a deferred variance
# answered by the mean alone: sizes, types, and new plain tensors of that size or type
ASKED = (
    'size', 'dim', 'ndimension', 'numel', 'nelement', 'stride', 'storage_offset', 'is_contiguous', 'element_size',
    'get_device', 'is_floating_point', 'is_complex',
    'zeros_like', 'ones_like', 'empty_like', 'full_like', 'rand_like', 'randn_like',
    'new_zeros', 'new_ones', 'new_empty', 'new_full', 'new_tensor',
)  # fmt: skip


@moment_rule(torch.cat, torch.concat, torch.concatenate)
def cat(tensors: Sequence[Gaussian | Tensor], dim: int = 0) -> Gaussian:
    """Join along a dimension. Plain tensors have variance 0, or that of the floor. **Exact**."""
    return _join(torch.cat, tensors, dim)


@moment_rule(torch.stack)
def stack(tensors: Sequence[Gaussian | Tensor], dim: int = 0) -> Gaussian:
    """Join along a new dimension. Plain tensors have variance 0, or that of the floor. **Exact**."""
    return _join(torch.stack, tensors, dim)


def _joined(function: Function) -> Callable[[Sequence[Gaussian | Tensor]], Gaussian]:
    """Make a rule that joins along the dimension that `function` chooses, as `cat`."""

    def rule(tensors: Sequence[Gaussian | Tensor]) -> Gaussian:
        return _join(function, tensors)

    return rule


for _function in (torch.hstack, torch.vstack, torch.row_stack, torch.dstack, torch.column_stack):
    moment_rule(_function)(_joined(_function))


@moment_rule(torch.where)
def where(condition: Tensor, x: Gaussian | Tensor | float, other: Gaussian | Tensor | float) -> Gaussian:
    """Choose by a constant condition, broadcasting. Plain tensors and numbers have variance 0. **Exact**.

    Raises:
        NoMomentRule: If the condition is a Gaussian.
    """
    if isinstance(condition, Gaussian):
        raise NoMomentRule("'where' has no moment rule for a Gaussian condition: use one that is constant")
    mean = torch.where(condition, _mean(x), _mean(other))
    var = torch.where(condition, _variance(x), _variance(other))
    return Gaussian(mean, var.to(mean.dtype).expand(mean.shape))


@moment_rule(Tensor.where)
def _where_method(x: Gaussian | Tensor, condition: Tensor, other: Gaussian | Tensor | float) -> Gaussian:
    return where(condition, x, other)


@moment_rule(torch.masked_fill, Tensor.masked_fill, Tensor.masked_fill_)
def masked_fill(x: Gaussian | Tensor, mask: Tensor, value: Gaussian | Tensor | float) -> Gaussian:
    """Replace values where a constant mask is true, as `where`. **Exact**."""
    return where(mask, value, x)


@moment_rule(F.unfold)
def unfold(
    x: Gaussian,
    kernel_size: int | tuple[int, int],
    dilation: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    stride: int | tuple[int, int] = 1,
) -> Gaussian:
    """Windows as columns, (B, C, H, W) to (B, C k², L); the padding is a constant 0. **Exact**."""
    mean, var = (F.unfold(values, kernel_size, dilation, padding, stride) for values in (x.mu, x.v))
    return Gaussian(mean, var)


@moment_rule(F.fold)
def fold(x: Gaussian, *args: Any, **kwargs: Any) -> Gaussian:
    """Columns as windows of a map, added up where they overlap, with the arguments of `F.fold`.

    **Exact if independent**.
    """
    return Gaussian(F.fold(x.mu, *args, **kwargs), F.fold(x.v, *args, **kwargs))


def _join(function: Function, tensors: Sequence[Gaussian | Tensor], *dim: int) -> Gaussian:
    tensors = list(tensors)
    mean = function([_mean(value) for value in tensors], *dim)
    var = function([x.v if isinstance(x, Gaussian) else torch.zeros_like(x) for x in tensors], *dim)
    return Gaussian(mean, var.to(mean.dtype))


def _mean(value: Any) -> Any:
    return value.mu if isinstance(value, Gaussian) else value


def _variance(value: Gaussian | Tensor | float) -> Tensor | float:
    return value.v if isinstance(value, Gaussian) else 0.0


def _twice(function: Function) -> Function:
    """Make a rule that calls `function` on mean and variance. Other Gaussians only give their shape or type."""

    def rule(x: Any, *args: Any, **kwargs: Any) -> Any:
        args = tuple(_mean(value) for value in args)
        kwargs = {key: _mean(value) for key, value in kwargs.items()}
        means = function(_mean(x), *args, **kwargs)
        if not isinstance(x, Gaussian) or isinstance(means, str):  # plain.expand_as(x); the name x.type()
            return means
        if function in RESHAPES and isinstance(x.variance, Deferred):
            later = x.variance.reshaped(means.shape)
            if later is not None:
                return Gaussian(means, later)
        variances = function(x.v, *args, **kwargs)
        return Gaussian(means, variances) if isinstance(means, Tensor) else tuple(map(Gaussian, means, variances))

    return rule


def _once(function: Function) -> Function:
    """Make a rule that calls `function` on the mean."""

    def rule(*args: Any, **kwargs: Any) -> Any:
        return function(*map(_mean, args), **{key: _mean(value) for key, value in kwargs.items()})

    return rule


def _register(name: str, make: Callable[[Function], Function]) -> None:
    """Register `make(function)` for everything that torch calls `name`, in-place variants included."""
    for owner in (torch, Tensor):
        function = getattr(owner, name, None)
        if callable(function):  # torch.float is a dtype, torch.cuda a module
            in_place = getattr(owner, f'{name}_', None)
            moment_rule(*(f for f in (function, in_place) if f is not None), moves=True)(make(function))


for _name in MOVED:
    _register(_name, _twice)
for _name in ASKED:
    _register(_name, _once)
moment_rule(Tensor.unfold, moves=True)(_twice(Tensor.unfold))  # the windows of one axis; F.unfold pads too
