r"""Compute steerable bases from regular to irreducible fields, in the axes of an image.

e2cnn's irreducible fields live in the plane of mathematics: y up, angles counter-clockwise and, for D_N, counted from
the axis of reflection. The bases here are turned into image axes, x right and y down: a field of frequency k > 0 is
:math:`(\cos k a, \sin k a)` times a length, where a is an angle as in mmrotate's boxes, clockwise in the image.
"""

import math
from functools import cache

import numpy as np

from .basis import SteerableBasis, solve
from .fields import parse_group


def check_frequency(frequency: int, group: str) -> None:
    """Check that a group has a field of one (frequency 0) or two channels (others) of this frequency.

    Raises:
        ValueError: If `frequency` is not an integer >= 0, or the group has less than 2 * frequency + 1 rotations, which
            cannot tell it from a lower one.
    """
    parse_group(group)
    if not isinstance(frequency, int) or isinstance(frequency, bool) or frequency < 0:
        raise ValueError(f'frequency {frequency!r} must be an integer >= 0: how many times the field turns per turn')
    rotations, needed = int(group[1:]), 2 * frequency + 1
    if rotations < needed:
        raise ValueError(
            f"group '{group}' has no field of two channels that turns {frequency} times per turn: its {rotations} "
            f"rotations cannot tell both directions apart. Use N >= {needed}, such as '{group[0]}{needed + 3 & ~3}'"
        )


@cache
def irrep_basis(
    group: str, frequency: int, kernel_size: int, limits: tuple[int, ...], maximum_offset: int | None = None
) -> SteerableBasis:
    """Return the basis of the kernels from a regular to an irreducible field; one object per process.

    Args:
        group: Fiber group such as 'C8'.
        frequency: 0 for an invariant field of one channel, k for two channels that turn k times per turn.
        kernel_size: Odd size of the square kernel in pixels.
        limits: Largest angular frequency on each ring, see `basis.band_limits`.
        maximum_offset: As in `basis.steerable_basis`.

    Raises:
        ValueError: As `check_frequency`, for an even `kernel_size` or a negative `maximum_offset`, or if no kernel is
            left.
    """
    check_frequency(frequency, group)
    gspace = parse_group(group)
    if frequency == 0:
        out_repr = gspace.trivial_repr
    else:
        out_repr = gspace.irrep(1, frequency) if group[0] == 'D' else gspace.irrep(frequency)
    bias = np.full(out_repr.size, float(frequency == 0))
    axes = into_image_axes(group, frequency)
    return solve(group, gspace.regular_repr, out_repr, kernel_size, 1, limits, maximum_offset, bias, axes)


def into_image_axes(group: str, frequency: int) -> np.ndarray:
    """Return the matrix from e2cnn's irreducible field to that in image axes: (1, 1), or (2, 2) and orthogonal."""
    if frequency == 0:
        return np.ones((1, 1))
    # e2cnn counts the angles of D_N from its axis of reflection, the vertical one
    start = frequency * math.pi / 2 if group[0] == 'D' else 0.0
    turn = np.array([[math.cos(start), -math.sin(start)], [math.sin(start), math.cos(start)]]).round(15)
    return np.diag([1.0, -1.0]) @ turn
