"""Moments of ReLU and of max pooling in one pass over a map, as operators of torch, which its profilers name."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .library import library

_NAMES = torch.library.Library('mmrotate_plugin', 'FRAGMENT')
_NAMES.define(
    'relu_moments(Tensor mean, Tensor var, Tensor? scale, Tensor? other, Tensor? other_scale, bool plain)'
    ' -> (Tensor, Tensor)'
)
_NAMES.define(
    'max_moments(Tensor mean, Tensor var, SymInt[] size, SymInt[] window, int[] steps, float[] corrections)'
    ' -> (Tensor, Tensor)'
)


def relu_moments(
    mean: Tensor,
    var: Tensor,
    scale: Tensor | None = None,
    other: Tensor | None = None,
    other_scale: Tensor | None = None,
    *,
    plain: bool = False,
) -> tuple[Tensor, Tensor]:
    """Compute the moments of a ReLU, see `functional.activations.relu`, of variance scale * var + other_scale * other.

    Args:
        mean, var, other: Maps of one shape that `takes` accepts, (B, C, ...) and contiguous if there is a scale.
        scale, other_scale: (C,) or (B, C); None is 1.
        plain: Whether the mean is the plain ReLU of the mean.
    """
    return torch.ops.mmrotate_plugin.relu_moments(mean, var, scale, other, other_scale, plain)


def max_moments(
    mean: Tensor,
    var: Tensor,
    size: tuple[int, int],
    window: tuple[int, int, int, int, int],
    steps: Sequence[int],
    corrections: Sequence[float],
) -> tuple[Tensor, Tensor]:
    """Compute the moments of maxima over square windows, see `functional.pooling.max_pool2d`.

    Args:
        mean, var: (..., H, W), contiguous, as `takes` accepts them.
        size: Rows and columns of the result.
        window: Side, stride, padding above and on the left, dilation.
        steps: Pairs of positions in the window; the second is merged into the first, where the last leaves the result.
        corrections: rho and lambda of each pair.
    """
    return torch.ops.mmrotate_plugin.max_moments(mean, var, size, window, steps, corrections)


def _address(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def _relu(
    mean: Tensor, var: Tensor, scale: Tensor | None, other: Tensor | None, other_scale: Tensor | None, plain: bool
) -> tuple[Tensor, Tensor]:
    to_mean, to_var = torch.empty_like(mean), torch.empty_like(mean)
    channels = mean.size(1) if mean.dim() > 1 else 1
    planes = mean.size(0) * channels if mean.dim() > 1 else 1
    if any(s is not None and s.dim() == 2 for s in (scale, other_scale)):
        scale, other_scale = (
            None if s is None else s.expand(mean.shape[:2]).contiguous() for s in (scale, other_scale)
        )
        channels = planes
    library().relu_moments(
        mean.data_ptr(), var.data_ptr(), _address(scale), _address(other), _address(other_scale),
        to_mean.data_ptr(), to_var.data_ptr(), planes, channels, mean.numel() // max(planes, 1), plain,
        torch.get_num_threads(),
    )  # fmt: skip
    return to_mean, to_var


def _max(
    mean: Tensor, var: Tensor, size: Sequence[int], window: Sequence[int], steps: Sequence[int], corrections: Any
) -> tuple[Tensor, Tensor]:
    to_mean, to_var = _max_shapes(mean, var, size, window, steps, corrections)
    table = torch.tensor(steps, dtype=torch.int32), torch.tensor(corrections, dtype=torch.float32)
    short = library().max_moments(
        mean.data_ptr(), var.data_ptr(), to_mean.data_ptr(), to_var.data_ptr(),
        mean.shape[:-2].numel(), *mean.shape[-2:], *size, *window, table[0].data_ptr(), table[1].data_ptr(),
        len(steps) // 2, torch.get_num_threads(),
    )  # fmt: skip
    if short:
        raise MemoryError(f'max pooling of a Gaussian of shape {tuple(mean.shape)} needs more memory')
    return to_mean, to_var


def _relu_shapes(mean: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(mean), torch.empty_like(mean)


def _max_shapes(mean: Tensor, _var: Tensor, size: Sequence[int], *_: Any) -> tuple[Tensor, Tensor]:
    shape = (*mean.shape[:-2], *size)
    return mean.new_empty(shape), mean.new_empty(shape)


for _kind, _functions in (('CPU', (_relu, _max)), ('Meta', (_relu_shapes, _max_shapes))):
    for _name, _function in zip(('relu_moments', 'max_moments'), _functions, strict=True):
        _NAMES.impl(_name, _function, _kind)
