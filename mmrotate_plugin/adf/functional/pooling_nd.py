"""Pool over one axis, by the rules of maps, and over three."""

from typing import Any

import torch
import torch.nn.functional as F

from ..gaussian import Gaussian
from ..moment_rules import moment_rule
from ._windows import adaptive_avg_pool, adaptive_max_pool, avg_pool, max_pool, sizes_of
from .maxima import Size
from .pooling import adaptive_avg_pool2d, adaptive_max_pool2d, avg_pool2d, max_pool2d


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
    """Take the maximum over windows of one axis, by the rule of `pooling.max_pool2d`. **Approximate**.

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
    """Take the mean over windows of one axis, by the rule of `pooling.avg_pool2d`. **Exact if independent**.

    Args:
        x: (B, C, L) or (C, L).
        kernel_size, stride, padding, ceil_mode, count_include_pad: As in `F.avg_pool1d`.
    """
    step = None if stride is None or stride == [] else (1, _one(stride))
    sizes = (1, _one(kernel_size)), step, (0, _one(padding))
    return avg_pool2d(x.unsqueeze(-2), *sizes, ceil_mode, count_include_pad).squeeze(-2)


@moment_rule(F.adaptive_avg_pool1d, torch.adaptive_avg_pool1d)
def adaptive_avg_pool1d(x: Gaussian, output_size: Size) -> Gaussian:
    """Take the mean over cells of one axis, as `pooling.adaptive_avg_pool2d`. **Exact if independent**."""
    return adaptive_avg_pool2d(x.unsqueeze(-2), (1, _one(output_size))).squeeze(-2)


@moment_rule(F.adaptive_max_pool1d)
def adaptive_max_pool1d(x: Gaussian, output_size: Size, return_indices: bool = False) -> Gaussian:
    """Take the maximum over cells of one axis, as `pooling.adaptive_max_pool2d`. **Approximate**."""
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
    """Take the maximum over windows, axis by axis, by the pairwise rule of `pooling.max_pool2d`. **Approximate**.

    Args:
        x: (B, C, D, H, W) or (C, D, H, W).
        kernel_size, stride, padding, dilation, ceil_mode: As in `F.max_pool3d`.
        return_indices: Must be False.

    Raises:
        ValueError: If `return_indices` is set, the padding is larger than half the window, or the map is empty.
    """
    return max_pool(x, 3, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


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
    r"""Take the mean over windows: :math:`v' = \sum_i v_i / n^2`, with the divisor :math:`n` of the window.

    **Exact if independent**: variance of a weighted sum.

    Args:
        x: (B, C, D, H, W) or (C, D, H, W).
        kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override: As in `F.avg_pool3d`.
    """
    options = (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    return avg_pool(F.avg_pool3d, x, 3, *options)


@moment_rule(F.adaptive_avg_pool3d, torch._C._nn.adaptive_avg_pool3d)
def adaptive_avg_pool3d(x: Gaussian, output_size: Any) -> Gaussian:
    """Take the mean over a given number of cells, as `pooling.adaptive_avg_pool2d`. **Exact if independent**.

    Args:
        x: (B, C, D, H, W) or (C, D, H, W).
        output_size: Number of cells of each axis; one number for all; None for the size of the input.
    """
    return adaptive_avg_pool(F.adaptive_avg_pool3d, x, 3, output_size)


@moment_rule(F.adaptive_max_pool3d)
def adaptive_max_pool3d(x: Gaussian, output_size: Any, return_indices: bool = False) -> Gaussian:
    """Take the maximum over a given number of cells, as `pooling.adaptive_max_pool2d`. **Approximate**.

    Args:
        x: (B, C, D, H, W) or (C, D, H, W).
        output_size: Number of cells of each axis; one number for all; None for the size of the input.
        return_indices: Must be False.

    Raises:
        ValueError: If `return_indices` is set, or the map is empty.
    """
    return adaptive_max_pool(x, 3, output_size, return_indices)


def _one(value: Size) -> int:
    return sizes_of(value, 1)[0]
