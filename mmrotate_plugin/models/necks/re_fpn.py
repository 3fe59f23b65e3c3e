"""The rotation-equivariant feature pyramid of ReDet."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from mmcv.cnn import ConvModule, build_activation_layer
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...equivariant import ennBlurPool, ennBlurUpsample, ennGroupPool
from ...equivariant.fields import DEFAULT_GROUP, count_fields
from ...registry import MODELS, register
from ...utils import safe_load
from ...utils.typecheck import typed
from ..any_angle import STRIDE_BLUR, resolve
from ..layers import Cfg, equivariant_act_cfg, equivariant_conv_cfg, equivariant_norm_cfg
from ..utils.switch_check import describe
from ..utils.weight_check import note_group, refuse_another_neck, something_must_load

ACTIVATIONS: dict[str | None, Cfg | None] = {
    None: None,
    'relu': {'type': 'ReLU'},
    'fourier_relu': {'type': 'ennFourierReLU'},
}


@register(MODELS)
class ReFPN(BaseModule):
    """Feature pyramid network whose features are regular fields.

    Lin et al., Feature Pyramid Networks for Object Detection, CVPR 2017 (arXiv:1612.03144), with the equivariant
    layers of Han et al., ReDet, CVPR 2021 (arXiv:2103.07733).

    Args:
        in_channels: Tensor channels of each input level, multiples of the group's order.
        out_channels: Tensor channels of each output level, likewise.
        num_outs: Output levels.
        start_level: First input level used.
        end_level: Input level to stop before; -1 uses all, and only then may there be more outputs than inputs.
        add_extra_convs: Make the extra levels by strided 3x3 convolutions; otherwise by taking every second pixel of
            the last level.
        extra_convs_on_inputs: The first extra convolution reads the last input instead of the last output.
        relu_before_extra_convs: ReLU before each further extra convolution.
        no_norm_on_lateral: No norm in the 1x1 convolutions of the inputs.
        conv_cfg: Options for the convolutions, as in `ReResNet`.
        norm_cfg: 'BN', 'SyncBN' or 'GN', per field; None for convolutions with bias and no norm.
        activation: None, 'relu' or 'fourier_relu', after each convolution.
        init_cfg: mmengine's initialisation config; by default, the coefficients keep their generalised He
            initialisation.
        group: Fiber group of the inputs.
        group_pool: None for equivariant outputs. 'max' or 'mean' over the orientations makes them invariant, with
            ``out_channels / |G|`` channels, for heads that are not equivariant.
        antialiased: Blur by a Gaussian before the strides of extra levels and when a coarse level is resampled to a
            finer one (Zhang, Making Convolutional Networks Shift-Invariant Again, ICML 2019). None is off.
        any_angle: Preset of `ReResNet` by this name: a band limit of 2 and no offset in `conv_cfg`, `antialiased`, and
            'fourier_relu' in place of 'relu', also before extra convolutions.

    Shape:
        - Input: sequence of (B, in_channels[i], H_i, W_i), orientation fastest.
        - Output: tuple of `num_outs` tensors (B, out_channels, H_j, W_j), orientation fastest, or with `group_pool`
          (B, out_channels / ``|G|``, H_j, W_j). Quarter turns are exact where they are for the inputs; extra levels
          need H and W to be odd.

    Raises:
        ValueError: If the group's order does not divide a width, or the levels do not fit together.
    """

    @typed
    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int,
        num_outs: int,
        start_level: int = 0,
        end_level: int = -1,
        add_extra_convs: bool = False,
        extra_convs_on_inputs: bool = True,
        relu_before_extra_convs: bool = False,
        no_norm_on_lateral: bool = False,
        conv_cfg: Cfg | None = None,
        norm_cfg: Cfg | None = None,
        activation: str | None = None,
        init_cfg: Cfg | list[Cfg] | None = None,
        group: str = DEFAULT_GROUP,
        group_pool: str | None = None,
        antialiased: bool | None = None,
        any_angle: bool = False,
    ) -> None:
        super().__init__(init_cfg)
        self.in_channels = list(in_channels)
        self.out_channels = out_channels
        self.num_outs = num_outs
        self.group = group
        self.end_level = _check_levels(len(self.in_channels), num_outs, start_level, end_level)
        self.start_level = start_level
        self.add_extra_convs = add_extra_convs
        self.extra_convs_on_inputs = extra_convs_on_inputs
        self.relu_before_extra_convs = relu_before_extra_convs
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation={activation!r} is unknown: use None, 'relu' or 'fourier_relu'")
        if group_pool not in (None, *ennGroupPool.MODES):
            raise ValueError(f'group_pool={group_pool!r} is unknown: use None or {", ".join(ennGroupPool.MODES)}')
        for i, channels in enumerate(self.in_channels):
            count_fields(channels, group, f'in_channels[{i}]')
        count_fields(out_channels, group, 'out_channels')

        switches = resolve(any_angle, conv_cfg, None, antialiased, usual_act=ACTIVATIONS['relu'] or {})
        self.antialiased = switches.antialiased
        act_cfg = switches.act_cfg if activation == 'relu' else ACTIVATIONS[activation]
        self.switches = describe(switches, act_cfg)
        common = {
            'conv_cfg': equivariant_conv_cfg(switches.conv_cfg, group),
            'norm_cfg': None if norm_cfg is None else equivariant_norm_cfg(norm_cfg, group),
            'act_cfg': None if act_cfg is None else equivariant_act_cfg(act_cfg, group),
            'inplace': False,
        }
        lateral = {**common, 'norm_cfg': None} if no_norm_on_lateral else common
        used = self.in_channels[start_level : self.end_level]
        self.lateral_convs = nn.ModuleList(ConvModule(c, out_channels, 1, **lateral) for c in used)
        self.fpn_convs = nn.ModuleList(ConvModule(out_channels, out_channels, 3, padding=1, **common) for _ in used)
        for i in range(num_outs - len(used) if add_extra_convs else 0):
            channels = used[-1] if i == 0 and extra_convs_on_inputs else out_channels
            stride = 1 if self.antialiased else 2  # the blur before has it
            self.fpn_convs.append(ConvModule(channels, out_channels, 3, stride=stride, padding=1, **common))
        self.extra_relu = build_activation_layer(equivariant_act_cfg(switches.act_cfg, group))
        self.blur = ennBlurPool(STRIDE_BLUR, 2) if self.antialiased else nn.Identity()
        self.resample = ennBlurUpsample(STRIDE_BLUR, 2) if self.antialiased else None
        self.pool = nn.Identity() if group_pool is None else ennGroupPool(out_channels, group_pool, group=group)
        self._register_state_dict_hook(note_group)

    def init_weights(self) -> None:
        """Initialise by `init_cfg`; a checkpoint without any key of this network is an error."""
        with something_must_load(self), safe_load.loading():
            super().init_weights()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, metadata: dict, *args: Any) -> None:
        refuse_another_neck(self, state_dict, prefix, metadata)
        super()._load_from_state_dict(state_dict, prefix, metadata, *args)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the maps of the pyramid's levels from those of the backbone's levels."""
        if len(inputs) != len(self.in_channels):
            raise ValueError(f'got {len(inputs)} input levels, but in_channels={self.in_channels} names as many')
        laterals = [conv(x) for conv, x in zip(self.lateral_convs, inputs[self.start_level :], strict=False)]
        for i in range(len(laterals) - 1, 0, -1):
            laterals[i - 1] = laterals[i - 1] + self._to_size_of(laterals[i - 1], laterals[i])
        outs = [conv(x) for conv, x in zip(self.fpn_convs, laterals, strict=False)]
        for i in range(len(laterals), self.num_outs):
            if not self.add_extra_convs:
                outs.append(self.blur(outs[-1]) if self.antialiased else F.max_pool2d(outs[-1], 1, stride=2))
            elif i == len(laterals):
                source = inputs[self.end_level - 1] if self.extra_convs_on_inputs else outs[-1]
                outs.append(self.fpn_convs[i](self.blur(source)))
            else:
                source = self.extra_relu(outs[-1]) if self.relu_before_extra_convs else outs[-1]
                outs.append(self.fpn_convs[i](self.blur(source)))
        return tuple(self.pool(out) for out in outs)

    def _to_size_of(self, fine: Tensor, coarse: Tensor) -> Tensor:
        size = fine.shape[-2:]
        halves = all((n - 1) // 2 == m - 1 for n, m in zip(size, coarse.shape[-2:], strict=True))
        if self.resample is not None and halves:
            return self.resample(coarse, size)
        return upsample_to(coarse, size)


def upsample_to(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resample a coarse map to the size of a finer one, symmetrically about the centre.

    Whole factors repeat pixels, as the published FPN does. A stride of 2 takes 2m + 1 pixels to m + 1, which lie on
    every second one of them: there linear interpolation with fixed corners puts each value back in its place.

    Shape:
        - Input: (B, C, h, w). Output: (B, C, *size).
    """
    if all(fine % coarse == 0 for fine, coarse in zip(size, x.shape[-2:], strict=True)):
        return F.interpolate(x, size=tuple(size), mode='nearest')
    return F.interpolate(x, size=tuple(size), mode='bilinear', align_corners=True)


def _check_levels(inputs: int, outputs: int, start: int, end: int) -> int:
    """Check that the arguments fit together; return the level to stop before."""
    stop = inputs if end == -1 else end
    if not 0 <= start < stop <= inputs:
        raise ValueError(f'start_level={start}, end_level={end} select no levels of {inputs} inputs')
    if outputs < stop - start or (end != -1 and outputs != stop - start):
        need = f'exactly {stop - start}' if end != -1 else f'at least {stop - start}'
        raise ValueError(f'num_outs={outputs} does not fit start_level={start}, end_level={end}: {need} are needed')
    return stop
