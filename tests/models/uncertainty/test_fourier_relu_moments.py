"""Moments of `ennFourierReLU` against samples of its input."""

import pytest
import torch

from mmrotate_plugin.adf import Gaussian
from mmrotate_plugin.adf.moment_rules import RULES
from mmrotate_plugin.equivariant import ennFourierReLU
from mmrotate_plugin.equivariant.fourier_relu import FUNCTIONS, fourier_pointwise, interpolation
from mmrotate_plugin.testing import act_on_regular, relative_error

N = 20_000


def moments(spread=1.0):
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(1, 32, 2, 2, generator=generator)
    std = spread * (0.5 + torch.rand(mean.shape, generator=generator))
    return Gaussian(mean, std.square())


def sampled(layer, x):
    noise = torch.randn(N, *x.shape[1:], generator=torch.Generator().manual_seed(1))
    out = layer(x.mean + noise * x.std)
    return out.mean(0, keepdim=True), out.std(0, keepdim=True)


@pytest.mark.parametrize('group, function', [('C8', f) for f in FUNCTIONS] + [('D4', 'relu'), ('C16', 'relu')])
@pytest.mark.parametrize('spread', [0.3, 1.0])
def test_moments_match_samples(group, function, spread):
    layer, x = ennFourierReLU(group=group, function=function), moments(spread=spread)
    mean, std = sampled(layer, x)
    out = layer(x)
    # six standard errors; where a sample never passes the ReLU, its own deviation says nothing. Quadrature: 1e-3
    assert ((out.mean - mean).abs() < (6 / N**0.5 + 1e-3) * out.std).all()
    assert 0.98 < out.std.norm() / std.norm() < 1.07
    # the control: rules of one operation after the other take correlated samples for independent ones
    up = interpolation(layer.rotations, 2).like(mean)
    rings = x.reshape(1, -1, layer.rotations, 4)
    naive = torch.matmul(up.t() / 2, FUNCTIONS[function](torch.matmul(up, rings))).reshape(*x.shape)
    assert naive.std.norm() / std.norm() < 0.85


@pytest.mark.parametrize('rule', ['diagonal', 'rank1', 'delta'])
def test_small_noise_is_the_linear_map(rule):
    layer = ennFourierReLU(group='C8')
    x = moments(spread=1e-3)
    jacobian = torch.autograd.functional.jacobian(layer, x.mean).reshape(128, 128)
    expected = (jacobian.square() @ x.var.flatten()).view_as(x.var)
    out = layer(Gaussian(x.mean, x.var, rule=rule))
    assert out.rule == rule and relative_error(out.var, expected) < 0.01
    assert relative_error(out.mean, layer(x.mean)) < 1e-4


@pytest.mark.parametrize('group', ['C8', 'D4'])
def test_variance_turns_with_the_image(group):
    layer, x = ennFourierReLU(group=group), moments()
    out, turned = layer(x), layer(Gaussian(*(act_on_regular(t, group, 1) for t in (x.mean, x.var))))
    for actual, expected in ((turned.mean, out.mean), (turned.var, out.var)):
        assert relative_error(actual, act_on_regular(expected, group, 1)) < 1e-6


def test_traits_and_gradients():
    layer = ennFourierReLU(group='C8')
    x = moments()
    plain = layer(Gaussian(x.mean, x.var, plain_mean=True, min_variance=0.2))
    assert relative_error(plain.mean, layer(x.mean)) < 1e-6 and plain.var.min() >= 0.2
    mean, var = x.mean.double().requires_grad_(), torch.zeros(x.shape, dtype=torch.float64, requires_grad=True)
    out = layer(Gaussian(mean, var))
    (out.mean.sum() + out.var.sum()).backward()
    assert mean.grad.isfinite().all() and var.grad.isfinite().all() and (out.var >= 0).all()

    def run(mean, std):
        out = layer(Gaussian(mean, std.square()))
        return out.mean, out.var

    small = [t[:, :8, :1, :2].double().requires_grad_() for t in (x.mean, x.std)]
    assert torch.autograd.gradcheck(run, small)


def test_an_unknown_value_gets_the_whole_call():
    class Recorder:
        shape = (1, 8, 1, 1)
        device = torch.device('cpu')
        dtype = torch.float32

        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            return function

    assert ennFourierReLU(group='C8')(Recorder()) is fourier_pointwise and fourier_pointwise in RULES
