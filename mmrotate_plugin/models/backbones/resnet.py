"""The one ResNet skeleton: mmcv's builders make every layer, so a config decides what kind of network it is."""

from collections.abc import Sequence
from typing import Any

from mmcv.cnn import build_activation_layer, build_conv_layer, build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...adf import Gaussian, accept_gains
from ...registry import MODELS
from ...utils import safe_load
from ...utils.typecheck import typed
from ..layers import Cfg
from ._arguments import check_layers, check_stages, check_widths, refuse_extensions, start_of
from ._blocks import ARCHITECTURES, Block, deep_stem_of


@MODELS.register_module()  # in this package's scope only: every host has a ResNet
class ResNet(BaseModule):
    """ResNet built from registered layers.

    He et al., Deep Residual Learning for Image Recognition, CVPR 2016 (arXiv:1512.03385). With plain layers the
    state-dict keys and the function are those of mmdet's and torchvision's ResNet.

    Args:
        depth: 18, 34, 50, 101 or 152.
        in_channels: Channels of the input image.
        stem_channels: Channels after the stem; `base_channels` if None.
        base_channels: Width of stage one; it doubles with each stage. Blocks of depth 50 and more return four times
            their width.
        num_stages: Stages to build, 1 to 4.
        strides: Stride of the first block of each stage.
        dilations: Dilation of each stage.
        out_indices: Stages to return, ascending indices from 0.
        style: 'pytorch' puts the stride of a bottleneck into its 3x3 convolution, 'caffe' into the first 1x1.
        deep_stem: Stem of three 3x3 convolutions instead of one 7x7 (He et al., Bag of Tricks, CVPR 2019, ResNet-C).
        avg_down: Shortcuts downsample by average pooling instead of strided convolution (ibid., ResNet-D).
        frozen_stages: Stem (0) and stages (1, 2, ...) up to this one do not learn, and their norms stay in eval mode;
            -1 for none.
        conv_cfg: Convolution layer; None for `torch.nn.Conv2d`.
        norm_cfg: Norm layer.
        norm_eval: Keep batch norms in eval mode during training (running statistics fixed), which suits trained
            weights and small batches. On by default, as in mmdet; a network that starts untrained needs False.
        dcn, stage_with_dcn, plugins: mmdet's deformable convolutions and plugins. Neither exists here: only values
            that ask for none pass.
        with_cp: Recompute each block in the backward pass instead of keeping its maps. Running statistics are
            updated once, not again in the second pass.
        zero_init_residual: Start residual branches at zero: their last norm's scale is 0, if it has one.
        pretrained: Checkpoint to start from; an older form of an `init_cfg` of type 'Pretrained'.
        init_cfg: mmengine's initialisation config; None for Kaiming-normal convolutions and unit norms.
        act_cfg: Activation layer.

    Attributes:
        norm1: The norm of the stem under one name, like `norm1`, `norm2` and `norm3` of the blocks.
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
        check_stages(depth, num_stages, strides, dilations, out_indices, style, frozen_stages)
        refuse_extensions(dcn, stage_with_dcn, plugins)
        init_cfg = start_of(pretrained, init_cfg)
        channels = base_channels if stem_channels is None else stem_channels
        check_widths(in_channels=in_channels, base_channels=base_channels, stem_channels=channels, deep_stem=deep_stem)
        check_layers(conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=act_cfg)
        super().__init__(init_cfg)
        self.depth = depth
        self.stem_channels, self.base_channels = channels, base_channels
        self.num_stages, self.strides, self.dilations = num_stages, tuple(strides), tuple(dilations)
        self.dcn, self.stage_with_dcn, self.plugins = dcn, stage_with_dcn, plugins
        self.out_indices = tuple(out_indices)
        self.style, self.deep_stem, self.avg_down = style, deep_stem, avg_down
        self.frozen_stages = frozen_stages
        self.conv_cfg, self.norm_cfg, self.act_cfg = conv_cfg, norm_cfg, act_cfg
        self.norm_eval, self.with_cp, self.zero_init_residual = norm_eval, with_cp, zero_init_residual

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
        """The norm of the stem under one name; a deep stem has three, in `stem`."""
        return getattr(self, self.norm1_name)

    def _stem_conv_cfg(self) -> Cfg | None:
        """The layer that reads the image."""
        return self.conv_cfg

    def _downsampling_pool(self, stride: int) -> nn.Module:
        """Average pooling of the shortcut, for `avg_down`."""
        return nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)

    def _make_stem(self, in_channels: int, channels: int) -> None:
        if self.deep_stem:
            self.stem = deep_stem_of(
                in_channels, channels, self._stem_conv_cfg(), self.conv_cfg, self.norm_cfg, self.act_cfg
            )
        else:
            self.conv1 = build_conv_layer(
                self._stem_conv_cfg(), in_channels, channels, 7, stride=2, padding=3, bias=False
            )
            self.norm1_name, norm = build_norm_layer(self.norm_cfg, channels, postfix=1)
            self.add_module(self.norm1_name, norm)
            self.relu = build_activation_layer(self.act_cfg)
        self.maxpool: nn.Module = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)

    def _make_stage(self, in_channels: int, width: int, blocks: int, stride: int, dilation: int) -> nn.Sequential:
        out_channels = width * self.block.expansion
        downsample: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            pool = [self._downsampling_pool(stride)] if self.avg_down else []
            conv = build_conv_layer(
                self.conv_cfg, in_channels, out_channels, 1, stride=1 if self.avg_down else stride, bias=False
            )
            downsample = nn.Sequential(*pool, conv, build_norm_layer(self.norm_cfg, out_channels)[1])
        common: dict[str, Any] = {'dilation': dilation, 'style': self.style, 'with_cp': self.with_cp}
        common |= {'conv_cfg': self.conv_cfg, 'norm_cfg': self.norm_cfg, 'act_cfg': self.act_cfg}
        first = self.block(in_channels, width, stride=stride, downsample=downsample, **common)
        rest = [self.block(out_channels, width, stride=1, downsample=None, **common) for _ in range(1, blocks)]
        return nn.Sequential(first, *rest)

    def _zero_residuals(self) -> None:
        if self.zero_init_residual:
            for block in self.modules():
                if isinstance(block, Block) and isinstance(scale := getattr(block.last_norm, 'weight', None), Tensor):
                    nn.init.zeros_(scale)

    def init_weights(self) -> None:
        """Initialise by `init_cfg`; weights from a checkpoint stay as they are."""
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

    def forward(self, x: Tensor | Gaussian) -> tuple[Tensor | Gaussian, ...]:
        """Compute the maps of the stages in `out_indices` from images, (B, in_channels, H, W).

        A `Gaussian` gives Gaussians.
        """
        x = self.stem(x) if self.deep_stem else self.relu(self.norm1(self.conv1(x)))
        x = self.maxpool(x)
        outs = []
        for i, name in enumerate(self.res_layers):
            x = getattr(self, name)(x)
            if i in self.out_indices:
                outs.append(x)
        return tuple(outs)
