r"""Compute steerable bases, sampled on the kernel grid: once per process, shared by all layers.

A kernel :math:`\kappa` between fields is equivariant iff
:math:`\kappa(gx) = \rho_{out}(g)\,\kappa(x)\,\rho_{in}(g)^{-1}` (Weiler & Cesa, General E(2)-Equivariant Steerable
CNNs, NeurIPS 2019, arXiv:1911.08251, eq. 2). e2cnn solves this constraint; this module samples its solutions,
scales them to equal norm and keeps them.
"""

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cache

import numpy as np
from torch import Tensor

from ._constants import Constant
from ._e2cnn import E2CNN_LOCK, EmptyBasisException, e2cnn_on_numpy_2
from .fields import parse_group

MAX_FREQUENCY_PER_RADIUS = 3  # ReDet's band limit: angular frequencies up to three times the ring's radius
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


@cache
def steerable_basis(group: str, kernel_size: int, *, dilation: int = 1, trivial_input: bool = False) -> SteerableBasis:
    """Return the basis of the kernels from a regular (or trivial) field to a regular field.

    Args:
        group: Fiber group such as 'C8'.
        kernel_size: Odd size of the square kernel in pixels.
        dilation: Spacing of the kernel's pixels. The rings widen with it.
        trivial_input: Whether the input field is trivial (an image channel) instead of regular.

    Raises:
        ValueError: If `kernel_size` is not odd, or the basis is empty.
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(
            f'kernel_size={kernel_size} has no centre pixel to turn about: use an odd size such as 1, 3, 5 or 7'
        )
    with E2CNN_LOCK:
        return _solve(group, kernel_size, dilation, trivial_input)


def _solve(group: str, kernel_size: int, dilation: int, trivial_input: bool) -> SteerableBasis:
    """Compute the basis by e2cnn and numpy alone: it is kept, so no mode of torch may affect it."""
    gspace = parse_group(group)
    in_repr = gspace.trivial_repr if trivial_input else gspace.regular_repr
    out_repr = gspace.regular_repr

    radii = [float(r * dilation) for r in range(kernel_size // 2 + 1)]
    widths = [CENTRE_WIDTH] + [RING_WIDTH] * (len(radii) - 2) + [OUTER_RING_WIDTH] * (len(radii) > 1)
    try:
        kernels = gspace.build_kernel_basis(
            in_repr,
            out_repr,
            sigma=widths,
            rings=radii,
            maximum_frequency=int(MAX_FREQUENCY_PER_RADIUS * radii[-1]),
            maximum_offset=None,
        )
    except EmptyBasisException:
        raise ValueError(f"group '{group}' has no equivariant kernel of size {kernel_size}") from None
    elements = list(kernels)
    mask = np.array([abs(e['frequency']) <= MAX_FREQUENCY_PER_RADIUS * e['radius'] for e in elements])
    elements = [e for e, kept in zip(elements, mask, strict=True) if kept]

    with e2cnn_on_numpy_2():
        samples = kernels.sample_masked(_grid(kernel_size, dilation), mask=mask)  # (n_out, n_in, K, k * k)
    samples = np.ascontiguousarray(samples.transpose(2, 0, 1, 3))
    norms = np.sqrt(np.square(samples).sum((1, 2, 3)) / [float(e['shape'][0]) for e in elements])
    kept = norms > VANISHING_NORM
    samples = samples[kept] / norms[kept].reshape(-1, 1, 1, 1)
    elements = [e for e, k in zip(elements, kept.tolist(), strict=True) if k]
    return SteerableBasis(
        kernels=Constant(samples.reshape(*samples.shape[:3], kernel_size, kernel_size)),
        deviations=Constant(_he_std(elements)),
        direction=Constant(np.full(out_repr.size, out_repr.size**-0.5)),
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
