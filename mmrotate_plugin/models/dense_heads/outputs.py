"""Towers and last layers of a head: of fields, or of ordinary maps."""

import math

from mmcv.cnn import build_activation_layer, build_conv_layer, build_norm_layer
from torch import Tensor, nn

from ...equivariant import ennIrrepConv
from ..layers import Cfg, equivariant_act_cfg, equivariant_conv_cfg, equivariant_norm_cfg

Output = nn.Conv2d | ennIrrepConv
KERNEL = 3
BAND = ('frequencies_cutoff', 'maximum_offset')  # options of `ennConv` that `ennIrrepConv` shares


class TowerBlock(nn.Module):
    """Convolution, norm and activation, of which a norm with running statistics exists once for each level.

    In training, such a norm (batch norm) takes the statistics of the level at hand. One norm for all levels would
    keep a mixture of these, so that in evaluation each level would be normalised wrongly: measured on the embedded
    scenes, ships became a quarter too long and AP75 fell from .69 to .31. Other norms are shared, as convolutions are.

    Args:
        in_channels, channels: Tensor channels.
        levels: Number of levels.
        conv_cfg, norm_cfg, act_cfg: As in mmcv's `ConvModule`.

    Shape:
        - Input: (B, in_channels, H, W) and the number of its level. Output: (B, channels, H, W).
    """

    def __init__(
        self, in_channels: int, channels: int, levels: int, conv_cfg: Cfg | None, norm_cfg: Cfg | None, act_cfg: Cfg
    ) -> None:
        super().__init__()
        self.conv = build_conv_layer(
            conv_cfg, in_channels, channels, KERNEL, padding=KERNEL // 2, bias=norm_cfg is None
        )
        self.norms = nn.ModuleList()
        if norm_cfg is not None:
            self.norms.append(build_norm_layer(norm_cfg, channels)[1])
            if any('running' in name for name, _ in self.norms[0].named_buffers()):
                self.norms.extend(build_norm_layer(norm_cfg, channels)[1] for _ in range(levels - 1))
        self.activate = build_activation_layer(act_cfg)

    def forward(self, x: Tensor, level: int) -> Tensor:
        """Apply the block to a map of one level."""
        x = self.conv(x)
        if len(self.norms):
            x = self.norms[level % len(self.norms)](x)
        return self.activate(x)


def build_tower(
    in_channels: int,
    channels: int,
    depth: int,
    levels: int,
    group: str | None,
    conv_cfg: Cfg | None,
    norm_cfg: Cfg | None,
    act_cfg: Cfg,
) -> nn.ModuleList:
    """Build `depth` blocks, (B, in_channels, H, W) to (B, channels, H, W).

    Args:
        in_channels, channels: Tensor channels; with a group, multiples of its order.
        depth: Number of blocks.
        levels: Number of levels that share the tower.
        group: Fiber group, whose layers take the place of ordinary ones; None for those.
        conv_cfg, norm_cfg, act_cfg: As in mmcv's `ConvModule`.
    """
    if group is not None:
        conv_cfg = equivariant_conv_cfg(conv_cfg, group)
        norm_cfg = None if norm_cfg is None else equivariant_norm_cfg(norm_cfg, group)
        act_cfg = equivariant_act_cfg(act_cfg, group)
    widths = [in_channels] + [channels] * depth
    pairs = zip(widths, widths[1:], strict=False)
    return nn.ModuleList(TowerBlock(i, o, levels, conv_cfg, norm_cfg, act_cfg) for i, o in pairs)


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
