r"""Compute steerable bases, sampled on the kernel grid: once per process, shared by all layers.

A kernel :math:`\kappa` between fields is equivariant iff
:math:`\kappa(gx) = \rho_{out}(g)\,\kappa(x)\,\rho_{in}(g)^{-1}` (Weiler & Cesa, General E(2)-Equivariant Steerable
CNNs, NeurIPS 2019, arXiv:1911.08251, eq. 2). e2cnn solves this constraint; this module samples its solutions,
scales them to equal norm and keeps them.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from torch import Tensor

from ._constants import Constant
from ._e2cnn import E2CNN_LOCK, EmptyBasisException, Representation, e2cnn_on_numpy_2
from .fields import parse_group

FrequenciesCutoff = float | Sequence[int] | Callable[[float], float] | None
REDET_CUTOFF = 3.0  # ReDet's band limit: angular frequencies up to three times the ring's radius
RING_WIDTH = 0.6  # standard deviations of the Gaussian rings, in units of the undilated grid
OUTER_RING_WIDTH = 0.4
CENTRE_WIDTH = 0.005  # a ring of radius zero is the centre pixel alone
VANISHING_NORM = 1e-6  # kernels of a smaller norm vanish on this grid (aliased frequencies) and are left out


@dataclass(frozen=True, eq=False)
class SteerableBasis:
    """Equivariant kernels from one input field to one output field.

    Attributes:
        kernels: Constant behind `samples`.
        deviations: Constant behind `he_std`.
        direction: Constant behind `bias`.
        radius: K ring radii about the kernel's centre, pixels of the input (a dilation counts).
        frequency: K angular frequencies, signed as e2cnn reports them: along its ring, each channel of the kernel is a
            wave with this many periods per turn.
        in_irrep, out_irrep: K names of the irreducible parts of the two fields that the kernel connects, such as
            'irrep_1' (C_N: turns once per turn) or 'irrep_1,2' (D_N: reflects, turns twice).
    """

    kernels: Constant
    deviations: Constant
    direction: Constant
    radius: tuple[float, ...]
    frequency: tuple[int, ...]
    in_irrep: tuple[str, ...]
    out_irrep: tuple[str, ...]

    def __len__(self) -> int:
        """Return K, the number of kernels."""
        return len(self.radius)

    @property
    def samples(self) -> Tensor:
        """K kernels between fields of n_in and n_out channels: (K, n_out, n_in, k, k) float64."""
        return self.kernels.tensor()

    @property
    def he_std(self) -> Tensor:
        """Standard deviation of the coefficients by generalised He initialisation, for one input field: (K,) float64.

        Divide by the square root of the number of input fields (Weiler, Hamprecht, Storath, Learning Steerable Filters
        for Rotation Equivariant CNNs, CVPR 2018; e2cnn's `generalized_he_init`).
        """
        return self.deviations.tensor()

    @property
    def bias(self) -> Tensor:
        """Unit direction that the group leaves unchanged, the only admissible bias: (n_out,) float64."""
        return self.direction.tensor()

    def samples_like(self, x: Tensor) -> Tensor:
        """Return `samples` in the dtype and on the device of `x`; all layers share one copy."""
        return self.kernels.like(x)

    def bias_like(self, x: Tensor) -> Tensor:
        """Return `bias` in the dtype and on the device of `x`."""
        return self.direction.like(x)


def band_limits(frequencies_cutoff: FrequenciesCutoff, kernel_size: int, dilation: int = 1) -> tuple[int, ...]:
    """Return the largest angular frequency on each ring of a kernel, from the centre outwards.

    A ring of few pixels cannot tell high frequencies from low ones: what a 3 x 3 kernel has beyond frequency 2 is only
    right at quarter turns (Weiler & Cesa, NeurIPS 2019, section 2.6).

    Args:
        frequencies_cutoff: A number for so many times the ring's radius, as in e2cnn; one integer per ring, the last of
            which serves the rings beyond; a function of the radius; or None for e2cnn's own rule.
        kernel_size: Odd size of the square kernel in pixels.
        dilation: Spacing of the kernel's pixels.

    Raises:
        ValueError: If a limit is negative or no number.

    Example:
        >>> band_limits(3.0, 5), band_limits((0, 1, 3), 5), band_limits(None, 5)
        ((0, 3, 6), (0, 1, 3), (0, 2, 2))
    """
    radii = [float(r * dilation) for r in range(kernel_size // 2 + 1)]
    numbers: list[float]
    if frequencies_cutoff is None:
        inner = [min(2 * r, 2 * r - (r + 1) % 2) if r else 0.0 for r in radii]
        numbers = [min(2 * r, 2.0) if r == kernel_size // 2 else limit for r, limit in zip(radii, inner, strict=True)]
    elif callable(frequencies_cutoff):
        numbers = [frequencies_cutoff(r) for r in radii]
    elif isinstance(frequencies_cutoff, Sequence) and frequencies_cutoff and not isinstance(frequencies_cutoff, str):
        numbers = [frequencies_cutoff[min(i, len(frequencies_cutoff) - 1)] for i in range(len(radii))]
    elif isinstance(frequencies_cutoff, (int, float)) and not isinstance(frequencies_cutoff, bool):
        numbers = [frequencies_cutoff * r for r in radii]
    else:
        numbers = [-1.0]
    if not all(isinstance(n, (int, float)) and 0 <= n < math.inf for n in numbers):
        raise ValueError(
            f'frequencies_cutoff={frequencies_cutoff!r} gives no band limit: use a number such as 3.0 or 2.0 (times '
            "the ring's radius), one integer >= 0 per ring such as (0, 1, 3), or None for e2cnn's rule"
        )
    return tuple(int(n) for n in numbers)


@cache
def steerable_basis(
    group: str,
    kernel_size: int,
    *,
    dilation: int = 1,
    trivial_input: bool = False,
    limits: tuple[int, ...] | None = None,
    maximum_offset: int | None = None,
) -> SteerableBasis:
    """Return the basis of the kernels from a regular (or trivial) field to a regular field.

    Args:
        group: Fiber group such as 'C8'.
        kernel_size: Odd size of the square kernel in pixels.
        dilation: Spacing of the kernel's pixels. The rings widen with it.
        trivial_input: Whether the input field is trivial (an image channel) instead of regular.
        limits: Largest angular frequency on each ring, see `band_limits`; None for ReDet's, three times the radius.
        maximum_offset: How many times N, the number of rotations, a kernel's frequency may be off the difference of
            those of the fields that it connects; None for any, as far as the limits go. With 0, a kernel turns right
            at every angle, not only at the N that the group has (e2cnn's argument of this name).

    Raises:
        ValueError: If `kernel_size` is not odd, `maximum_offset` is negative, or the basis is empty.
    """
    gspace = parse_group(group)
    in_repr, out_repr = gspace.trivial_repr if trivial_input else gspace.regular_repr, gspace.regular_repr
    bias = np.full(out_repr.size, out_repr.size**-0.5)
    return solve(group, in_repr, out_repr, kernel_size, dilation, limits, maximum_offset, bias)


def solve(
    group: str,
    in_repr: Representation,
    out_repr: Representation,
    kernel_size: int,
    dilation: int,
    limits: tuple[int, ...] | None,
    maximum_offset: int | None,
    bias: np.ndarray,
    axes: np.ndarray | None = None,
) -> SteerableBasis:
    """Compute a basis by e2cnn and numpy alone: it is kept, so no mode of torch may affect it.

    Args:
        group, kernel_size, dilation, limits, maximum_offset: As in `steerable_basis`.
        in_repr, out_repr: e2cnn's representations of the two fields.
        bias: `SteerableBasis.bias`, (n_out,).
        axes: Orthogonal matrix (n_out, n_out) from e2cnn's output field to the one wanted; None for the same.

    Raises:
        ValueError: As `steerable_basis`.
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(
            f'kernel_size={kernel_size} has no centre pixel to turn about: use an odd size such as 1, 3, 5 or 7'
        )
    if maximum_offset is not None and maximum_offset < 0:
        raise ValueError(f'maximum_offset={maximum_offset} is negative: use 0, 1, ... or None for no limit')
    if limits is None:
        limits = band_limits(REDET_CUTOFF, kernel_size, dilation)
    with E2CNN_LOCK:
        return _solve(group, in_repr, out_repr, kernel_size, dilation, limits, maximum_offset, bias, axes)


def _solve(
    group: str,
    in_repr: Representation,
    out_repr: Representation,
    kernel_size: int,
    dilation: int,
    limits: tuple[int, ...],
    maximum_offset: int | None,
    bias: np.ndarray,
    axes: np.ndarray | None,
) -> SteerableBasis:
    nothing = (
        f"group '{group}' has no equivariant kernel of size {kernel_size} from {in_repr.name} to {out_repr.name} "
        f'within the limits {limits} of its rings: use a larger kernel or frequencies_cutoff'
    )
    radii = [float(r * dilation) for r in range(kernel_size // 2 + 1)]
    widths = [CENTRE_WIDTH] + [RING_WIDTH] * (len(radii) - 2) + [OUTER_RING_WIDTH] * (len(radii) > 1)
    try:
        kernels = parse_group(group).build_kernel_basis(
            in_repr,
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
        samples = kernels.sample_masked(_grid(kernel_size, dilation), mask=mask)  # (n_out, n_in, K, k * k)
    samples = np.ascontiguousarray(samples.transpose(2, 0, 1, 3))
    samples = samples if axes is None else np.einsum('po,koix->kpix', axes, samples)
    norms = np.sqrt(np.square(samples).sum((1, 2, 3)) / [float(e['shape'][0]) for e in elements])
    kept = norms > VANISHING_NORM
    samples = samples[kept] / norms[kept].reshape(-1, 1, 1, 1)
    elements = [e for e, k in zip(elements, kept.tolist(), strict=True) if k]
    return SteerableBasis(
        kernels=Constant(samples.reshape(*samples.shape[:3], kernel_size, kernel_size)),
        deviations=Constant(_he_std(elements)),
        direction=Constant(bias),
        radius=tuple(float(e['radius']) for e in elements),
        frequency=tuple(int(e['frequency']) for e in elements),
        in_irrep=tuple(str(e['in_irrep']) for e in elements),
        out_irrep=tuple(str(e['out_irrep']) for e in elements),
    )


def _grid(kernel_size: int, dilation: int) -> np.ndarray:
    """Return coordinates (2, k * k) of the kernel's pixels, row by row: x right, y up, centre at zero."""
    steps = (np.arange(kernel_size) - kernel_size // 2) * float(dilation)
    return np.stack([np.tile(steps, kernel_size), np.repeat(-steps, kernel_size)])


def _he_std(elements: list[dict]) -> np.ndarray:
    """Compute deviations that give each output irrep unit variance if each input channel has it."""
    kinds_into: dict[int, set[str]] = defaultdict(set)  # output irrep -> kinds of input irreps that reach it
    count: Counter[tuple[str, int]] = Counter()  # kernels from a kind of input irrep into an output irrep
    for e in elements:
        kinds_into[e['out_irrep_idx']].add(e['in_irrep'])
        count[e['in_irrep'], e['out_irrep_idx']] += 1
    std = [
        1 / math.sqrt(len(kinds_into[e['out_irrep_idx']]) * count[e['in_irrep'], e['out_irrep_idx']]) for e in elements
    ]
    return np.array(std)
