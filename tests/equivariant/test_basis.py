"""What each element of a basis says about itself, against the formula of steerable kernels."""

from collections import Counter

import numpy as np
import pytest

from mmrotate_plugin.equivariant.basis import steerable_basis

GROUPS = ['C3', 'C4', 'C8', 'C16', 'D4', 'D8']
FREE = {1: 1, 3: 8, 5: 21, 7: 40}  # a ring of radius r holds the waves 0 to 3r: one constant, else cosine and sine


@pytest.mark.parametrize('group', GROUPS)
@pytest.mark.parametrize('kernel_size', FREE)
def test_rings_and_frequencies_of_a_trivial_input_are_one_and_six_per_radius(group, kernel_size):
    basis = steerable_basis(group, kernel_size, trivial_input=True)
    cells = Counter(zip(basis.radius, map(abs, basis.frequency), strict=True))
    assert cells == {(r, n): 2 if n else 1 for r in range(kernel_size // 2 + 1) for n in range(3 * r + 1)}
    assert len(basis.samples) == FREE[kernel_size]


@pytest.mark.parametrize('group', ['C4', 'C8', 'D4'])
@pytest.mark.parametrize('kernel_size', FREE)
def test_regular_input_has_the_groups_order_times_as_many(group, kernel_size):
    basis = steerable_basis(group, kernel_size)
    order = basis.samples.shape[1]
    assert len(basis.samples) == order * FREE[kernel_size]
    for values in (basis.radius, basis.frequency, basis.in_irrep, basis.out_irrep):
        assert isinstance(values, tuple) and len(values) == len(basis.samples)


def misfit(kernel: np.ndarray, radius: float, frequency: int, width: float) -> float:
    """Relative distance of a kernel from the span of Gaussian ring times cosine and sine of that frequency."""
    k = len(kernel)
    y, x = np.mgrid[:k, :k] - k // 2
    distance, angle = np.hypot(x, y), np.arctan2(-y, x)
    ring = np.exp(-((distance - radius) ** 2) / (2 * width**2))
    if frequency:
        ring[k // 2, k // 2] = 0  # a wave has no value at the centre
    waves = np.stack([ring * np.cos(frequency * angle), ring * np.sin(frequency * angle)], -1).reshape(-1, 2)
    coefficients = np.linalg.lstsq(waves, kernel.ravel(), rcond=None)[0]
    return float(np.linalg.norm(waves @ coefficients - kernel.ravel()) / np.linalg.norm(kernel))


@pytest.mark.parametrize('group', ['C8', 'D4'])
def test_each_kernel_is_a_wave_of_its_frequency_on_its_ring(group):
    basis = steerable_basis(group, 5, trivial_input=True)
    widths = {0.0: 0.005, 1.0: 0.6, 2.0: 0.4}
    for kernels, radius, frequency in zip(basis.samples[:, :, 0].numpy(), basis.radius, basis.frequency, strict=True):
        for kernel in kernels:
            assert misfit(kernel, radius, frequency, widths[radius]) < 1e-12
        if radius:  # another frequency or ring does not fit
            assert misfit(kernels[0], radius, abs(frequency) + 1, widths[radius]) > 0.3
            # sin(4 angle) has one distance only where it is not zero on this grid, so that any ring fits
            assert abs(frequency) == 4 or misfit(kernels[0], 3 - radius, frequency, widths[3 - radius]) > 0.3


@pytest.mark.parametrize('trivial_input', [True, False])
def test_frequency_connects_the_irreps(trivial_input):
    basis = steerable_basis('C8', 5, trivial_input=trivial_input)
    for n, into, out in zip(basis.frequency, basis.in_irrep, basis.out_irrep, strict=True):
        i, o = int(into.removeprefix('irrep_')), int(out.removeprefix('irrep_'))
        assert n % 8 in {(a * o + b * i) % 8 for a in (1, -1) for b in (1, -1)}
    assert set(basis.in_irrep) == ({'irrep_0'} if trivial_input else {f'irrep_{i}' for i in range(5)})
    assert set(basis.out_irrep) == {f'irrep_{i}' for i in range(5)}


def test_radius_counts_dilated_pixels():
    assert set(steerable_basis('C8', 3, dilation=2).radius) == {0.0, 2.0}
