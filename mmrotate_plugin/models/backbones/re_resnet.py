"""The rotation-equivariant ResNet of ReDet."""

from typing import Any

from torch import nn

from ...equivariant import ennAvgPool
from ...equivariant.fields import DEFAULT_GROUP, count_fields
from ...registry import MODELS, register
from ...utils.typecheck import typed
from ..layers import Cfg, equivariant_conv_cfg, equivariant_norm_cfg
from ..utils.weight_check import note_group, refuse_another_backbone, something_must_load
from .resnet import ResNet


@register(MODELS)
class ReResNet(ResNet):
    """ResNet whose features are regular fields of a planar rotation group.

    Han et al., ReDet: A Rotation-equivariant Detector for Aerial Object Detection, CVPR 2021 (arXiv:2103.07733), on
    steerable convolutions (Weiler & Cesa, NeurIPS 2019, arXiv:1911.08251). Arguments without a line here are those
    of `ResNet`. Weights of mmrotate's and of the original ReDet's ReResNet load as they are; those of another depth,
    group or width are refused, also where mmengine would load what fits (`weights.MisfitError`).

    Args:
        depth: 18, 34, 50, 101 or 152.
        group: Fiber group: 'C4', 'C8', 'C16' (rotations), 'D4', 'D8' (rotations and reflections), or any C_N, D_N.
            Its order must divide every width.
        stem_channels: Tensor channels after the stem; `base_channels` if None.
        base_channels: Tensor channels of stage one (fields times the group's order).
        deep_stem: Stem of three 3x3 convolutions; the group's order must divide half of its channels.
        avg_down: Shortcuts downsample by average pooling over centred windows of ``2 * stride - 1`` pixels; the
            windows of an ordinary ResNet, which start at the corner, would break the symmetry.
        conv_cfg: Options for the convolutions besides `group`, such as ``dict(type='ennConv', padding_mode=...)``.
        norm_cfg: 'BN', 'SyncBN' or 'GN' with the options of that norm; its equivariant version is built, with
            statistics and affine parameters per field.
        norm_eval: As in `ResNet`, but off by default: most equivariant networks are trained from scratch.
        options: The other arguments of `ResNet`. Its default `init_cfg` leaves the coefficients to their generalised
            He initialisation.

    Shape:
        - Input: (B, in_channels, H, W). Quarter turns are exact if H and W are 32m + 1.
        - Output: tuple of (B, C_i, H_i, W_i) tensors, orientation fastest.

    Raises:
        ValueError: If a width is not a multiple of the group's order (the message names both), for an unknown group
            or norm, or if `conv_cfg` or `norm_cfg` name another group.
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
        **options: Any,
    ) -> None:
        count_fields(base_channels, group, 'base_channels')
        stem = base_channels if stem_channels is None else stem_channels
        count_fields(stem, group, 'stem_channels')
        if deep_stem:
            count_fields(stem // 2, group, 'half of the stem_channels (deep_stem)')
        self.group = group
        super().__init__(
            depth,
            stem_channels=stem_channels,
            base_channels=base_channels,
            deep_stem=deep_stem,
            conv_cfg=equivariant_conv_cfg(conv_cfg, group),
            norm_cfg=equivariant_norm_cfg(norm_cfg, group),
            norm_eval=norm_eval,
            **options,
        )
        self._register_state_dict_hook(note_group)

    def _stem_conv_cfg(self) -> Cfg:
        return {**self.conv_cfg, 'type': 'ennTrivialConv'}

    def _downsampling_pool(self, stride: int) -> nn.Module:
        return ennAvgPool(2 * stride - 1, stride, padding=stride - 1, count_include_pad=False)

    def init_weights(self) -> None:
        """Initialise by `init_cfg`; a checkpoint without any key of this network is an error."""
        with something_must_load(self):
            super().init_weights()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, metadata: dict, *args: Any) -> None:
        refuse_another_backbone(self, state_dict, prefix, metadata)
        super()._load_from_state_dict(state_dict, prefix, metadata, *args)
