"""The one ResNet skeleton: every layer comes from mmcv's builders, so a config decides what kind of network it is."""

import logging
from collections.abc import Sequence
from typing import Any

from mmcv.cnn import build_activation_layer, build_conv_layer, build_norm_layer
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...adf import accept_gains
from ...registry import MODELS
from ...utils import safe_load
from ...utils.typecheck import typed
from ..layers import Cfg
from ._blocks import ARCHITECTURES, Block


@MODELS.register_module()  # in the own scope only: every host has a ResNet
class ResNet(BaseModule):
    """ResNet built from registered layers.

    He et al., Deep Residual Learning for Image Recognition, CVPR 2016 (arXiv:1512.03385). With plain layers the
    state-dict keys and the function are those of mmdet's and torchvision's ResNet.

    Args:
        depth: 18, 34, 50, 101 or 152.
        in_channels: Channels of the input image.
        stem_channels: Channels after the stem; `base_channels` if None.
        base_channels: Width of stage one; it doubles with each stage. Blocks of depth 50 and more put out four times
            their width.
        num_stages: Stages to build, 1 to 4.
        strides: Stride of the first block of each stage.
        dilations: Dilation of each stage.
        out_indices: Stages to return, ascending indices from 0.
        style: 'pytorch' puts the stride of a bottleneck into its 3x3 convolution, 'caffe' into the first 1x1.
        deep_stem: Stem of three 3x3 convolutions instead of one 7x7 (He et al., Bag of Tricks, CVPR 2019, ResNet-C).
        avg_down: Shortcuts downsample by average pooling instead of strided convolution (ibid., ResNet-D).
        frozen_stages: Stem (0) and stages (1, 2, ...) up to this one do not learn, their norms stay in eval mode;
            -1 for none.
        conv_cfg: Convolution layer; None for `torch.nn.Conv2d`.
        norm_cfg: Norm layer.
        norm_eval: Keep batch norms in eval mode during training (running statistics fixed), as suits trained weights
            and small batches. It is on by default, as in mmdet: a network that starts untrained needs False.
        dcn, stage_with_dcn, plugins: mmdet's deformable convolutions and plugins. Neither exists here: the values that
            ask for none pass, others are an error.
        with_cp: Recompute each block in the backward pass instead of keeping its maps. Running statistics are
            updated once, not again in the second pass.
        zero_init_residual: Residual branches start at zero: their last norm's scale is 0, if it has one.
        pretrained: Checkpoint to start from; an older way to write an `init_cfg` of type 'Pretrained'.
        init_cfg: mmengine's initialisation config; None for Kaiming-normal convolutions and unit norms.
        act_cfg: Activation layer.

    Attributes:
        norm1: The stem's norm, whatever its name; the blocks' `norm1`, `norm2` and `norm3` likewise.
        res_layers: Names of the stages.
        feat_dim: Channels of the last stage.
        block, stage_blocks: Class and number of the blocks of each stage.

    Shape:
        - Input: (B, in_channels, H, W).
        - Output: tuple of (B, C_i, H_i, W_i), one per index of `out_indices`.

    Raises:
        ValueError: For arguments out of range; the message names the argument, its value and the range.
    """

    arch_settings = ARCHITECTURES

    @typed
    def __init__(
        self,
        depth: int,
        in_channels: int = 3,
        stem_channels: int | None = None,
        base_channels: int = 64,
        num_stages: int = 4,
        strides: Sequence[int] = (1, 2, 2, 2),
        dilations: Sequence[int] = (1, 1, 1, 1),
        out_indices: Sequence[int] = (0, 1, 2, 3),
        style: str = 'pytorch',
        deep_stem: bool = False,
        avg_down: bool = False,
        frozen_stages: int = -1,
        conv_cfg: Cfg | None = None,
        norm_cfg: Cfg = {'type': 'BN', 'requires_grad': True},  # noqa: B006  read only
        norm_eval: bool = True,
        dcn: Cfg | None = None,
        stage_with_dcn: Sequence[bool] = (False, False, False, False),
        plugins: Sequence[Cfg] | None = None,
        with_cp: bool = False,
        zero_init_residual: bool = True,
        pretrained: str | None = None,
        init_cfg: Cfg | list[Cfg] | None = None,
        act_cfg: Cfg = {'type': 'ReLU', 'inplace': True},  # noqa: B006  read only
    ) -> None:
        _check_arguments(depth, num_stages, strides, dilations, out_indices, style, frozen_stages)
        _refuse_extensions(dcn, stage_with_dcn, plugins)
        init_cfg = _from_pretrained(pretrained, init_cfg)
        channels = base_channels if stem_channels is None else stem_channels
        widths = {'in_channels': in_channels, 'base_channels': base_channels, 'stem_channels': channels}
        for name, width in widths.items():
            if width < 1 + (deep_stem and name == 'stem_channels'):  # half of it lies in a deep stem
                raise ValueError(f'{name}={width} is no width: use a positive number, such as 64')
        for name, cfg in (('conv_cfg', conv_cfg), ('norm_cfg', norm_cfg), ('act_cfg', act_cfg)):
            if cfg is not None and not isinstance(cfg.get('type'), (str, type)):
                raise ValueError(f'{name}={cfg} must name a layer by its type, such as {{"type": "ReLU"}}')
        if init_cfg is None:
            init_cfg = [
                {'type': 'Kaiming', 'layer': 'Conv2d'},
                {'type': 'Constant', 'val': 1, 'layer': ['_BatchNorm', 'GroupNorm']},
            ]
        super().__init__(init_cfg)
        self.depth = depth
        self.stem_channels, self.base_channels = channels, base_channels
        self.num_stages, self.strides, self.dilations = num_stages, tuple(strides), tuple(dilations)
        self.dcn, self.stage_with_dcn, self.plugins = dcn, stage_with_dcn, plugins
        self.out_indices = tuple(out_indices)
        self.style = style
        self.deep_stem = deep_stem
        self.avg_down = avg_down
        self.frozen_stages = frozen_stages
        self.conv_cfg, self.norm_cfg, self.act_cfg = conv_cfg, norm_cfg, act_cfg
        self.norm_eval = norm_eval
        self.with_cp = with_cp
        self.zero_init_residual = zero_init_residual

        self.block, blocks = self.arch_settings[depth]
        self.stage_blocks = blocks[:num_stages]
        self._make_stem(in_channels, channels)
        self.res_layers = [f'layer{i + 1}' for i in range(num_stages)]
        for i, name in enumerate(self.res_layers):
            stage = self._make_stage(channels, base_channels * 2**i, blocks[i], strides[i], dilations[i])
            self.add_module(name, stage)
            channels = base_channels * 2**i * self.block.expansion
        self.feat_dim = channels
        self._zero_residuals()
        self._freeze_stages()
        accept_gains(self)  # of a calibrated checkpoint

    @property
    def norm1(self) -> nn.Module:
        """The norm of the stem, whatever its name; a deep stem has three, in `stem`."""
        return getattr(self, self.norm1_name)

    def _stem_conv_cfg(self) -> Cfg | None:
        """The layer that reads the image."""
        return self.conv_cfg

    def _downsampling_pool(self, stride: int) -> nn.Module:
        """Average pooling of the shortcut, for `avg_down`."""
        return nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)

    def _make_stem(self, in_channels: int, channels: int) -> None:
        if self.deep_stem:
            half, layers = channels // 2, []
            for i, (cfg, c_in, c_out) in enumerate(
                [
                    (self._stem_conv_cfg(), in_channels, half),
                    (self.conv_cfg, half, half),
                    (self.conv_cfg, half, channels),
                ]
            ):
                layers += [
                    build_conv_layer(cfg, c_in, c_out, 3, stride=2 if i == 0 else 1, padding=1, bias=False),
                    build_norm_layer(self.norm_cfg, c_out)[1],
                    build_activation_layer(self.act_cfg),
                ]
            self.stem = nn.Sequential(*layers)
        else:
            self.conv1 = build_conv_layer(
                self._stem_conv_cfg(), in_channels, channels, 7, stride=2, padding=3, bias=False
            )
            self.norm1_name, norm = build_norm_layer(self.norm_cfg, channels, postfix=1)
            self.add_module(self.norm1_name, norm)
            self.relu = build_activation_layer(self.act_cfg)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)

    def _make_stage(self, in_channels: int, width: int, blocks: int, stride: int, dilation: int) -> nn.Sequential:
        out_channels = width * self.block.expansion
        downsample: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            pool = [self._downsampling_pool(stride)] if self.avg_down else []
            conv = build_conv_layer(
                self.conv_cfg, in_channels, out_channels, 1, stride=1 if self.avg_down else stride, bias=False
            )
            downsample = nn.Sequential(*pool, conv, build_norm_layer(self.norm_cfg, out_channels)[1])
        common: dict[str, Any] = {
            'dilation': dilation,
            'style': self.style,
            'with_cp': self.with_cp,
            'conv_cfg': self.conv_cfg,
            'norm_cfg': self.norm_cfg,
            'act_cfg': self.act_cfg,
        }
        first = self.block(in_channels, width, stride=stride, downsample=downsample, **common)
        rest = [self.block(out_channels, width, stride=1, downsample=None, **common) for _ in range(1, blocks)]
        return nn.Sequential(first, *rest)

    def _zero_residuals(self) -> None:
        if self.zero_init_residual:
            for block in self.modules():
                if isinstance(block, Block) and getattr(block.last_norm, 'weight', None) is not None:
                    nn.init.zeros_(block.last_norm.weight)

    def init_weights(self) -> None:
        """Initialise by `init_cfg`; weights from a checkpoint are kept as they are."""
        with safe_load.loading():
            super().init_weights()
        cfgs = self.init_cfg if isinstance(self.init_cfg, list) else [self.init_cfg]
        if not any(str(cfg['type']).endswith('Pretrained') for cfg in cfgs):
            self._zero_residuals()

    def _freeze_stages(self) -> None:
        frozen: list[nn.Module] = []
        if self.frozen_stages >= 0:
            frozen += [self.stem] if self.deep_stem else [self.conv1, self.norm1]
        frozen += [getattr(self, name) for name in self.res_layers[: max(self.frozen_stages, 0)]]
        for module in frozen:
            module.eval()
            for parameter in module.parameters():
                parameter.requires_grad = False

    def train(self, mode: bool = True) -> 'ResNet':
        """Set training mode; frozen stages, and batch norms under `norm_eval`, stay in eval mode."""
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, in_channels, H, W) to the maps of the stages in `out_indices`."""
        x = self.stem(x) if self.deep_stem else self.relu(self.norm1(self.conv1(x)))
        x = self.maxpool(x)
        outs = []
        for i, name in enumerate(self.res_layers):
            x = getattr(self, name)(x)
            if i in self.out_indices:
                outs.append(x)
        return tuple(outs)


def _check_arguments(
    depth: int,
    num_stages: int,
    strides: Sequence[int],
    dilations: Sequence[int],
    out_indices: Sequence[int],
    style: str,
    frozen_stages: int,
) -> None:
    if depth not in ARCHITECTURES:
        raise ValueError(f'depth={depth!r} is unknown: use one of {", ".join(map(str, ARCHITECTURES))}')
    if num_stages not in (1, 2, 3, 4):
        raise ValueError(f'num_stages={num_stages!r} is out of range: use 1, 2, 3 or 4')
    for name, values in (('strides', strides), ('dilations', dilations)):
        if len(values) != num_stages or any(v < 1 for v in values):
            raise ValueError(f'{name}={tuple(values)} must hold one integer >= 1 for each of num_stages={num_stages}')
    if not out_indices or sorted(set(out_indices)) != list(out_indices) or min(out_indices) < 0:
        raise ValueError(f'out_indices={tuple(out_indices)} must be ascending stage indices from 0, such as (1, 2, 3)')
    if max(out_indices) >= num_stages:
        raise ValueError(
            f'out_indices={tuple(out_indices)} goes beyond num_stages={num_stages}: the last index is {num_stages - 1}'
        )
    if style not in ('pytorch', 'caffe'):
        raise ValueError(f"style={style!r} is unknown: use 'pytorch' or 'caffe'")
    if not -1 <= frozen_stages <= num_stages:
        raise ValueError(f'frozen_stages={frozen_stages} is out of range: use -1 (none) to num_stages={num_stages}')


def _refuse_extensions(dcn: Cfg | None, stage_with_dcn: Sequence[bool], plugins: Sequence[Cfg] | None) -> None:
    """Let mmdet's arguments pass where they ask for nothing."""
    if dcn:  # mmdet's does not read stage_with_dcn without it
        raise ValueError(
            f'dcn={dcn}, stage_with_dcn={tuple(stage_with_dcn)}: there are no deformable convolutions here; use '
            'dcn=None, or mmdet.ResNet'
        )
    if plugins:
        raise ValueError(f'plugins={plugins}: there are no plugins here; use plugins=None, or mmdet.ResNet')


def _from_pretrained(pretrained: str | None, init_cfg: Cfg | list[Cfg] | None) -> Cfg | list[Cfg] | None:
    """`init_cfg`, or the one that an older config's `pretrained` stands for."""
    if pretrained is None:
        return init_cfg
    if init_cfg:
        raise ValueError(
            f'pretrained={pretrained!r} and init_cfg={init_cfg} both say how to start: give one of the two'
        )
    print_log(
        f"pretrained is mmdet's older way to write it: init_cfg=dict(type='Pretrained', checkpoint={pretrained!r})",
        logger='current',
        level=logging.WARNING,
    )
    return {'type': 'Pretrained', 'checkpoint': pretrained}
