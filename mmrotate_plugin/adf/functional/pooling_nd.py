"""Pooling over one axis, by the rules of maps, and over three."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from ..gaussian import Gaussian, moment_rule
from .maxima import NO_INDICES, Size, like, max_over, single_precision, tree_max
from .pooling import _count_windows, adaptive_avg_pool2d, adaptive_max_pool2d, avg_pool2d, max_pool2d


@moment_rule(F.max_pool1d, torch.max_pool1d)
def max_pool1d(
    x: Gaussian,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Gaussian:
    """Maximum over windows of one axis, by the rule of `pooling.max_pool2d`. **Approximate**, for two values exact.

    Args:
        x: (B, C, L) or (C, L).
        kernel_size, stride, padding, dilation, ceil_mode: As in `F.max_pool1d`.
        return_indices: Must be False.
    """
    step = None if stride is None or stride == [] else (1, _one(stride))
    sizes = (1, _one(kernel_size)), step, (0, _one(padding)), (1, _one(dilation))
    return max_pool2d(x.unsqueeze(-2), *sizes, ceil_mode, return_indices).squeeze(-2)


@moment_rule(F.avg_pool1d, torch.avg_pool1d)
def avg_pool1d(
    x: Gaussian,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Gaussian:
    """Mean over windows of one axis, by the rule of `pooling.avg_pool2d`. **Exact if independent**.

    Args:
        x: (B, C, L) or (C, L).
        kernel_size, stride, padding, ceil_mode, count_include_pad: As in `F.avg_pool1d`.
    """
    step = None if stride is None or stride == [] else (1, _one(stride))
    sizes = (1, _one(kernel_size)), step, (0, _one(padding))
    return avg_pool2d(x.unsqueeze(-2), *sizes, ceil_mode, count_include_pad).squeeze(-2)


@moment_rule(F.adaptive_avg_pool1d, torch.adaptive_avg_pool1d)
def adaptive_avg_pool1d(x: Gaussian, output_size: Size) -> Gaussian:
    """Mean over a given number of cells of one axis, as `pooling.adaptive_avg_pool2d`. **Exact if independent**."""
    return adaptive_avg_pool2d(x.unsqueeze(-2), (1, _one(output_size))).squeeze(-2)


@moment_rule(F.adaptive_max_pool1d)
def adaptive_max_pool1d(x: Gaussian, output_size: Size, return_indices: bool = False) -> Gaussian:
    """Maximum over a given number of cells of one axis, as `pooling.adaptive_max_pool2d`. **Approximate**."""
    return adaptive_max_pool2d(x.unsqueeze(-2), (1, _one(output_size)), return_indices).squeeze(-2)


@moment_rule(F.max_pool3d, torch.max_pool3d)
def max_pool3d(
    x: Gaussian,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Gaussian:
    """Maximum over windows, axis by axis, by the pairwise rule of `pooling.max_pool2d`. **Approximate**.

    Args:
        x: (B, C, D, H, W) or (C, D, H, W).
        kernel_size, stride, padding, dilation, ceil_mode: As in `F.max_pool3d`.
        return_indices: Must be False.

    Raises:
        ValueError: If `return_indices` is set, or the padding is larger than half the window.
    """
    if return_indices:
        raise ValueError(NO_INDICES)
    kernel, pad, dilate = _three(kernel_size), _three(padding), _three(dilation)
    step = _three(kernel_size if stride is None or stride == [] else stride)
    if any(not 0 <= 2 * p <= k for p, k in zip(pad, kernel, strict=True)):
        raise ValueError(f'padding={padding} must be between 0 and half of kernel_size={kernel_size}')
    mean, var = single_precision(x)
    values = 1
    for dim, k, s, p, d in zip((-3, -2, -1), kernel, step, pad, dilate, strict=True):
        size = mean.shape[dim]
        count = _count_windows(size, k, s, p, d, ceil_mode)
        if count < 1:
            raise ValueError(f'kernel_size={kernel_size} with dilation={dilation} exceeds the padded {tuple(x.shape)}')
        right = max((count - 1) * s + d * (k - 1) + 1 - p - size, 0)
        widths = [0, 0] * (-1 - dim) + [p, right]
        mean, var = F.pad(mean, widths, value=-math.inf), F.pad(var, widths)
        taps = [slice(i * d, i * d + (count - 1) * s + 1, s) for i in range(k)]
        places = [(..., tap, *[slice(None)] * (-1 - dim)) for tap in taps]
        mean, var = tree_max([(mean[place], var[place], values) for place in places])
        values *= k
    return like(x, mean, var)


@moment_rule(F.max_pool1d_with_indices, F.max_pool3d_with_indices)
@moment_rule(F.adaptive_max_pool1d_with_indices, F.adaptive_max_pool3d_with_indices)
def max_pool_with_indices(*_: Any, **__: Any) -> None:
    """No rule, only an error that says why.

    Raises:
        ValueError: Always.
    """
    raise ValueError(NO_INDICES)


@moment_rule(F.avg_pool3d)
def avg_pool3d(
    x: Gaussian,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Gaussian:
    r"""Mean over windows: :math:`v' = \sum_i v_i / n^2`, with the divisor :math:`n` of the window.

    **Exact if independent**: variance of a weighted sum.

    Args:
        x: (B, C, D, H, W) or (C, D, H, W).
        kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override: As in `F.avg_pool3d`.
    """
    where = (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    mean, var = F.avg_pool3d(x.mu, *where), F.avg_pool3d(x.v, *where)
    if divisor_override is not None:
        return Gaussian(mean, var / divisor_override)
    # what torch divides by: the values of the window, those of the padding included or not
    ones = torch.ones(1, 1, *x.shape[-3:], dtype=var.dtype, device=var.device)
    if count_include_pad:
        ones = F.pad(ones, [p for p in reversed(_three(padding)) for _ in range(2)], value=1.0)
        padding = 0
    n = F.avg_pool3d(ones, kernel_size, stride, padding, ceil_mode, True, 1)[0, 0]
    return Gaussian(mean, var / n[tuple(slice(size) for size in mean.shape[-3:])])


@moment_rule(F.adaptive_avg_pool3d, torch._C._nn.adaptive_avg_pool3d)
def adaptive_avg_pool3d(x: Gaussian, output_size: Any) -> Gaussian:
    """Mean over a given number of cells, as `pooling.adaptive_avg_pool2d`. **Exact if independent**.

    Args:
        x: (B, C, D, H, W) or (C, D, H, W).
        output_size: Cells of each axis; one number for all; None for the size of the input.
    """
    cells = _cells(output_size, x.shape[-3:])
    mean, var = F.adaptive_avg_pool3d(x.mu, cells), F.adaptive_avg_pool3d(x.v, cells)
    for dim, size, n in zip((-3, -2, -1), x.shape[-3:], cells, strict=True):
        counts = torch.tensor([b - a for a, b in _spans(size, n)], dtype=var.dtype, device=var.device)
        var = var / counts.reshape(-1, *[1] * (-1 - dim))
    return Gaussian(mean, var)


@moment_rule(F.adaptive_max_pool3d)
def adaptive_max_pool3d(x: Gaussian, output_size: Any, return_indices: bool = False) -> Gaussian:
    """Maximum over a given number of cells, as `pooling.adaptive_max_pool2d`. **Approximate**.

    Args:
        x: (B, C, D, H, W) or (C, D, H, W).
        output_size: Cells of each axis; one number for all; None for the size of the input.
        return_indices: Must be False.

    Raises:
        ValueError: If `return_indices` is set.
    """
    if return_indices:
        raise ValueError(NO_INDICES)
    mean, var = single_precision(x)
    values = 1
    for dim, cells in zip((-3, -2, -1), _cells(output_size, x.shape[-3:]), strict=True):
        size = mean.shape[dim]
        spans = _spans(size, cells)
        parts = [max_over(mean.narrow(dim, a, b - a), var.narrow(dim, a, b - a), dim, values=values) for a, b in spans]
        mean, var = (torch.cat(part, dim) for part in zip(*parts, strict=True))
        values *= -(-size // cells)
    return like(x, mean, var)


def _spans(size: int, cells: int) -> list[tuple[int, int]]:
    """First and past-the-last place of each cell."""
    return [(i * size // cells, -(-(i + 1) * size // cells)) for i in range(cells)]


def _one(value: Size) -> int:
    return value if isinstance(value, int) else tuple(value)[0]


def _three(value: Size) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * 3 if len(values) == 1 else values


def _cells(output_size: Any, sizes: Sequence[int]) -> tuple[int, ...]:
    given = [output_size] * 3 if output_size is None or isinstance(output_size, int) else output_size
    return tuple(size if n is None else n for n, size in zip(given, sizes, strict=True))
