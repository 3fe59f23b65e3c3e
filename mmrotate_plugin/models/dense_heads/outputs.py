"""Towers and last layers of a head: of fields, or of ordinary maps."""

import math

from mmcv.cnn import ConvModule
from torch import nn

from ...equivariant import ennIrrepConv
from ..layers import Cfg, equivariant_act_cfg, equivariant_conv_cfg, equivariant_norm_cfg

Output = nn.Conv2d | ennIrrepConv
KERNEL = 3
BAND = ('frequencies_cutoff', 'maximum_offset')  # options of `ennConv` that `ennIrrepConv` shares


def build_tower(
    in_channels: int,
    channels: int,
    depth: int,
    group: str | None,
    conv_cfg: Cfg | None,
    norm_cfg: Cfg | None,
    act_cfg: Cfg,
) -> nn.ModuleList:
    """Build `depth` blocks of convolution, norm and activation, (B, in_channels, H, W) to (B, channels, H, W).

    Args:
        in_channels, channels: Tensor channels; with a group, multiples of its order.
        depth: Number of blocks.
        group: Fiber group, whose layers take the place of ordinary ones; None for those.
        conv_cfg, norm_cfg, act_cfg: As in mmcv's `ConvModule`.
    """
    if group is not None:
        conv_cfg = equivariant_conv_cfg(conv_cfg, group)
        norm_cfg = None if norm_cfg is None else equivariant_norm_cfg(norm_cfg, group)
        act_cfg = equivariant_act_cfg(act_cfg, group)
    options = {'conv_cfg': conv_cfg, 'norm_cfg': norm_cfg, 'act_cfg': act_cfg}
    widths = [in_channels] + [channels] * depth
    pairs = zip(widths, widths[1:], strict=False)
    return nn.ModuleList(ConvModule(i, o, KERNEL, padding=KERNEL // 2, **options) for i, o in pairs)


def build_output(in_channels: int, frequencies: list[int], group: str | None, conv_cfg: Cfg | None) -> Output:
    """Build the last layer of a branch: `ennIrrepConv` for a group, else an ordinary convolution as wide.

    Args:
        in_channels: Tensor channels of the input.
        frequencies: Frequency of each output: one channel for 0, two for others.
        group: Fiber group or None.
        conv_cfg: That of the towers, whose band limit is taken over.
    """
    if group is None:
        width = sum(1 if k == 0 else 2 for k in frequencies)
        return nn.Conv2d(in_channels, width, KERNEL, padding=KERNEL // 2)
    band = {key: value for key, value in (conv_cfg or {}).items() if key in BAND}
    return ennIrrepConv(in_channels, frequencies, KERNEL, padding=KERNEL // 2, group=group, **band)


def init_tower(tower: nn.ModuleList) -> None:
    """Initialise ordinary convolutions as FCOS does (normal, std 0.01); equivariant ones keep their He's."""
    for block in tower:
        if isinstance(block.conv, nn.Conv2d):
            nn.init.normal_(block.conv.weight, std=0.01)


def init_output(layer: Output, bias: float = 0.0, std: float = 0.01) -> None:
    """Draw small weights, and set the bias (which an `ennIrrepConv` has for its invariant channels alone)."""
    nn.init.normal_(layer.weight, std=std)
    if layer.bias is not None:
        nn.init.constant_(layer.bias, bias)


def prior_bias(probability: float) -> float:
    """The logit at which a sigmoid has this value. Lin et al., Focal Loss, ICCV 2017 (arXiv:1708.02002), section 4.1.

    Args:
        probability: Between 0 and 1.
    """
    return -math.log((1 - probability) / probability)
