"""Activations made of polynomials and exponentials, against quadrature."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmrotate_plugin.adf import Gaussian

EXACT = {
    'hardswish': F.hardswish, 'hardsigmoid': F.hardsigmoid, 'relu6': F.relu6, 'softshrink': F.softshrink,
    'threshold': lambda x: F.threshold(x, 0.5, -1.0), 'rrelu': F.rrelu, 'elu': F.elu, 'selu': F.selu,
    'elu, alpha': lambda x: F.elu(x, alpha=0.7), 'celu': lambda x: F.celu(x, 0.5),
}  # fmt: skip
SMOOTH = {'mish': F.mish, 'logsigmoid': F.logsigmoid}
POINTS = [(m, v) for m in (-30.0, -4.0, -3.0, -0.4, 0.0, 0.5, 2.5, 3.0, 40.0) for v in (1e-6, 0.01, 0.3, 4.0, 60.0)]


def by_quadrature(function, mean, var):
    """Sums over 20 standard deviations: the error of a step falls with h = 2e-4, of a kink with its square."""
    z = torch.linspace(-10, 10, 100_001, dtype=torch.float64)
    weight = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    values = function(mean + var**0.5 * z)
    first = (weight * values).sum()
    return first, (weight * (values - first).square()).sum()


@pytest.mark.parametrize('name', EXACT)
def test_moments_are_those_of_quadrature(name):
    function = EXACT[name]
    mean, var = torch.tensor(POINTS[:: 1 if name in ('hardswish', 'elu') else 4], dtype=torch.float64).T
    out = function(Gaussian(mean, var))
    expected = torch.stack([torch.stack(by_quadrature(function, m, v)) for m, v in zip(mean, var, strict=True)])
    # half a distance of the jump of 1.5, in both moments; h^2 / 8 of the change of slope, doubled; and rounding
    jump = 2e-4 * (name == 'threshold')
    tolerance = jump + 2e-8 * (1 + var.sqrt()) + 1e-8 * (1 + mean.abs())
    assert ((out.mean - expected[:, 0]).abs() < tolerance).all()
    assert ((out.var - expected[:, 1]).abs() < tolerance * (1 + out.var.sqrt()) * 4).all()
    bent = (function(mean) - expected[:, 0]).abs() > 1e-3  # the control: the function of the mean is another
    assert bent.any()


@pytest.mark.parametrize('name', SMOOTH)
def test_smooth_ones_are_close(name):
    mean, var = torch.tensor([p for p in POINTS[::2] if p[1] <= 16], dtype=torch.float64).T
    out = SMOOTH[name](Gaussian(mean, var))
    expected = torch.stack([torch.stack(by_quadrature(SMOOTH[name], m, v)) for m, v in zip(mean, var, strict=True)])
    assert ((out.mean - expected[:, 0]).abs() < 0.01 * (1 + var.sqrt())).all()
    assert ((out.var.sqrt() - expected[:, 1].sqrt()).abs() < 0.02 * (0.01 + expected[:, 1].sqrt())).all()


ALL = {**EXACT, **SMOOTH, 'glu': F.glu, 'softmin': lambda x: F.softmin(x, -1)}


@pytest.mark.parametrize('name', ALL)
def test_edges(name):
    function = ALL[name]
    mean = torch.tensor([-80.0, -3.0, -1.0, 0.0, 0.7, 3.0, 6.0, 200.0])
    exact = function(Gaussian(mean, torch.zeros(8)))
    torch.testing.assert_close(exact.mean.clone(), function(mean), rtol=1e-5, atol=1e-6)
    assert not exact.var.any()
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        for var in (1e-30, 1e-8, 1.0, 1e4):
            x = Gaussian(mean.to(dtype), torch.full_like(mean, var).to(dtype))
            out = function(x)
            assert out.dtype == dtype and out.mean.isfinite().all() and out.var.isfinite().all()
            assert (out.var >= 0).all()
    assert (function(Gaussian(mean, torch.full_like(mean, 1e-12), min_variance=1e-3)).var >= 1e-3).all()
    single, double = (function(Gaussian(mean.to(t), torch.ones(8, dtype=t))) for t in (torch.float32, torch.float64))
    torch.testing.assert_close(single.var.double(), double.var.clone(), rtol=1e-4, atol=1e-6)
    assert torch.equal(function(Gaussian(mean, torch.ones(8), plain_mean=True)).mean, function(mean))


@pytest.mark.parametrize('name', ['hardswish', 'elu', 'selu', 'hardsigmoid', 'mish'])
def test_gradients(name):
    mean = torch.tensor([-4.0, -2.0, -0.3, 0.4, 2.0, 5.0], dtype=torch.float64, requires_grad=True)
    var = torch.tensor([0.3, 1.0, 0.01, 0.5, 2.0, 0.1], dtype=torch.float64, requires_grad=True)

    def both(m, v):
        out = EXACT.get(name, SMOOTH.get(name))(Gaussian(m, v))
        return out.mu, out.v

    assert torch.autograd.gradcheck(both, (mean, var))
    zero = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    by_mean, by_var = torch.autograd.grad(sum(part.sum() for part in both(mean, zero)), (mean, zero))
    slope = torch.autograd.grad(EXACT.get(name, SMOOTH.get(name))(mean).sum(), mean)[0]
    torch.testing.assert_close(by_mean, slope, rtol=1e-4, atol=1e-6)
    assert by_var.isfinite().all() and (by_var >= slope.square() * 0.99 - 0.6).all()


@pytest.mark.parametrize('layer', [
    nn.Hardswish(True), nn.Hardsigmoid(), nn.ELU(), nn.ELU(inplace=True), nn.SELU(True), nn.CELU(), nn.Mish(True),
    nn.Hardtanh(-2, 2, True), nn.ReLU6(True), nn.RReLU(), nn.Softshrink(), nn.Threshold(0.1, 20), nn.LogSigmoid(),
    nn.GLU(1), nn.Softmin(1), nn.Softplus(), nn.GELU(), nn.SiLU(True), nn.PReLU(4), nn.LeakyReLU(0.1, True), nn.Tanh(),
], ids=lambda layer: str(layer).replace(' ', ''))  # fmt: skip
def test_layers_of_torch(layer):
    x = Gaussian(torch.randn(2, 4, 5, 5), torch.rand(2, 4, 5, 5))
    kept = x.mean.clone()
    out = layer.eval()(x)
    assert out.shape == layer(x.mean.clone()).shape and (out.var >= 0).all() and out.var.any()
    assert torch.equal(x.mean, kept)


def test_names_of_one_operation():
    x = Gaussian(torch.randn(3, 4), torch.rand(3, 4))
    for first, *others in (
        (F.selu, torch.selu, F.selu_, torch.selu_), (F.celu, torch.celu, F.celu_), (F.elu, F.elu_),
        (F.hardswish, torch._C._nn.hardswish_),
        (lambda y: F.threshold(y, 0.1, 2.0), lambda y: torch.threshold(y, 0.1, 2.0)),
    ):  # fmt: skip
        for other in others:
            assert torch.equal(first(x).var, other(x).var)
