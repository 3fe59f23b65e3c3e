"""Variance through modules that are made of compiled operators, which torch's function protocol cannot see."""

import inspect
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...adf import Gaussian, NoMomentRule

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
    first = next(_gaussians((args, kwargs)), None)
    if first is None:
        return forward(*args, **kwargs)
    bound = inspect.signature(type(module).forward).bind(module, *args, **kwargs)
    _, features, *others = bound.arguments
    for name in others:
        if next(_gaussians(bound.arguments[name]), None) is not None:
            raise NoMomentRule(
                f"{type(module).__name__} has a variance rule for Gaussian feature maps '{features}', but its '{name}' "
                'is Gaussian: it must be a constant. Hand over its mean'
            )
    maps = bound.arguments[features]
    bound.arguments[features] = _map(maps, lambda x: x.mean if isinstance(x, Gaussian) else x)
    mean = forward(*bound.args[1:], **bound.kwargs)
    bound.arguments[features] = _map(maps, lambda x: x.var if isinstance(x, Gaussian) else torch.zeros_like(x))
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


def _gaussians(values: Any) -> Iterator[Gaussian]:
    if isinstance(values, Gaussian):
        yield values
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _gaussians(value)
    elif isinstance(values, dict):
        yield from _gaussians(list(values.values()))


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
                    'mmrotate_plugin/models/uncertainty/operators.py'
                )
            stack.enter_context(_forward(layer, partial(rule, layer)))
        return type(extractor).forward(extractor, feats, rois, *args, **kwargs)


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
        for some in rows.split(max(1, ENTRIES // (4 * math.prod(count) * math.prod(out_size)))):
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
    size = max(1, ENTRIES // (batch * taps * 4 * max(var.shape[1], taps * 4 * divisions)))
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
