"""Register the equivariant layers with mmcv's builders, and read the configs that name them."""

from typing import Any

from ..equivariant import (
    ennAvgPool,
    ennBlurPool,
    ennBlurUpsample,
    ennBN,
    ennConv,
    ennFourierReLU,
    ennGN,
    ennGroupPool,
    ennInterpolate,
    ennIrrepConv,
    ennMaxBlurPool,
    ennMaxPool,
    ennReLU,
    ennSqueezeExcite,
    ennSyncBN,
    ennTrivialConv,
)
from ..equivariant.norm import NORMS
from ..registry import MODELS, register

Cfg = dict[str, Any]

CONV_TYPE = 'ennConv'
ACT_TYPE = 'ennFourierReLU'
NORM_TYPES = {alias: f'enn{name}' for name in NORMS for alias in (name, f'enn{name}')}

for layer in (
    ennConv,
    ennTrivialConv,
    ennBN,
    ennSyncBN,
    ennGN,
    ennReLU,
    ennMaxPool,
    ennAvgPool,
    ennGroupPool,
    ennInterpolate,
    ennFourierReLU,
    ennBlurPool,
    ennMaxBlurPool,
    ennBlurUpsample,
    ennIrrepConv,
    ennSqueezeExcite,
):
    register(MODELS)(layer)


def equivariant_conv_cfg(cfg: Cfg | None, group: str) -> Cfg:
    """Complete a `conv_cfg` to a config of `ennConv` for a group.

    Args:
        cfg: Options of the convolution; None for none.
        group: Fiber group, such as 'C8'.

    Raises:
        ValueError: If it names another layer or group.
    """
    cfg = {'type': CONV_TYPE, **(cfg or {})}
    if _bare(cfg['type']) != CONV_TYPE:
        raise ValueError(f"conv_cfg type {cfg['type']!r} is not equivariant: use '{CONV_TYPE}', or leave conv_cfg out")
    return _with_group('conv_cfg', cfg, CONV_TYPE, group)


def equivariant_norm_cfg(cfg: Cfg, group: str) -> Cfg:
    """Turn the `norm_cfg` of a plain or equivariant norm into that of the equivariant norm for a group.

    Args:
        cfg: Names a norm, with its options.
        group: Fiber group, such as 'C8'.

    Raises:
        ValueError: If it has no equivariant version here, or names another group.
    """
    kind = _bare(cfg.get('type', 'missing'))
    if kind not in NORM_TYPES:
        raise ValueError(f'norm_cfg type {kind!r} has no equivariant version here: use one of {", ".join(NORMS)}')
    return _with_group('norm_cfg', cfg, NORM_TYPES[kind], group)


def equivariant_act_cfg(cfg: Cfg, group: str) -> Cfg:
    """Complete an `act_cfg`: `ennFourierReLU` gets its group, any other activation stays as it is.

    Args:
        cfg: Names an activation, with its options. One that treats channels alike needs no group.
        group: Fiber group, such as 'C8'.

    Raises:
        ValueError: If it names another group.
    """
    if _bare(cfg.get('type', 'missing')) != ACT_TYPE:
        return dict(cfg)
    return _with_group('act_cfg', cfg, ACT_TYPE, group)


def _bare(kind: Any) -> str:
    """Drop the scope of a name: 'mmrotate_plugin.ennBN' means 'ennBN'."""
    return str(kind).rpartition('.')[2]


def _with_group(name: str, cfg: Cfg, kind: str, group: str) -> Cfg:
    if cfg.get('group', group) != group:
        raise ValueError(f"{name} has group '{cfg['group']}', but the network has group '{group}': use one of the two")
    return {**cfg, 'type': kind, 'group': group}
