"""Checks of a ResNet's arguments; each error names the argument, its value and what would work."""

import logging
from collections.abc import Sequence

from mmengine.logging import print_log

from ..layers import Cfg
from ._blocks import ARCHITECTURES

DEFAULT_INIT: list[Cfg] = [
    {'type': 'Kaiming', 'layer': 'Conv2d'},
    {'type': 'Constant', 'val': 1, 'layer': ['_BatchNorm', 'GroupNorm']},
]


def check_stages(
    depth: int,
    num_stages: int,
    strides: Sequence[int],
    dilations: Sequence[int],
    out_indices: Sequence[int],
    style: str,
    frozen_stages: int,
) -> None:
    """Refuse stages that do not exist, or options that do not fit their number."""
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


def check_widths(*, deep_stem: bool, **widths: int) -> None:
    """Refuse widths below 1, and below 2 for `stem_channels` of a deep stem, half of which are in its first layers."""
    for name, width in widths.items():
        if width < (2 if deep_stem and name == 'stem_channels' else 1):
            raise ValueError(f'{name}={width} is no width: use a positive number, such as 64')


def check_layers(**cfgs: Cfg | None) -> None:
    """Refuse configs that name no layer."""
    for name, cfg in cfgs.items():
        if cfg is not None and not isinstance(cfg.get('type'), (str, type)):
            raise ValueError(f'{name}={cfg} must name a layer by its type, such as {{"type": "ReLU"}}')


def refuse_extensions(dcn: Cfg | None, stage_with_dcn: Sequence[bool], plugins: Sequence[Cfg] | None) -> None:
    """Refuse mmdet's arguments for layers that are missing here; values that ask for none pass."""
    if dcn:  # mmdet reads stage_with_dcn only with it
        raise ValueError(
            f'dcn={dcn}, stage_with_dcn={tuple(stage_with_dcn)}: there are no deformable convolutions here; use '
            'dcn=None, or mmdet.ResNet'
        )
    if plugins:
        raise ValueError(f'plugins={plugins}: there are no plugins here; use plugins=None, or mmdet.ResNet')


def start_of(pretrained: str | None, init_cfg: Cfg | list[Cfg] | None) -> Cfg | list[Cfg]:
    """Return the initialisation config: the one given, else that of an older config's `pretrained`, else the default.

    The default is Kaiming-normal convolutions and unit norms.
    """
    if pretrained is None:
        return DEFAULT_INIT if init_cfg is None else init_cfg
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
