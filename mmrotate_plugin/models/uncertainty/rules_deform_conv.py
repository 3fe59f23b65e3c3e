"""Squared weights of deformable convolutions."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import operator_rules
from .operator_rules import operator_rule


@operator_rule('mmcv.ops:ModulatedDeformConv2d')
def modulated_deform_conv(module: nn.Module, var: Tensor, offset: Tensor, mask: Tensor) -> Tensor:
    """Deformable convolution whose taps have factors, by the formula of `deform_conv`. **Exact if independent**.

    Args:
        module: mmcv's ModulatedDeformConv2d.
        var: (B, C, H, W).
        offset: Constant, (B, deform_groups * 2 * taps, H', W'), y before x.
        mask: Constant, (B, deform_groups * taps, H', W').
    """
    return _deform_conv(module, var, offset, mask)


@operator_rule('mmcv.ops:DeformConv2d')
def deform_conv(module: nn.Module, var: Tensor, offset: Tensor) -> Tensor:
    r"""Deformable convolution with given offsets, as in S2ANet's alignment.

    With bilinear weights :math:`b_{tp}` of tap t at pixel p,

    .. math::
        v'_o = \sum_{c, p} \left( \sum_t k_{oct} b_{tp} \right)^2 v_{cp}
             = \sum_c \sum_{t, t'} k_{oct} k_{oct'} \sum_p b_{tp} b_{t'p} v_{cp}

    **Exact if independent**, also where taps share pixels. Pairs of taps that nowhere do cost nothing.

    Args:
        module: mmcv's DeformConv2d.
        var: (B, C, H, W).
        offset: Constant, (B, deform_groups * 2 * taps, H', W'), y before x.
    """
    kernel = module.kernel_size
    missing = [max(k - s, 0) for k, s in zip(kernel, var.shape[2:], strict=True)]
    if any(missing):  # the module pads maps that are smaller than its kernel
        margin = (0, missing[1], 0, missing[0])
        var, offset = F.pad(var, margin), F.pad(offset, margin)
    height, width = (length - less for length, less in zip(offset.shape[2:], missing, strict=True))
    return _deform_conv(module, var, offset)[:, :, :height, :width]


def _deform_conv(module: nn.Module, var: Tensor, offset: Tensor, mask: Tensor | None = None) -> Tensor:
    weight = module.weight.to(var).flatten(2)  # (C_out, C / groups, T)
    index, value = _taps(module, offset.to(var.dtype), var.shape[2:])  # (B, D, T, 4, L)
    batch, divisions, taps, _, places = index.shape
    if mask is not None:
        value = value * mask.reshape(batch, divisions, taps, 1, places)
    pixels = var.reshape(batch, divisions, -1, var.shape[2] * var.shape[3])  # (B, D, C / D, H * W)
    parts = []
    size = max(1, operator_rules.ENTRIES // (batch * taps * 4 * max(var.shape[1], taps * 4 * divisions)))
    for start in range(0, places, size):
        where, share = index[..., start : start + size], value[..., start : start + size]
        gathered = pixels.gather(3, where.flatten(2).unsqueeze(2).expand(-1, -1, pixels.shape[2], -1))
        gathered = gathered.view(*pixels.shape[:3], *where.shape[2:])  # (B, D, C / D, T, 4, S)
        out = var.new_zeros(batch, weight.shape[0], where.shape[-1])
        for i in range(taps):
            same = where[:, :, i, None, :, None] == where[:, :, i:, None]  # (B, D, T - i, 4, 4, S)
            common = share[:, :, i, None] * (same * share[:, :, i:, None]).sum(4)  # (B, D, T - i, 4, S)
            for j in common.flatten(3).any(3).any(0).any(0).nonzero().squeeze(1).tolist():
                product = (gathered[:, :, :, i] * common[:, :, None, j]).sum(3)  # (B, D, C / D, S)
                pair = (2 if j else 1) * weight[:, :, i] * weight[:, :, i + j]
                product = product.reshape(batch, var.shape[1], -1)
                out = out + F.conv1d(product, pair.unsqueeze(2), groups=module.groups)
        parts.append(out)
    return torch.cat(parts, 2).clamp_min(0).view(batch, -1, *offset.shape[2:])  # rounding, where taps cancel


def _taps(module: nn.Module, offset: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Pixels, flat, and bilinear weights of each tap at each of L places: (B, deform_groups, taps, 4, L)."""
    batch, _, *places = offset.shape
    offset = offset.reshape(batch, module.deform_groups, math.prod(module.kernel_size), 2, *places)
    inside, corners = torch.ones((), dtype=torch.bool, device=offset.device), []
    for axis, extent in enumerate(size):
        place = torch.arange(places[axis], device=offset.device) * module.stride[axis] - module.padding[axis]
        tap = torch.arange(module.kernel_size[axis], device=offset.device) * module.dilation[axis]
        across = module.kernel_size[1 - axis]
        tap = tap.repeat_interleave(across) if axis == 0 else tap.repeat(across)
        start = tap[:, None, None] + (place[:, None] if axis == 0 else place)  # (T, H' or 1, 1 or W')
        point = start + offset[:, :, :, axis]  # (B, D, T, H', W')
        inside = inside & (point > -1) & (point < extent)
        low = point.floor()
        part = point - low
        corners.append(
            [
                (where.clamp(0, extent - 1).long(), share * ((where >= 0) & (where < extent)))
                for where, share in ((low, 1 - part), (low + 1, part))
            ]
        )
    index = torch.stack([row * size[1] + column for row, _ in corners[0] for column, _ in corners[1]], 3)
    value = torch.stack([a * b * inside for _, a in corners[0] for _, b in corners[1]], 3)
    return index.flatten(4), value.flatten(4)
