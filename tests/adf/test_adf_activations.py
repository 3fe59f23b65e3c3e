"""Moments of activations against quadrature, Monte Carlo and the plain functions."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmrotate_plugin.adf import Gaussian

ELEMENTWISE = {
    'relu': F.relu,
    'leaky_relu': lambda x: F.leaky_relu(x, 0.1),
    'prelu': lambda x: F.prelu(x, torch.tensor([-0.3], dtype=x.dtype)),
    'relu6': F.relu6,
    'hardtanh': F.hardtanh,
    'clamp_min': lambda x: torch.clamp(x, min=0.5),
    'clamp_max': lambda x: x.clamp(max=0.5),
    'exp': torch.exp,
    'sigmoid': torch.sigmoid,
    'tanh': torch.tanh,
    'gelu': F.gelu,
    'gelu_tanh': lambda x: F.gelu(x, approximate='tanh'),
    'silu': F.silu,
    'softplus': lambda x: F.softplus(x, beta=2.0),
}
EXACT = ('relu', 'leaky_relu', 'prelu', 'relu6', 'hardtanh', 'clamp_min', 'clamp_max', 'exp')


def quadrature(function, mean, var):
    """Moments by a trapezoid of 400 001 nodes in float64, which a kink hurts by 1e-9 and less."""
    z = torch.linspace(-12, 12, 400_001, dtype=torch.float64)
    weight = torch.exp(-0.5 * z.square())
    weight /= weight.sum()
    value = function(mean + math.sqrt(var) * z)
    centre = (weight * value).sum()
    return centre.item(), (weight * (value - centre).square()).sum().item()


LEGENDRE = np.polynomial.legendre.leggauss(60)


def relu_reference(z):
    """Mean and variance of relu(z + e) in float64: Gauss-Legendre panels over the positive part."""
    low, high = max(-z, -12.0), max(-z, -12.0) + 24.0
    nodes, weights = LEGENDRE
    edges = np.linspace(low, high, 15)
    half = (edges[1:] - edges[:-1])[:, None] / 2
    e = edges[:-1, None] + half * (1 + nodes)
    density = np.exp(-0.5 * e**2) / math.sqrt(2 * math.pi) * weights * half
    mean = ((z + e) * density).sum()
    return mean, ((z + e - mean) ** 2 * density).sum() + mean**2 * 0.5 * math.erfc(-low / math.sqrt(2))


@pytest.mark.parametrize('std', [1e-6, 1.0, 1e3])
def test_relu_in_float32_matches_quadrature(std):
    z = torch.linspace(-40, 40, 801, dtype=torch.float64)
    mean, var = (z * std).float(), torch.full((801,), std * std)
    sigma = var.double().sqrt()
    expected = torch.tensor([relu_reference(a) for a in (mean.double() / sigma).tolist()], dtype=torch.float64)

    out = F.relu(Gaussian(mean, var))

    assert ((out.mean.double() / sigma) - expected[:, 0]).abs().max() <= 1e-6
    assert ((out.var.double() / sigma.square()) - expected[:, 1]).abs().max() <= 5e-7
    assert (out.var >= 0).all()
    # the textbook form in float32 fails, so the check can
    textbook = mean.square() * torch.special.ndtr(z.float()) - out.mean.square()
    assert ((textbook / var).double() - expected[:, 1]).abs().max() > 5e-7


@pytest.mark.parametrize('name', ELEMENTWISE)
@pytest.mark.parametrize('mean', [-4.0, -0.7, 0.0, 2.5])
@pytest.mark.parametrize('var', [1e-4, 0.3, 4.0, 100.0])
def test_moments_match_quadrature(name, mean, var):
    if name == 'exp' and var > 10:
        pytest.skip('the quadrature would need wider limits')
    function = ELEMENTWISE[name]
    expected_mean, expected_var = quadrature(function, mean, var)
    mean, var = (torch.tensor([a], dtype=torch.float64) for a in (mean, var))

    out = function(Gaussian(mean, var))

    if name in EXACT:
        assert out.mean.item() == pytest.approx(expected_mean, rel=1e-6, abs=1e-8)
        assert out.var.item() == pytest.approx(expected_var, rel=1e-5, abs=1e-9)
        return
    scale = max(1.0, var.sqrt().item())
    assert abs(out.mean.item() - expected_mean) < (1e-6 if name == 'gelu' else 0.01) * scale
    # relative to the standard deviation; where the function is flat, to a hundredth of its unit
    assert out.std.item() == pytest.approx(math.sqrt(expected_var), rel=0.05, abs=0.01)


@pytest.mark.parametrize('name', ELEMENTWISE)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('var', [0.0, 1e-45, 1e-30, 1e-6, 1.0, 1e30])
def test_extreme_values_stay_finite(name, dtype, var):
    mean = torch.tensor([-1e3, -30.0, -1.0, 0.0, 0.5, 30.0, 1e3], dtype=dtype, requires_grad=True)
    variance = torch.full_like(mean, var).detach().requires_grad_()
    out = ELEMENTWISE[name](Gaussian(mean, variance))
    grads = torch.autograd.grad(out.mean.sum() + out.var.sum(), (mean, variance))

    assert out.dtype == dtype
    assert (out.var >= 0).all()
    # the plain exp(1e3) overflows; the derivative of a saturated one is zero
    assert all(t.isfinite().all() for t in (out.mean, out.var, *grads))
    if var == 0:
        plain = ELEMENTWISE[name](mean.detach()).clamp_max(torch.finfo(dtype).max)
        tolerance = torch.finfo(dtype).eps * 4
        torch.testing.assert_close(out.mean.detach(), plain, rtol=max(tolerance, 1e-4), atol=tolerance)
        assert (out.var == 0).all()


@pytest.mark.parametrize('name', ELEMENTWISE)
def test_gradcheck(name):
    torch.manual_seed(0)
    mean = torch.randn(12, dtype=torch.float64, requires_grad=True)
    var = (torch.rand(12, dtype=torch.float64) * 3 + 0.05).requires_grad_()

    def moments(m, v):
        out = ELEMENTWISE[name](Gaussian(m, v))
        return out.mean, out.var

    assert torch.autograd.gradcheck(moments, (mean, var))


def test_derivative_by_variance_at_zero_is_the_squared_slope():
    mean = torch.tensor([-2.0, 0.3, 1.5])
    for function in (torch.sigmoid, torch.tanh, F.silu, F.gelu, torch.exp):
        x = mean.clone().requires_grad_()
        slope = torch.autograd.grad(function(x).sum(), x)[0]
        var = torch.zeros(3, requires_grad=True)
        grad = torch.autograd.grad(function(Gaussian(mean, var)).var.sum(), var)[0]
        torch.testing.assert_close(grad, slope.square(), rtol=1e-2, atol=1e-5)


def test_relu_saves_its_two_inputs_only():
    saved = []
    x = Gaussian(torch.randn(4, 100, requires_grad=True), torch.rand(4, 100, requires_grad=True))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()), lambda t: t):
        F.relu(x)
    assert sum(saved) == 2 * 400


def test_relu_in_blocks_equals_relu_at_once():
    mean, var = torch.randn(3, 5, 100, 200), torch.rand(3, 5, 100, 200)  # 300 000 values: several blocks
    out = F.relu(Gaussian(mean, var))
    parts = [F.relu(Gaussian(m, v)) for m, v in zip(mean.flatten().split(1000), var.flatten().split(1000), strict=True)]
    torch.testing.assert_close(out.mean.flatten(), torch.cat([p.mean for p in parts]))
    torch.testing.assert_close(out.var.flatten(), torch.cat([p.var for p in parts]))
    last = F.relu(Gaussian(*(t.to(memory_format=torch.channels_last) for t in (mean, var))))
    torch.testing.assert_close(last.mean, out.mean)


def test_prelu_learns_its_weight_per_channel():
    weight = torch.tensor([0.1, 0.5], dtype=torch.float64, requires_grad=True)
    x = Gaussian(torch.randn(3, 2, 4, dtype=torch.float64), torch.rand(3, 2, 4, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda w: (F.prelu(x, w).mean, F.prelu(x, w).var), (weight,))


@pytest.mark.parametrize('classes', [2, 3, 10, 37])
@pytest.mark.parametrize('var', [0.01, 1.0, 3.0])
def test_softmax_matches_samples(classes, var):
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randn(classes, generator=generator, dtype=torch.float64)
    noise = torch.randn(40_000, classes, generator=generator, dtype=torch.float64)
    sample = torch.softmax(logits + var**0.5 * noise, -1)
    top = logits.argmax()

    out = F.softmax(Gaussian(logits[None], torch.full_like(logits, var)[None]), dim=1)

    assert out.mean.sum().item() == pytest.approx(1, abs=1e-12)
    assert (out.mean[0] - sample.mean(0)).abs().max() < 0.01
    ratio = (out.std[0, top] / sample[:, top].std()).item()
    assert 0.85 < ratio < 1.15
    if classes > 2 and var == 3:
        p = torch.softmax(logits, -1)  # linearised: the first order is no substitute
        linear = (var * p[top].square() * ((p - F.one_hot(top, classes)).square().sum())).sqrt()
        assert not 0.85 < (linear / sample[:, top].std()).item() < 1.15


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('var', [0.0, 1e-45, 1e-30, 1.0, 1e30])
def test_softmax_of_large_logits(dtype, var):
    mean = torch.tensor([[1e4, -1e4, 0.0, 1e4, 3.0], [1.0, 2.0, 3.0, 4.0, 5.0]], dtype=dtype, requires_grad=True)
    variance = torch.full_like(mean, var).detach().requires_grad_()
    x = Gaussian(mean, variance)
    for out in (torch.softmax(x, -1), torch.log_softmax(x, -1)):
        grads = torch.autograd.grad(out.mean[:, 0].sum() + out.var.sum(), (mean, variance), retain_graph=True)
        assert all(t.isfinite().all() for t in (out.mean, out.var, *grads))
        assert (out.var >= 0).all()
    p = torch.softmax(x, -1)
    assert (p.mean.sum(-1) - 1).abs().max() <= 1e-6
    if var == 0:
        torch.testing.assert_close(p.mean, torch.softmax(mean, -1), rtol=1e-5, atol=1e-6)
        assert (p.var == 0).all()


def test_softmax_along_any_dimension_and_one_class():
    mean, var = torch.randn(2, 3, 4), torch.rand(2, 3, 4)
    a = F.softmax(Gaussian(mean, var), dim=1)
    b = F.softmax(Gaussian(mean.transpose(1, 2), var.transpose(1, 2)), dim=2)
    torch.testing.assert_close(a.var, b.var.transpose(1, 2))
    one = torch.softmax(Gaussian(mean[:, :1], var[:, :1]), 1)
    assert (one.mean == 1).all() and (one.var == 0).all()


def test_bad_arguments_are_named():
    x = Gaussian(torch.zeros(2, 3), torch.ones(2, 3))
    with pytest.raises(TypeError, match='dim'):
        F.softmax(x)
    with pytest.raises(ValueError, match='min=2'):
        torch.clamp(x, 2, 1)
    with pytest.raises(TypeError, match='min must be a number'):
        torch.clamp(x, min=torch.zeros(3))
