"""Squared weights of RoI aligns, and of R3Det's feature refinement, which reads a map at points too."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...adf import NoMomentRule
from . import operator_rules
from .operator_rules import operator_rule


class _Regions(NamedTuple):
    """Regions on the feature map: a rectangle, turned about the origin, then moved. Each (n,)."""

    image: Tensor
    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    centre_y: Tensor
    centre_x: Tensor
    cos: Tensor
    sin: Tensor


@operator_rule('mmcv.ops:RoIAlign')
def roi_align(layer: nn.Module, var: Tensor, rois: Tensor) -> Tensor:
    """RoI align by averaging.

    **Exact if independent**: sampling points of a bin that share pixels have their weights added before squaring.

    Args:
        layer: mmcv's RoIAlign, or torchvision's operator in it.
        var: (B, C, H, W).
        rois: (n, 5): index in the batch, x1, y1, x2, y2, image pixels.

    Raises:
        NoMomentRule: For ``pool_mode='max'``.
    """
    if layer.pool_mode != 'avg' and not layer.use_torchvision:
        raise NoMomentRule(f"RoIAlign with pool_mode={layer.pool_mode!r} has no variance rule: use pool_mode='avg'")
    image = rois[:, 0].long()
    # the steps of the operator, which decide where its sampling points fall among the pixels
    left, top, right, bottom = (rois[:, 1:] * layer.spatial_scale - (0.5 if layer.aligned else 0.0)).unbind(1)
    height, width = bottom - top, right - left
    if not layer.aligned:
        height, width = height.clamp_min(1), width.clamp_min(1)
    zero = torch.zeros_like(top)
    regions = _Regions(image, top, left, height, width, zero, zero, zero + 1, zero)
    return _pool(var, regions, layer.output_size, layer.sampling_ratio)


@operator_rule('mmcv.ops:RoIAlignRotated')
def roi_align_rotated(layer: nn.Module, var: Tensor, rois: Tensor) -> Tensor:
    """RoI align of rotated regions.

    **Exact if independent**, as `roi_align`.

    Args:
        layer: mmcv's RoIAlignRotated.
        var: (B, C, H, W).
        rois: (n, 6): index in the batch, centre x, y, width, height (image pixels), angle (radians).
    """
    return _pool_rotated(
        var, rois, layer.output_size, layer.spatial_scale, layer.sampling_ratio, layer.aligned, layer.clockwise
    )


@operator_rule('mmrotate_plugin.models.roi_heads.ri_roi_align:RiRoIAlignRotated')
def ri_roi_align_rotated(layer: nn.Module, var: Tensor, rois: Tensor) -> Tensor:
    """RoI align of rotated regions, and interpolation between orientation channels.

    **Exact if independent**, as `roi_align`: the two interpolations share no weights, so their squares multiply.

    Args:
        layer: This package's RiRoIAlignRotated.
        var: (B, fields * N, H, W).
        rois: (n, 6): index in the batch, centre x, y, width, height (image pixels), angle (radians).
    """
    pooled = _pool_rotated(var, rois, layer.out_size, layer.spatial_scale, layer.num_samples, False, layer.clockwise)
    bins = math.prod(layer.out_size)
    fields = pooled.reshape(len(rois), pooled.shape[1] // layer.num_orientations, layer.num_orientations, bins)
    cycle = layer._cycle(rois[:, 5]).square().to(fields.dtype)  # (n, N, N)
    return (cycle.unsqueeze(1) @ fields).view_as(pooled)


@operator_rule('mmcv.ops.riroi_align_rotated:RiRoIAlignRotated')  # override_mmrotate puts ours into mmcv.ops
def published_ri_roi_align_rotated(layer: nn.Module, var: Tensor, rois: Tensor) -> Tensor:
    """mmcv's operator, which needs CUDA: `ri_roi_align_rotated` as published."""
    from ..roi_heads.ri_roi_align import RiRoIAlignRotated

    options = (layer.out_size, layer.spatial_scale, layer.num_samples, layer.num_orientations, layer.clockwise)
    return ri_roi_align_rotated(RiRoIAlignRotated(*options), var, rois)


def _pool_rotated(
    var: Tensor,
    rois: Tensor,
    out_size: tuple[int, int],
    scale: float,
    samples: int,
    aligned: bool,
    clockwise: bool,
) -> Tensor:
    centre_x, centre_y = (rois[:, 1:3] * scale - (0.5 if aligned else 0.0)).unbind(1)
    width, height = (rois[:, 3:5] * scale).unbind(1)
    if not aligned:
        height, width = height.clamp_min(1), width.clamp_min(1)
    angle = -rois[:, 5] if clockwise else rois[:, 5]
    image = rois[:, 0].long()
    regions = _Regions(image, -height / 2, -width / 2, height, width, centre_y, centre_x, angle.cos(), angle.sin())
    return _pool(var, regions, out_size, samples)


def _pool(var: Tensor, regions: _Regions, out_size: tuple[int, int], samples: int) -> Tensor:
    """Variances of the bins, (n, C, *out_size), for variances (B, C, H, W).

    Args:
        var: (B, C, H, W).
        regions: n of them.
        out_size: Bins along height and width.
        samples: Sampling points of a bin, per axis; 0 for one per feature pixel.
    """
    batch, channels, *size = var.shape
    pixels = var.permute(0, 2, 3, 1).reshape(-1, channels)  # (B * H * W, C)
    pixels = pixels.to(torch.promote_types(var.dtype, torch.float32))
    out = pixels.new_zeros(len(regions.top), math.prod(out_size), channels)
    steps = torch.stack([regions.height / out_size[0], regions.width / out_size[1]], 1)
    # regions with one number of sampling points go together; the operator counts in single precision
    grids = torch.full_like(steps, samples) if samples > 0 else steps.float().ceil()
    parts: list[tuple[Tensor, Tensor]] = []
    for grid in grids.unique(dim=0).tolist():
        count = [int(n) for n in grid]
        if min(count) < 1:  # a region without extent: the operator puts out zero
            continue
        rows = (grids == grids.new_tensor(grid)).all(1).nonzero().squeeze(1)
        for some in rows.split(max(1, operator_rules.ENTRIES // (4 * math.prod(count) * math.prod(out_size)))):
            weights = _weights(_Regions(*[values[some] for values in regions]), out_size, count, (batch, *size))
            parts.append((some, torch.sparse.mm(weights.to(pixels.dtype), pixels).view(len(some), -1, channels)))
    if parts:
        out = out.index_copy(0, torch.cat([rows for rows, _ in parts]), torch.cat([values for _, values in parts]))
    return out.transpose(1, 2).reshape(len(out), channels, *out_size)


def _corners(y: Tensor, x: Tensor, image: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Pixels, flat, and bilinear weights at points: nothing outside, edges held for one pixel. Both (4, *points)."""
    inside = (y >= -1) & (y <= size[0]) & (x >= -1) & (x <= size[1])
    corners = []
    for value, last in ((y, size[0] - 1), (x, size[1] - 1)):
        value = value.clamp(0, last)
        low = value.floor()
        part = value - low
        corners.append(((low.long(), 1 - part), ((low.long() + 1).clamp_max(last), part)))
    start = image * math.prod(size)
    columns = torch.stack([start + row * size[1] + column for row, _ in corners[0] for column, _ in corners[1]])
    return columns, torch.stack([a * b * inside for _, a in corners[0] for _, b in corners[1]])


def _weights(regions: _Regions, bins: Sequence[int], samples: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """Squared weights of pixels in bins: sparse (n * bins, B * H * W).

    Args:
        regions: n of them.
        bins, samples: Along height and width.
        shape: B, H, W of the feature map.
    """

    def along(start: Tensor, extent: Tensor, bins: int, samples: int) -> Tensor:  # (n, bins, samples)
        step = (extent / bins)[:, None, None]
        which = torch.arange(bins, device=start.device).to(start)[None, :, None]
        inner = torch.arange(samples, device=start.device).to(start)[None, None] + 0.5
        return start[:, None, None] + which * step + inner * step / samples

    _, height, width = shape
    y = along(regions.top, regions.height, bins[0], samples[0])[:, :, None, :, None]
    x = along(regions.left, regions.width, bins[1], samples[1])[:, None, :, None, :]
    cos, sin, centre_y, centre_x = (
        values[:, None, None, None, None] for values in (regions.cos, regions.sin, regions.centre_y, regions.centre_x)
    )
    y, x = y * cos - x * sin + centre_y, y * sin + x * cos + centre_x  # (n, bins, bins, samples, samples)
    columns, values = _corners(y, x, regions.image[:, None, None, None, None], (height, width))
    values = values / math.prod(samples)
    count = len(regions.top) * math.prod(bins)
    rows = torch.arange(count, device=y.device).view(1, *y.shape[:3], 1, 1).expand_as(columns)
    return _squared(rows, columns, values, (count, math.prod(shape)))


def _squared(rows: Tensor, columns: Tensor, values: Tensor, size: tuple[int, int]) -> Tensor:
    """Sparse matrix of the squares of sums: entries at one place are added first."""
    indices = torch.stack([rows.reshape(-1), columns.reshape(-1)])
    # silences a warning of torch: the indices are in range by construction
    with torch.sparse.check_sparse_tensor_invariants(False):
        return torch.sparse_coo_tensor(indices, values.reshape(-1), size).coalesce().pow(2)


@operator_rule('mmrotate.models.layers.align:FRM')
def feature_refinement(module: nn.Module, var: Sequence[Tensor], anchors: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """R3Det's feature refinement: convolutions of the map, read at the middle of the anchors, and added to it.

    **Approximate**: the map, its convolutions and their sum are taken as independent, as wherever features meet. The
    alignment itself, a point and the pixel it is added to, is **exact if independent**.

    Yang et al., R3Det, AAAI 2021 (arXiv:1908.05612).

    Args:
        module: mmrotate's FRM.
        var: Variances, (B, C, H, W) for each level.
        anchors: For each image those of each level, (H * W, 5), image pixels.
    """

    def convolved(layer: nn.Module, v: Tensor) -> Tensor:
        return F.conv2d(v, layer.weight.square(), None, layer.stride, layer.padding)

    out = []
    for v, boxes, stride in zip(var, zip(*anchors, strict=True), module.strides, strict=False):
        batch, channels, *size = v.shape
        mixed = convolved(module.conv_5_1, convolved(module.conv_1_5, v)) + convolved(module.conv_1_1, v)
        here = torch.arange(batch * math.prod(size), device=v.device)
        centres = torch.cat(list(boxes))[:, :2].to(torch.promote_types(v.dtype, torch.float32)) * (1 / stride)
        # mmcv's operator takes the first coordinate of a box as y
        columns, values = _corners(centres[:, 0], centres[:, 1], here // math.prod(size), tuple(size))
        columns = torch.cat([columns, here[None]])
        values = torch.cat([values, torch.ones_like(values[:1])])
        weights = _squared(here.expand_as(columns), columns, values, (len(here), len(here)))
        pixels = mixed.permute(0, 2, 3, 1).reshape(-1, channels).to(values.dtype)
        refined = torch.sparse.mm(weights, pixels).view(batch, *size, channels).permute(0, 3, 1, 2)
        out.append(v + refined.to(v.dtype))
    return out
