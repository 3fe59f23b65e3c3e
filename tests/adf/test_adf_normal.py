"""Density, tail and blocks of the normal distribution, against scipy."""

import math

import numpy as np
import pytest
import torch
from scipy.special import erfcx

from mmrotate_plugin.adf.functional import _normal


def density_and_tail(t):
    buffers = [torch.empty_like(t) for _ in range(3)]
    density, tail = _normal.density_and_tail(t, *buffers)
    assert all(a.equal(b) for a, b in zip(_normal.density_and_tail(t), (density, tail), strict=True))
    return density.double(), tail.double()


def reference(t):
    t = t.double().numpy()
    density = np.exp(-0.5 * t * t) / math.sqrt(2 * math.pi)
    return torch.from_numpy(density), torch.from_numpy(density * math.sqrt(math.pi / 2) * erfcx(t / math.sqrt(2)))


# float32: what the fit errs by, and eight roundings of values up to 0.4; float64: the error function's
@pytest.mark.parametrize('dtype, tolerance', [(torch.float32, 1.4e-8 + 8 * 0.4 * 6e-8), (torch.float64, 1e-15)])
def test_density_and_tail_are_those_of_scipy(dtype, tolerance):
    t = torch.linspace(0, _normal.FAR[dtype], 40_001, dtype=dtype)
    expected_density, expected_tail = reference(t)

    density, tail = density_and_tail(t)

    assert (density - expected_density).abs().max() < tolerance
    assert (tail - expected_tail).abs().max() < tolerance
    excess, expected = density - t.double() * tail, expected_density - t.double() * expected_tail
    assert (excess - expected).abs().max() < tolerance
    # what is far out keeps its size: a polynomial for the tail itself would not
    far = (t > 4) & (t < 12)
    assert ((tail - expected_tail) / expected_tail)[far].abs().max() < 1e-3


def test_a_truncated_polynomial_would_fail(monkeypatch):
    monkeypatch.setattr(_normal, 'MILLS', _normal.MILLS[1:])
    t = torch.linspace(0, 6, 1001)
    assert (density_and_tail(t)[1] - reference(t)[1]).abs().max() > 1e-3


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize('threads, share', [(1, 65), (2, 65), (2, 1000), (2, 1001)])
def test_blocks_give_what_the_whole_gives(dtype, threads, share, monkeypatch):
    def function(a, b, out, work):
        return [torch.add(torch.mul(a, b, out=work), 1, out=out)]

    a, b = torch.randn(2, 1000).to(dtype).unbind()
    (expected,) = _normal.blockwise(function, (a, b), outputs=1, temporaries=1)
    monkeypatch.setattr(_normal, 'BLOCK', 65)  # 15 blocks, the last of them smaller
    monkeypatch.setattr(_normal, 'SHARE', share)
    monkeypatch.setattr(_normal, 'GRAIN', 33)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        (out,) = _normal.blockwise(function, (a, b), outputs=1, temporaries=1)
    finally:
        torch.set_num_threads(before)
    assert out.dtype == dtype
    assert out.equal(expected)
