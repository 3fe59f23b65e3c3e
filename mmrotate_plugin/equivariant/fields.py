"""Parse fiber groups by name, and count the fields that tensor channels hold.

A plain ``(B, C, H, W)`` tensor carries ``C / |G|`` regular fields of the group, orientation channels fastest:
channel ``f * |G| + g`` is orientation ``g`` of field ``f``.
"""

import re
from functools import cache

from ._e2cnn import E2CNN_LOCK, FieldType, FlipRot2dOnR2, GeneralOnR2, Rot2dOnR2

DEFAULT_GROUP = 'C8'  # the group of ReDet
LARGEST_N = 64  # e2cnn takes minutes to build the representations of D360


@cache
def parse_group(group: str) -> GeneralOnR2:
    """Return the e2cnn gspace of a fiber group, one object per name and process.

    Args:
        group: 'C' (rotations) or 'D' (rotations and reflections) and the number of rotations, 2 to 64: 'C4', 'D8', ...

    Raises:
        ValueError: If the name is not of this form.
    """
    match = re.fullmatch(r'([CD])([1-9]\d*)', group) if isinstance(group, str) else None
    if match is None or not 2 <= int(match[2][:9]) <= LARGEST_N:
        raise ValueError(
            f"group={group!r} is no fiber group: use 'C<N>' (N rotations) or 'D<N>' (N rotations and reflections) "
            f"with N from 2 to {LARGEST_N}, such as 'C4', 'C8', 'C16', 'D4' or 'D8'"
        )
    with E2CNN_LOCK:
        return (Rot2dOnR2 if match[1] == 'C' else FlipRot2dOnR2)(int(match[2]))


def group_order(group: str) -> int:
    """Return the number of elements ``|G|``, the orientation channels of a regular field: 8 for 'C8', 16 for 'D8'."""
    return parse_group(group).fibergroup.order()


def count_fields(channels: int, group: str, name: str = 'channels') -> int:
    """Count the regular fields in a number of tensor channels.

    Raises:
        ValueError: If ``|G|`` does not divide `channels`; the message names both and the nearest widths that work.
    """
    order = group_order(group)
    if channels <= 0 or channels % order:
        below = channels // order * order
        nearest = f'{below} or {below + order}' if below > 0 else str(order)
        raise ValueError(
            f"{name}={channels} does not hold whole regular fields of group '{group}': "
            f'it must be a positive multiple of the order {order}; {nearest} would do'
        )
    return channels // order


def build_enn_divide_feature(planes: int, group: str = DEFAULT_GROUP) -> FieldType:
    """Build the e2cnn field type of `planes` tensor channels: ``planes / |G|`` regular fields."""
    return build_enn_feature(count_fields(planes, group, 'planes'), group)


def build_enn_feature(planes: int, group: str = DEFAULT_GROUP) -> FieldType:
    """Build the e2cnn field type of `planes` regular fields: ``planes * |G|`` tensor channels."""
    gspace = parse_group(group)
    return FieldType(gspace, [gspace.regular_repr] * planes)


def build_enn_trivial_feature(planes: int, group: str = DEFAULT_GROUP) -> FieldType:
    """Build the e2cnn field type of `planes` trivial fields: as many tensor channels, such as those of an image."""
    gspace = parse_group(group)
    return FieldType(gspace, [gspace.trivial_repr] * planes)
