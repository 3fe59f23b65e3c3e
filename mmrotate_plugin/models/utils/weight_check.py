"""Refuse a state dict of another depth, group or width.

mmengine loads what fits, logs the rest, and trains on; these refusals are raised on that path too. They read:

- the blocks of each stage, hence the depth;
- the shapes of the coefficients, (fields out, fields in, K). With :math:`K = 8|G|` kernels of size 3 and
  :math:`K = |G|` of size 1, they give the order of the group and the width;
- in files saved by e2cnn, also the order (``batch_norm_[8]``) and the sampled kernels, which tell groups of one order
  apart, such as C8 and D4. The state dicts of this package's networks have the group's name in their metadata instead.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...equivariant.conv import _SteerableConv
from ...equivariant.fields import group_order
from ...utils.errors import InputError
from ..backbones._blocks import ARCHITECTURES, Bottleneck
from .switch_check import KEY, warn_of_other_switches

if TYPE_CHECKING:
    from ..backbones.re_resnet import ReResNet
    from ..dense_heads.re_fcos_head import ReFCOSHead
    from ..necks.re_fpn import ReFPN

COMMON_GROUPS = ('C8', 'C4', 'C16', 'D4', 'D8', 'C2', 'C6', 'C12', 'D2', 'D6')
SAMPLED_BASIS = re.compile(r'(.*)\._?basisexpansion\..*\.sampled_basis')
BLOCK_LAYER = re.compile(r'layer(\d)\.(\d+)\.(?:conv|bn|gn)(\d)\.')
NORM_ORDER = re.compile(r'.*\.batch_norm_\[(\d+)\]\..*')
BASIS_TOLERANCE = 1e-4  # float32 samples of norm 1; another group's differ by 0.1 and more


class MisfitError(InputError, RuntimeError):
    """The state dict belongs to another network than the one that loads it; the message names both."""


@dataclass(frozen=True)
class Width:
    """Where a state dict shows a network's width.

    Attributes:
        argument: Name of the argument that sets the width.
        channels: The width of the network that loads the state dict.
        conv, norm: Names of a convolution of that width, and of the norm after it.
    """

    argument: str
    channels: int
    conv: str
    norm: str


def note_group(
    module: 'ReResNet | ReFPN | ReFCOSHead', _state: Mapping[str, Any], _prefix: str, metadata: dict[str, Any]
) -> None:
    """Write into the metadata what the shapes of the coefficients do not tell, such as C8 or D4. A state-dict hook."""
    metadata.update(group=module.group, **{KEY: module.switches})


@contextmanager
def something_must_load(module: nn.Module) -> Iterator[None]:
    """Temporarily refuse a state dict without any key of `module`; mmengine would log that and go on untrained.

    Raises:
        MisfitError: The message names the prefix of the keys, which ``init_cfg`` must name.
    """

    def check(state: Mapping[str, Any], prefix: str, *_: Any) -> None:
        children = tuple(f'{prefix}{name}.' for name in module._modules)
        if any(key.startswith(children) for key in state):
            return
        own = next(iter(module._modules)) + '.'
        inside = sorted({key[: key.index('.' + own) + 1] for key in state if '.' + own in key}, key=len)
        advice = f": its keys begin with '{inside[0]}', so add prefix='{inside[0]}' to init_cfg" if inside else ''
        keys = ', '.join(list(state)[:3])
        raise MisfitError(f'the checkpoint holds no weights of {type(module).__name__} ({keys}, ...){advice}')

    handle = module._register_load_state_dict_pre_hook(check)
    try:
        yield
    finally:
        handle.remove()


def refuse_another_backbone(
    net: 'ReResNet', state: Mapping[str, Any], prefix: str, metadata: Mapping[str, Any]
) -> None:
    """Check a state dict before it is loaded into a ReResNet.

    Args:
        net: The ReResNet.
        state: Tensors by keys, ours or those of e2cnn. Parts may be missing.
        prefix: Prefix of the network's keys, such as 'backbone.'.
        metadata: The network's part of the state dict's metadata.

    Raises:
        MisfitError: If it belongs to another depth, group, base width or band limit, or to a plain ResNet.
    """
    base = net.feat_dim // net.block.expansion // 2 ** (len(net.res_layers) - 1)
    width = Width('base_channels', base, 'layer1.0.conv1', 'layer1.0.bn1')
    found = _find_group(net, state, prefix, metadata.get('group'), width, 'ResNet')
    depths = _depths(net, state, prefix)
    if found is None and net.depth in depths:
        return _refuse_other_kernels(net, state, prefix, metadata)
    group, channels = found or (net.group, width.channels)
    depth = '-' + ' or '.join(map(str, depths)) if depths else ' of no known depth'
    _refuse(prefix, 'ReResNet', width, (f'{depth}, ', group, channels), (f'-{net.depth}, ', net.group))


def refuse_another_neck(neck: 'ReFPN', state: Mapping[str, Any], prefix: str, metadata: Mapping[str, Any]) -> None:
    """Check a state dict before it is loaded into a ReFPN. Arguments as in `refuse_another_backbone`.

    Raises:
        MisfitError: If it belongs to another group or width, or to a plain FPN.
    """
    width = Width('out_channels', neck.out_channels, 'lateral_convs.0.conv', 'lateral_convs.0.bn')
    found = _find_group(neck, state, prefix, metadata.get('group'), width, 'FPN')
    if found is not None:
        _refuse(prefix, 'ReFPN', width, (' of ', *found), (' of ', neck.group))
    _refuse_other_kernels(neck, state, prefix, metadata)


def refuse_another_head(head: 'ReFCOSHead', state: Mapping[str, Any], prefix: str, metadata: Mapping[str, Any]) -> None:
    """Check a state dict before it is loaded into a head. Arguments as in `refuse_another_backbone`.

    Raises:
        MisfitError: If it notes another group, since C8 and D4 have coefficients of equal shapes, or has another band
            limit.
    """
    if metadata.get('group', head.group) != head.group:
        raise MisfitError(
            f'{_where(prefix)}the checkpoint is of a {type(head).__name__} of group {metadata["group"]}; the model is '
            f'one of group {head.group}. Give the model group={metadata["group"]!r}, or load another checkpoint'
        )
    _refuse_other_kernels(head, state, prefix, metadata)


def _refuse_other_kernels(
    module: nn.Module, state: Mapping[str, Any], prefix: str, metadata: Mapping[str, Any]
) -> None:
    """Refuse coefficients of as many fields, but of another number of kernels; mmengine would leave them out.

    Of the same kernels, warn if they were trained between other activations or blurs.
    """
    warn_of_other_switches(module, prefix, metadata)
    for name, conv in module.named_modules():
        weight = state.get(f'{prefix}{name}.weight')
        if not isinstance(conv, _SteerableConv) or weight is None or weight.dim() != 3:
            continue
        theirs, kernels = weight.shape[2], conv.weight.shape[2]
        if weight.shape[:2] == conv.weight.shape[:2] and theirs != kernels:
            raise MisfitError(
                f'{prefix}{name}: the checkpoint has {theirs} kernels between two fields, the model {kernels}: it was '
                'made with another frequencies_cutoff or maximum_offset (any_angle=True sets both). Give the model '
                "the checkpoint's, or load another checkpoint"
            )


def _refuse(prefix: str, name: str, width: Width, theirs: tuple[str, str, int], ours: tuple[str, str]) -> None:
    raise MisfitError(
        f'{_where(prefix)}the checkpoint is of a {name}{theirs[0]}group {theirs[1]}, {width.argument}={theirs[2]}; '
        f'the model is a {name}{ours[0]}group {ours[1]}, {width.argument}={width.channels}. '
        "Give the model the checkpoint's values, or load another checkpoint"
    )


def _where(prefix: str) -> str:
    return f'{prefix[:-1]}: ' if prefix else ''


def _depths(net: 'ReResNet', state: Mapping[str, Any], prefix: str) -> list[int]:
    """List the depths whose networks have the blocks of a state dict; the network's own if parts are missing."""
    blocks: dict[int, set[int]] = {}
    kinds = set()
    for key in state:
        match = BLOCK_LAYER.match(key[len(prefix) :])
        if match and key.startswith(prefix):
            blocks.setdefault(int(match[1]) - 1, set()).add(int(match[2]))
            kinds.add(int(match[3]))
    if not blocks:
        return [net.depth]
    bottleneck = 3 in kinds
    depths = [
        depth
        for depth, (block, counts) in ARCHITECTURES.items()
        if (block is Bottleneck) == bottleneck and all(found == set(range(counts[i])) for i, found in blocks.items())
    ]
    own_block, own_counts = ARCHITECTURES[net.depth]
    part = (own_block is Bottleneck) == bottleneck and all(max(found) < own_counts[i] for i, found in blocks.items())
    return [net.depth] if not depths and part else depths


def _find_group(
    module: 'ReResNet | ReFPN', state: Mapping[str, Any], prefix: str, noted: str | None, width: Width, plain_name: str
) -> tuple[str, int] | None:
    """Find group and width of a state dict; None if they are the module's own or cannot be told."""
    bases = {m[1]: tensor for key, tensor in state.items() if (m := SAMPLED_BASIS.fullmatch(key))}
    layers = []  # (convolution, its coefficients, its sampled kernels or None)
    for name, conv in module.named_modules():
        key = prefix + name
        weight = state.get(f'{key}.weight', state.get(f'{key}.weights'))
        if not isinstance(conv, _SteerableConv) or weight is None:
            continue
        if weight.dim() == 4:
            raise MisfitError(
                f'{key}.weight of shape {tuple(weight.shape)} is a plain convolution: the checkpoint is of a plain '
                f'{plain_name}, or of an exported {type(module).__name__}; the model is a {type(module).__name__} of '
                f'group {module.group}, whose coefficients have the shape {tuple(conv.weight.shape)}'
            )
        layers.append((conv, weight, bases.get(key)))

    if not layers:
        return None

    orders = {int(m[1]) for key in state if key.startswith(prefix) and (m := NORM_ORDER.fullmatch(key))}
    orders |= {basis.shape[1] for _, _, basis in layers if basis is not None}
    fields = _fields(state, prefix + width.conv, prefix + width.norm)
    best, own_score = -1, -1
    names: list[tuple[str, int]] = []
    for group in _candidates(module.group, noted, orders):
        channels = width.channels if fields is None else fields * group_order(group)
        score = sum(_fit(*layer, group, channels / width.channels) for layer in layers)
        if group == module.group and channels == width.channels:
            own_score = score
        if score > best:
            best, names = score, []
        if score == best:
            names.append((group, channels))
    if own_score < best:
        channels = names[0][1]
        return ' or '.join(group for group, same in names if same == channels), channels
    if any(basis is not None and _fit(conv, w, basis, module.group, 1) == 1 for conv, w, basis in layers):
        raise MisfitError(
            f"{_where(prefix)}the checkpoint's sampled kernels are not those of group {module.group} here: its "
            'coefficients would mean other filters. Was it made with another frequencies_cutoff than 3r, or dilation?'
        )
    return None


def _candidates(own: str, noted: str | None, orders: set[int]) -> list[str]:
    """List groups to try: the one noted, else those of the order seen, else common ones; the own one comes first."""
    if noted is not None:
        return [noted]
    groups: tuple[str, ...] = COMMON_GROUPS
    if len(orders) == 1:
        (order,) = orders
        groups = (f'C{order}', f'D{order // 2}') if order % 2 == 0 and order > 2 else (f'C{order}',)
    if own not in groups and len(orders) != 1:
        groups = (own, *groups)
    return sorted(groups, key=lambda group: group != own)


def _fields(state: Mapping[str, Any], conv: str, norm: str) -> int | None:
    """Read the output fields of a convolution from its coefficients, its bias or its norm."""
    weight, bias = state.get(f'{conv}.weight'), state.get(f'{conv}.bias')
    if weight is not None:
        return weight.shape[0]
    if bias is not None:
        return bias.numel()
    norms = [t for key, t in state.items() if key.startswith(f'{norm}.batch_norm_[') and key.endswith('].weight')]
    return norms[0].numel() if norms else None


def _fit(conv: _SteerableConv, weight: Tensor, basis: Tensor | None, group: str, scale: float) -> int:
    """Rate how well coefficients suit a layer, if it had `group` and were `scale` times as wide.

    Returns:
        0 for another shape, 1 for other kernels, 2 for a fit.
    """
    order = group_order(group)
    own = conv.basis_for(group)
    fields_in = conv.in_channels if conv.trivial_input else conv.in_channels * scale / order
    shape = (conv.out_channels * scale / order, fields_in / conv.groups, len(own))
    flat = shape[0] * shape[1] * shape[2]
    if (weight.numel() != flat) if weight.dim() == 1 else (tuple(weight.shape) != shape):
        return 0
    if basis is None:
        return 2
    samples = own.samples.flatten(3)
    same = samples.shape == basis.shape and torch.allclose(samples, basis.to(samples), rtol=0, atol=BASIS_TOLERANCE)
    return 2 if same else 1
