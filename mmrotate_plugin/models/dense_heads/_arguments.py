"""Checks of a head's arguments and inputs; each error names the argument, what came and what would work."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ...equivariant.fields import count_fields
from .box_coder import BOX_TYPES

FEWEST = 5  # rotations with a two-dimensional field of frequency 2


def check_arguments(
    num_classes: int,
    in_channels: int,
    feat_channels: int,
    stacked_convs: int,
    strides: Sequence[int],
    regress_ranges: Sequence[Sequence[float]],
    center_sample_radius: float,
    topk: int,
    alpha: float,
    beta: float,
    box_type: str,
    group: str | None,
    any_angle: bool,
    loss_cls: Mapping[str, Any] | None,
    loss_angle: Any,
) -> None:
    """Refuse arguments that are out of range or contradict each other."""
    if box_type not in BOX_TYPES:
        raise ValueError(f"box_type={box_type!r} is unknown: use 'rbox' (rotated) or 'hbox' (horizontal)")
    numbers = {'num_classes': num_classes, 'in_channels': in_channels, 'feat_channels': feat_channels}
    for name, number in {**numbers, 'topk': topk}.items():
        if number < 1:
            raise ValueError(f'{name}={number} must be 1 or more')
    if stacked_convs < 0:
        raise ValueError(f'stacked_convs={stacked_convs} must be 0 or more')
    if not strides or min(strides) < 1:
        raise ValueError(f'strides={tuple(strides)} must hold a positive number for each level of the neck')
    if len(regress_ranges) != len(strides):
        raise ValueError(
            f'regress_ranges has {len(regress_ranges)} pairs, but there are {len(strides)} strides '
            f'{tuple(strides)}: give one pair for each level'
        )
    if any(len(pair) != 2 or pair[0] >= pair[1] for pair in regress_ranges):
        raise ValueError(f'regress_ranges={regress_ranges} must hold pairs (smallest, largest) in pixels')
    if not center_sample_radius > 0:
        raise ValueError(f'center_sample_radius={center_sample_radius} must be positive')
    for name, exponent in (('alpha', alpha), ('beta', beta)):
        if not 0 <= exponent < math.inf:
            raise ValueError(f'{name}={exponent} must be finite and non-negative')
    if box_type == 'hbox' and loss_angle is not None:
        raise ValueError("loss_angle is given, but box_type='hbox' has no angle: leave it out, or use box_type='rbox'")
    if loss_cls is not None and not loss_cls.get('use_sigmoid', False):
        raise ValueError(f'loss_cls={loss_cls} needs use_sigmoid=True: the head has one logit for each class')
    if group is None and any_angle:
        raise ValueError("any_angle=True is for heads of fields: give a group such as 'C8', or leave any_angle out")
    if group is None:
        return
    for name in ('in_channels', 'feat_channels'):
        count_fields(numbers[name], group, name)
    if int(group[1:]) < FEWEST:
        raise ValueError(
            f"group='{group}' has {group[1:]} rotations, too few for a director (cos 2a, sin 2a), which needs "
            f"{FEWEST} or more: use '{group[0]}8', or group=None for an ordinary head (and an ordinary neck)"
        )


def check_inputs(x: Sequence[Tensor], strides: Sequence[int], in_channels: int, group: str | None) -> None:
    """Refuse feature maps of another number or width than the head was built for."""
    if len(x) != len(strides):
        raise ValueError(
            f'got {len(x)} feature maps, but strides={tuple(strides)} has {len(strides)}: give the head one stride and '
            "one pair of regress_ranges for each map, or set the neck's num_outs"
        )
    for level, maps in enumerate(x):
        if maps.shape[1] != in_channels:
            kind = '' if group is None else f" (fields of group '{group}')"
            raise ValueError(
                f'feature map {level} has {maps.shape[1]} channels{kind}, but in_channels={in_channels}: write '
                f"in_channels={maps.shape[1]}, or the neck's out_channels={in_channels}"
            )
