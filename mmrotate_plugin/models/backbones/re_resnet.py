"""The rotation-equivariant ResNet of ReDet."""

from typing import Any

from torch import nn

from ...equivariant import ennAvgPool, ennBlurPool
from ...equivariant.fields import DEFAULT_GROUP, count_fields
from ...registry import MODELS, register
from ...utils.typecheck import typed
from ..any_angle import STRIDE_BLUR, resolve
from ..layers import Cfg, equivariant_act_cfg, equivariant_conv_cfg, equivariant_norm_cfg
from ..utils.switch_check import describe
from ..utils.weight_check import note_group, refuse_another_backbone, something_must_load
from ._blocks import Block
from .resnet import ResNet


@register(MODELS)
class ReResNet(ResNet):
    """ResNet whose features are regular fields of a planar rotation group.

    Han et al., ReDet: A Rotation-equivariant Detector for Aerial Object Detection, CVPR 2021 (arXiv:2103.07733), on
    steerable convolutions (Weiler & Cesa, NeurIPS 2019, arXiv:1911.08251). Arguments without a line here are those
    of `ResNet`. Weights of mmrotate's and of the original ReDet's ReResNet load as they are. Those of another depth,
    group or width are refused, although mmengine would load what fits (`weight_check.MisfitError`).

    Args:
        depth: 18, 34, 50, 101 or 152.
        group: Fiber group: 'C4', 'C8', 'C16' (rotations), 'D4', 'D8' (rotations and reflections), or any C_N, D_N.
            Its order must divide every width.
        stem_channels: Tensor channels after the stem; `base_channels` if None.
        base_channels: Tensor channels of stage one (fields times the group's order).
        deep_stem: Stem of three 3x3 convolutions; the group's order must divide half of its channels.
        avg_down: Downsample shortcuts by average pooling over centred windows of ``2 * stride - 1`` pixels; the
            windows of a plain ResNet, which start at the corner, would break the symmetry.
        conv_cfg: Options for the convolutions besides `group`, such as ``dict(type='ennConv', padding_mode=...)``.
        norm_cfg: 'BN', 'SyncBN' or 'GN' with the options of that norm. Its equivariant version is built, with
            statistics and affine parameters per field.
        norm_eval: As in `ResNet`, but off by default: most equivariant networks are trained from scratch.
        act_cfg: Activation; ReLU if None. ``dict(type='ennFourierReLU')`` takes a field for a function of the angle, so
            that it commutes with turns between the group's too.
        antialiased: Blur by a Gaussian before each stride of the stages, and pool the stem by such a blur instead of a
            maximum (Zhang, Making Convolutional Networks Shift-Invariant Again, ICML 2019). None is off.
        act_blur: Standard deviation in pixels of a blur behind each activation of the blocks; 0 or None for none.
        any_angle: Preset for features that turn with the image at every angle, not only at quarter turns: a band limit
            of 2 and no offset in `conv_cfg`, `ennFourierReLU`, `antialiased` and `act_blur`. A trained network with
            other settings does not load into it.
        options: Other arguments of `ResNet`. Its default `init_cfg` leaves the coefficients at their generalised He
            initialisation.

    Shape:
        - Input: (B, in_channels, H, W). Quarter turns are exact if H and W are 32m + 1.
        - Output: tuple of (B, C_i, H_i, W_i) tensors, orientation fastest.

    Raises:
        ValueError: If a width is not a multiple of the group's order (the message names both), for an unknown group
            or norm, if `conv_cfg`, `norm_cfg` or `act_cfg` name another group, or if `any_angle` contradicts them.
    """

    @typed
    def __init__(
        self,
        depth: int,
        group: str = DEFAULT_GROUP,
        *,
        stem_channels: int | None = None,
        base_channels: int = 64,
        deep_stem: bool = False,
        conv_cfg: Cfg | None = None,
        norm_cfg: Cfg = {'type': 'BN', 'requires_grad': True},  # noqa: B006  read only
        norm_eval: bool = False,
        act_cfg: Cfg | None = None,
        antialiased: bool | None = None,
        act_blur: float | None = None,
        any_angle: bool = False,
        **options: Any,
    ) -> None:
        count_fields(base_channels, group, 'base_channels')
        stem = base_channels if stem_channels is None else stem_channels
        count_fields(stem, group, 'stem_channels')
        if deep_stem:
            count_fields(stem // 2, group, 'half of the stem_channels (deep_stem)')
        self.group = group
        relu = {'type': 'ReLU', 'inplace': True}
        switches = resolve(any_angle, conv_cfg, act_cfg, antialiased, act_blur, usual_act=relu)
        self.switches = describe(switches, switches.act_cfg)
        self.antialiased, self.act_blur = switches.antialiased, switches.act_blur
        super().__init__(
            depth,
            stem_channels=stem_channels,
            base_channels=base_channels,
            deep_stem=deep_stem,
            conv_cfg=equivariant_conv_cfg(switches.conv_cfg, group),
            norm_cfg=equivariant_norm_cfg(norm_cfg, group),
            norm_eval=norm_eval,
            act_cfg=equivariant_act_cfg(switches.act_cfg, group),
            **options,
        )
        self._register_state_dict_hook(note_group)

    def _stem_conv_cfg(self) -> Cfg:
        return {**(self.conv_cfg or {}), 'type': 'ennTrivialConv'}

    def _downsampling_pool(self, stride: int) -> nn.Module:
        return ennAvgPool(2 * stride - 1, stride, padding=stride - 1, count_include_pad=False)

    def _make_stem(self, in_channels: int, channels: int) -> None:
        super()._make_stem(in_channels, channels)
        if self.antialiased:
            self.maxpool = ennBlurPool(STRIDE_BLUR, 2)

    def _make_stage(self, in_channels: int, width: int, blocks: int, stride: int, dilation: int) -> nn.Sequential:
        blurs = self.antialiased and stride != 1
        stage = super()._make_stage(in_channels, width, blocks, 1 if blurs else stride, dilation)
        if blurs:
            stage[0].pool = ennBlurPool(STRIDE_BLUR, stride)
        for block in stage if self.act_blur else ():
            if isinstance(block, Block):
                block.relu = nn.Sequential(block.relu, ennBlurPool(self.act_blur, 1))
        return stage

    def init_weights(self) -> None:
        """Initialise by `init_cfg`; a checkpoint without any key of this network is an error."""
        with something_must_load(self):
            super().init_weights()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, metadata: dict, *args: Any) -> None:
        refuse_another_backbone(self, state_dict, prefix, metadata)
        super()._load_from_state_dict(state_dict, prefix, metadata, *args)
