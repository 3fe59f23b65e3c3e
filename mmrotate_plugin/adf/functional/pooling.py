"""Pool maps: maxima and means over windows and cells."""

from typing import Any

import torch
import torch.nn.functional as F

from ..gaussian import Gaussian
from ..moment_rules import moment_rule
from ._windows import adaptive_avg_pool, adaptive_max_pool, avg_pool, max_pool
from .maxima import NO_INDICES, Size


@moment_rule(F.max_pool2d, torch.max_pool2d)
def max_pool2d(
    x: Gaussian,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Gaussian:
    r"""Take the maximum over windows, as a tree of pairwise maxima.

    Square windows of up to 5 pixels are reduced in an order that quarter turns and reflections do not change, so that
    the rule commutes with them; others over rows, then over columns.

    The maximum of :math:`N(\mu_1, v_1)` and :math:`N(\mu_2, v_2)`, where :math:`\mu_1 \ge \mu_2`, has with
    :math:`s = v_1 + v_2`, :math:`t = (\mu_1 - \mu_2) / \sqrt s` and :math:`e = \varphi(t) - t \Phi(-t)` the moments

    .. math::
        \mu' = \mu_1 + \rho \sqrt s\, e, \qquad v' = v_1 \Phi(t) + v_2 \Phi(-t) - \lambda s\, e (t + e)

    with :math:`\rho = \lambda = 1`, which is exact: Clark, The Greatest of a Finite Set of Random Variables, Operations
    Research 1961, eqs. 2 to 4, here without differences of large numbers. A maximum of maxima is **approximate**: those
    are skewed, and calling them Gaussian loses 8 % of the standard deviation in a 3 x 3 window. Therefore
    :math:`\rho, \lambda` depend on the number of values on either side, such that independent, equally distributed
    values get the exact moments. Variance zero gives `F.max_pool2d`.

    Args:
        x: (B, C, H, W) or (C, H, W).
        kernel_size, stride, padding, dilation, ceil_mode: As in `F.max_pool2d`.
        return_indices: Must be False.

    Raises:
        ValueError: If `return_indices` is set, the padding is larger than half the window, or the map has
            no rows or columns.
    """
    return max_pool(x, 2, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


@moment_rule(F.adaptive_max_pool2d)
def adaptive_max_pool2d(x: Gaussian, output_size: Any, return_indices: bool = False) -> Gaussian:
    """Take the maximum over a given number of cells, which overlap if their number does not divide the size.

    **Approximate**, by the pairwise rule of `max_pool2d`.

    Args:
        x: (B, C, H, W) or (C, H, W).
        output_size: Number of rows and columns of cells; one number for both; None for the size of the input.
        return_indices: Must be False.

    Raises:
        ValueError: If `return_indices` is set, or the map has no rows or columns.
    """
    return adaptive_max_pool(x, 2, output_size, return_indices)


@moment_rule(F.max_pool1d_with_indices, F.max_pool2d_with_indices, F.max_pool3d_with_indices)
@moment_rule(F.adaptive_max_pool1d_with_indices, F.adaptive_max_pool2d_with_indices)
@moment_rule(F.adaptive_max_pool3d_with_indices)
def max_pool_with_indices(*_: Any, **__: Any) -> None:
    """Refuse: the maximum of Gaussians has no certain place.

    Raises:
        ValueError: Always.
    """
    raise ValueError(NO_INDICES)


@moment_rule(F.avg_pool2d)
def avg_pool2d(
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
        x: (B, C, H, W) or (C, H, W).
        kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override: As in `F.avg_pool2d`.
    """
    options = (kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)
    return avg_pool(F.avg_pool2d, x, 2, *options)


@moment_rule(F.adaptive_avg_pool2d, torch._C._nn.adaptive_avg_pool2d)
def adaptive_avg_pool2d(x: Gaussian, output_size: Any) -> Gaussian:
    r"""Take the mean over a given number of cells: :math:`v' = \sum_i v_i / n^2`, for :math:`n` values in a cell.

    **Exact if independent**: variance of a weighted sum.

    Args:
        x: (B, C, H, W) or (C, H, W).
        output_size: Number of rows and columns of cells; one number for both; None for the size of the input.
    """
    return adaptive_avg_pool(F.adaptive_avg_pool2d, x, 2, output_size)
