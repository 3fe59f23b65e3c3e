"""Interpolation, sampling at points, and padding."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..gaussian import Gaussian
from ..moment_rules import moment_rule
from .pooling import adaptive_avg_pool2d
from .pooling_nd import adaptive_avg_pool1d, adaptive_avg_pool3d


@moment_rule(F.interpolate)
def interpolate(
    x: Gaussian,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = 'nearest',
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Gaussian:
    r"""Resampling by fixed weights, one matrix per axis: :math:`v' = \sum_i w_i^2 v_i`.

    **Exact if independent**: variance of a weighted sum; nearest neighbours are **exact**.

    Args:
        x: (B, C, L), (B, C, H, W) or (B, C, D, H, W).
        size, scale_factor, mode, align_corners, recompute_scale_factor, antialias: As in `F.interpolate`, with all of
            its modes.
    """
    mean = F.interpolate(x.mu, size, scale_factor, mode, align_corners, recompute_scale_factor, antialias)
    if mode in ('nearest', 'nearest-exact'):
        return Gaussian(mean, F.interpolate(x.v, size, scale_factor, mode, None, recompute_scale_factor))
    sizes = mean.shape[2:]
    if mode == 'area':
        return (adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d)[len(sizes) - 1](x, tuple(sizes))
    scales: Sequence[Any] = [None] * len(sizes)
    if scale_factor is not None and not recompute_scale_factor:
        scales = scale_factor if isinstance(scale_factor, Sequence) else [scale_factor] * len(sizes)
    var = x.v.to(torch.promote_types(x.v.dtype, torch.float32))
    kernel = 'bicubic' if mode == 'bicubic' else 'bilinear'
    for axis, (after, scale) in enumerate(zip(sizes, scales, strict=True), start=2):
        # the responses to unit impulses are the weights, (from, to); along the width, since torch 2.12 with antialias
        # gives wrong weights along the height of maps of one column
        impulses = torch.eye(var.shape[axis], dtype=var.dtype, device=var.device)[None, :, None, :]
        given = {'size': (1, after)} if scale is None else {'scale_factor': (1.0, scale)}
        weights = F.interpolate(impulses, **given, mode=kernel, align_corners=align_corners, antialias=antialias)
        var = (var.transpose(axis, -1) @ weights[0, :, 0].square()).transpose(axis, -1)
    return Gaussian(mean, var.to(mean.dtype).contiguous())


@moment_rule(F.pad)
def pad(x: Gaussian, pad: Sequence[int], mode: str = 'constant', value: float | None = None) -> Gaussian:
    """Padding with a constant, whose variance is zero, or with values of the border and their variance.

    **Exact**; the dependence between a value and its copy is neglected.

    Args:
        x: As in `F.pad`.
        pad, mode, value: As in `F.pad`.
    """
    if mode == 'constant':
        return Gaussian(F.pad(x.mu, pad, mode, value), F.pad(x.v, pad))
    return Gaussian(F.pad(x.mu, pad, mode, value), F.pad(x.v, pad, mode))


@moment_rule(F.grid_sample, torch.grid_sampler)
def grid_sample(
    x: Gaussian,
    grid: Tensor,
    mode: str = 'bilinear',
    padding_mode: str = 'zeros',
    align_corners: bool | None = None,
) -> Gaussian:
    r"""Bilinear sampling at given points: :math:`v' = \sum_i w_i^2 v_i` over the four neighbours.

    **Exact if independent**: variance of a weighted sum; nearest neighbours are **exact**. Only the mean has a gradient
    with respect to the grid.

    Args:
        x: (B, C, H, W).
        grid: Constant, (B, H', W', 2), from -1 to 1.
        mode: 'bilinear' or 'nearest'.
        padding_mode: 'zeros', with variance zero, or 'border'; 'nearest' also takes 'reflection'.
        align_corners: As in `F.grid_sample`.

    Raises:
        ValueError: For other modes, inputs of other than four dimensions, or a Gaussian grid.
    """
    if isinstance(grid, Gaussian) or not isinstance(x, Gaussian):
        raise ValueError('grid must be a plain tensor: points that are themselves Gaussian have no rule')
    if x.mu.dim() != 4:
        raise ValueError(f'grid_sample has a rule for (B, C, H, W), but the input has {x.mean.dim()} dimensions')
    mean = F.grid_sample(x.mu, grid, mode, padding_mode, align_corners)
    if mode == 'nearest':
        return Gaussian(mean, F.grid_sample(x.v, grid, mode, padding_mode, align_corners))
    if mode != 'bilinear' or padding_mode not in ('zeros', 'border'):
        raise ValueError(
            f'mode={mode!r} with padding_mode={padding_mode!r} has no rule: '
            "use mode='bilinear' with padding_mode='zeros' or 'border', or mode='nearest'"
        )
    sizes = grid.new_tensor([x.mu.shape[3], x.mu.shape[2]])  # (x, y), as in the grid
    with torch.no_grad():
        points = (grid + 1) / 2 * (sizes - 1) if align_corners else ((grid + 1) * sizes - 1) / 2
        if padding_mode == 'border':
            points = torch.minimum(points.clamp_min(0), sizes - 1)
        corner = points.floor()
        right = points - corner
    var = torch.zeros_like(mean)
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
        offset = grid.new_tensor([dx, dy])
        weight = torch.where(offset > 0, right, 1 - right).prod(-1).square()
        # centres of pixels without align_corners: defined for maps of a single row, too
        place = (2 * (corner + offset) + 1) / sizes - 1
        var = var + weight.unsqueeze(1) * F.grid_sample(x.v, place, 'nearest', 'zeros', False)
    return Gaussian(mean, var)
