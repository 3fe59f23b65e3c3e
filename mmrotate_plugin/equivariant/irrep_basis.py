r"""Compute steerable bases from regular to irreducible fields, in the axes of an image.

e2cnn's irreducible fields live in the plane of mathematics: y up, angles counter-clockwise and, for D_N, counted from
the axis of reflection. The bases here are turned into image axes, x right and y down: a field of frequency k > 0 is
:math:`(\cos k a, \sin k a)` times a length, where a is an angle as in mmrotate's boxes, clockwise in the image.
"""

import math
from functools import cache

import numpy as np

from ._constants import Constant
from ._e2cnn import E2CNN_LOCK, EmptyBasisException, e2cnn_on_numpy_2
from .basis import (
    CENTRE_WIDTH,
    OUTER_RING_WIDTH,
    RING_WIDTH,
    VANISHING_NORM,
    SteerableBasis,
    _grid,
    _he_std,
)
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
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(
            f'kernel_size={kernel_size} has no centre pixel to turn about: use an odd size such as 1, 3, 5 or 7'
        )
    if maximum_offset is not None and maximum_offset < 0:
        raise ValueError(f'maximum_offset={maximum_offset} is negative: use 0, 1, ... or None for no limit')
    with E2CNN_LOCK:
        return _solve(group, frequency, kernel_size, limits, maximum_offset)


def into_image_axes(group: str, frequency: int) -> np.ndarray:
    """Return the matrix from e2cnn's irreducible field to that in image axes: (1, 1), or (2, 2) and orthogonal."""
    if frequency == 0:
        return np.ones((1, 1))
    # e2cnn counts the angles of D_N from its axis of reflection, the vertical one
    start = frequency * math.pi / 2 if group[0] == 'D' else 0.0
    turn = np.array([[math.cos(start), -math.sin(start)], [math.sin(start), math.cos(start)]]).round(15)
    return np.diag([1.0, -1.0]) @ turn


def _solve(
    group: str, frequency: int, kernel_size: int, limits: tuple[int, ...], maximum_offset: int | None
) -> SteerableBasis:
    """Compute the basis by e2cnn and numpy alone: it is kept, so no mode of torch may affect it."""
    gspace = parse_group(group)
    if frequency == 0:
        out_repr = gspace.trivial_repr
    else:
        out_repr = gspace.irrep(1, frequency) if group[0] == 'D' else gspace.irrep(frequency)
    radii = [float(r) for r in range(kernel_size // 2 + 1)]
    widths = [CENTRE_WIDTH] + [RING_WIDTH] * (len(radii) - 2) + [OUTER_RING_WIDTH] * (len(radii) > 1)
    nothing = (
        f"group '{group}' has no kernel of size {kernel_size} into frequency {frequency} within the limits {limits} of "
        'its rings: use a larger kernel or frequencies_cutoff'
    )
    try:
        kernels = gspace.build_kernel_basis(
            gspace.regular_repr,
            out_repr,
            sigma=widths,
            rings=radii,
            maximum_frequency=max(limits),
            maximum_offset=maximum_offset,
        )
    except EmptyBasisException:
        raise ValueError(nothing) from None
    elements = list(kernels)
    limit = dict(zip(radii, limits, strict=True))
    mask = np.array([abs(e['frequency']) <= limit[float(e['radius'])] for e in elements])
    if not mask.any():
        raise ValueError(nothing)
    elements = [e for e, kept in zip(elements, mask, strict=True) if kept]
    with e2cnn_on_numpy_2():
        samples = kernels.sample_masked(_grid(kernel_size, 1), mask=mask)  # (n_out, n_in, K, k * k)
    samples = np.einsum('po,oikx->kpix', into_image_axes(group, frequency), samples)
    norms = np.sqrt(np.square(samples).sum((1, 2, 3)) / [float(e['shape'][0]) for e in elements])
    kept = norms > VANISHING_NORM
    samples = samples[kept] / norms[kept].reshape(-1, 1, 1, 1)
    elements = [e for e, k in zip(elements, kept.tolist(), strict=True) if k]
    return SteerableBasis(
        kernels=Constant(samples.reshape(*samples.shape[:3], kernel_size, kernel_size)),
        deviations=Constant(_he_std(elements)),
        direction=Constant(np.full(out_repr.size, float(frequency == 0))),
        radius=tuple(float(e['radius']) for e in elements),
        frequency=tuple(int(e['frequency']) for e in elements),
        in_irrep=tuple(str(e['in_irrep']) for e in elements),
        out_irrep=tuple(str(e['out_irrep']) for e in elements),
    )
