"""Convolutions and matrix products against the dense matrix of the same map, and against samples."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmrotate_plugin.adf import Gaussian, NoMomentRule


def gaussian(*shape: int, dtype=torch.float64) -> Gaussian:
    return Gaussian(torch.randn(*shape, dtype=dtype), torch.rand(*shape, dtype=dtype))


def through_matrix(function, x: Gaussian):
    """Moments of an affine function of independent values, from its Jacobian: J m + b and (J * J) v."""
    jacobian = torch.func.jacrev(lambda mean: function(mean).flatten())(x.mean).flatten(1)
    return function(x.mean), (jacobian.square() @ x.var.flatten()).view(function(x.mean).shape)


def assert_same(actual: Gaussian, expected, rtol=1e-12):
    for a, e in zip((actual.mean, actual.var), expected, strict=True):
        torch.testing.assert_close(a, e, rtol=rtol, atol=1e-13)


LAYERS = {
    'conv': (nn.Conv2d(4, 6, 3, padding=1), (2, 4, 5, 6)),
    'strided, dilated, grouped': (nn.Conv2d(4, 6, 3, (2, 1), (2, 1), dilation=2, groups=2), (1, 4, 7, 6)),
    'depthwise': (nn.Conv2d(4, 8, 3, groups=4, bias=False), (1, 4, 5, 5)),
    'same': (nn.Conv2d(2, 3, (1, 5), padding='same'), (1, 2, 5, 5)),
    'valid': (nn.Conv2d(2, 3, 3, padding='valid'), (1, 2, 5, 5)),
    'unbatched': (nn.Conv2d(2, 3, 3), (2, 5, 5)),
    'conv1d': (nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), (2, 4, 7)),
    'conv3d': (nn.Conv3d(2, 3, 2, dilation=(1, 2, 1)), (1, 2, 3, 4, 3)),
    'transposed': (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2), (1, 4, 3, 4)),
    'transposed, dilated': (nn.ConvTranspose2d(2, 3, 3, dilation=2, bias=False), (1, 2, 3, 3)),
    'transposed 1d': (nn.ConvTranspose1d(2, 4, 3, stride=2), (2, 2, 4)),
    'transposed 3d': (nn.ConvTranspose3d(2, 2, 2), (1, 2, 2, 3, 2)),
    'linear': (nn.Linear(5, 3), (2, 4, 5)),
}  # fmt: skip


@pytest.mark.parametrize('name', LAYERS)
def test_layer_equals_its_dense_matrix(name):
    layer, shape = LAYERS[name]
    layer = layer.double()
    x = gaussian(*shape)
    out = layer(x)
    assert_same(out, through_matrix(layer, x))
    assert torch.equal(out.mean, layer(x.mean))
    # negative control: without squares, or with the bias in the variance, it is another number
    assert not torch.allclose(out.var, layer(x.var), rtol=0.05)


@pytest.mark.parametrize('name', LAYERS)
def test_zero_variance_stays_zero(name):
    layer, shape = LAYERS[name]
    x = Gaussian(torch.randn(shape), torch.zeros(shape))
    layer = layer.float()
    assert torch.equal(layer(x).mean, layer(x.mean)) and not layer(x).var.any()


def test_output_size_of_a_transposed_convolution():
    layer = nn.ConvTranspose2d(2, 2, 3, stride=2, padding=1).double()
    x = gaussian(1, 2, 4, 4)
    out = layer(x, output_size=(8, 8))
    assert out.shape == (1, 2, 8, 8)
    assert_same(out, through_matrix(lambda m: layer(m, output_size=(8, 8)), x))


@pytest.mark.parametrize('mode', ['reflect', 'replicate', 'circular'])
def test_padding_modes(mode):
    layer = nn.Conv2d(2, 3, 3, padding=1, padding_mode=mode).double()
    x = gaussian(1, 2, 5, 4)
    # what is padded counts as independent of what it repeats, so that the reference pads first
    padded = F.pad(x.mean, (1, 1, 1, 1), mode=mode), F.pad(x.var, (1, 1, 1, 1), mode=mode)
    expected = through_matrix(lambda m: F.conv2d(m, layer.weight, layer.bias), Gaussian(*padded))
    assert_same(layer(x), expected)


A, B = torch.randn(3, 4, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)


@pytest.mark.parametrize('function', [torch.matmul, torch.mm, lambda a, b: a @ b])
def test_matrix_products_with_a_constant_on_either_side(function):
    x, y = gaussian(3, 4), gaussian(4, 5)
    assert_same(function(x, B), through_matrix(lambda m: m @ B, x))
    assert_same(function(A, y), through_matrix(lambda m: A @ m, y))


def test_batched_matrix_products():
    a, x = torch.randn(2, 3, 4, dtype=torch.float64), gaussian(2, 4, 5)
    expected = through_matrix(lambda m: a @ m, x)
    assert_same(torch.bmm(a, x), expected)
    assert_same(a @ x, expected)
    assert_same(A @ x, through_matrix(lambda m: A @ m, x))
    v = gaussian(4)
    assert_same(A @ v, through_matrix(lambda m: A @ m, v))


def test_product_of_two_gaussian_matrices_matches_samples():
    n = 200_000
    x, y = gaussian(2, 3), gaussian(3, 2)
    samples = (x.mean + x.std * torch.randn(n, 2, 3, dtype=torch.float64)) @ (
        y.mean + y.std * torch.randn(n, 3, 2, dtype=torch.float64)
    )
    centred = samples - samples.mean(0)
    v, m4 = centred.square().mean(0), centred.pow(4).mean(0)
    out = x @ y
    assert ((out.mean - samples.mean(0)).abs() < 5 * (v / n).sqrt()).all()
    assert ((out.var - v).abs() < 5 * ((m4 - v.square()) / n).sqrt()).all()


@pytest.mark.parametrize('name', ['conv', 'transposed', 'linear'])
def test_gradients(name):
    layer, shape = LAYERS[name]
    layer = layer.double()
    x = gaussian(*shape)

    def moments(mean, var, *parameters):
        out = torch.func.functional_call(
            layer, dict(zip(('weight', 'bias'), parameters, strict=True)), Gaussian(mean, var)
        )
        return out.mean, out.var

    inputs = [x.mean[:1], x.var[:1], *(p.detach() for p in layer.parameters())]
    assert torch.autograd.gradcheck(moments, [i.clone().requires_grad_() for i in inputs], fast_mode=True)


def test_gradients_are_finite_at_extreme_variances():
    layer = nn.Conv2d(2, 3, 3).float()
    for var in (0.0, 1e-45, 1e-30, 1e30):
        mean = (torch.randn(1, 2, 5, 5) * 1e3).requires_grad_()
        x = Gaussian(mean, torch.full_like(mean, var).requires_grad_())
        out = layer(x)
        out.mean.sum().backward(retain_graph=True)
        (out.var / max(var, 1)).sum().backward()
        for values in (out.mean, out.var, mean.grad, x.var.grad, layer.weight.grad):
            assert values.isfinite().all()
        assert (out.var >= 0).all()


# torch 2.0 adds the products of a bfloat16 convolution in bfloat16: errors of .02 for 72 products, .13 for 576
ADDS_IN_FLOAT32 = pytest.mark.needs_torch('2.1', 'bfloat16 convolutions that add in float32')


@pytest.mark.parametrize(
    'dtype, tolerance',
    [
        pytest.param(torch.bfloat16, 2**-6, marks=ADDS_IN_FLOAT32),
        pytest.param(torch.float16, 2**-9, marks=pytest.mark.needs_torch('2.1', 'float16 on CPUs')),
    ],
)
def test_half_types(dtype, tolerance):
    layer = nn.Conv2d(8, 4, 3)
    layer.weight.data.mul_(1e-3)  # squares are below the smallest float16
    x = Gaussian(torch.randn(1, 8, 6, 6), torch.full((1, 8, 6, 6), 1e4))
    expected = layer(x).var
    out = layer.to(dtype)(x.to(dtype))
    assert out.dtype == out.var.dtype == dtype
    torch.testing.assert_close(out.var.float(), expected, rtol=tolerance, atol=1e-6)


@ADDS_IN_FLOAT32
def test_autocast_computes_both_in_its_type():
    layer = nn.Conv2d(4, 4, 3)
    x = gaussian(1, 4, 6, 6, dtype=torch.float32)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = layer(x)
    assert out.mean.dtype == out.var.dtype == torch.bfloat16
    torch.testing.assert_close(out.var.float(), layer(x).var, rtol=2**-6, atol=1e-4)


def test_gaussian_weights_are_refused():
    x, w = gaussian(1, 2, 5, 5), gaussian(3, 2, 3, 3)
    for image in (x, x.mean):
        with pytest.raises(NoMomentRule, match="'conv2d' has no moment rule for a Gaussian weight"):
            F.conv2d(image, w)
    with pytest.raises(NoMomentRule, match="'linear' .* Gaussian bias.*bias.mean"):
        F.linear(gaussian(2, 3), torch.ones(4, 3, dtype=torch.float64), gaussian(4))


@pytest.mark.parametrize('learns', [False, True])
@pytest.mark.parametrize('name', [pytest.param('conv', marks=ADDS_IN_FLOAT32), 'linear'])
def test_bfloat16_rule_is_the_diagonal_one_up_to_its_roundings(name, learns):
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(16, 8, 3, padding=1) if name == 'conv' else torch.nn.Linear(16, 8)
    shape = (2, 16, 7, 7) if name == 'conv' else (5, 16)
    mean, var = torch.randn(shape), torch.rand(shape).requires_grad_(learns)

    out = layer(Gaussian(mean, var, rule='bfloat16'))
    usual = layer(Gaussian(mean, var))

    assert out.mean.equal(layer(mean)) and out.var.dtype == torch.float32
    error = ((out.var - usual.var) / usual.var).abs().max()
    # weight, which counts twice, its square, variance and result are rounded to 8 bits each
    assert 1e-4 < error < 5 * 2**-8
    if learns:
        ours, theirs = (torch.autograd.grad(o.var.sum(), (var, layer.weight)) for o in (out, usual))
        for a, b in zip(ours, theirs, strict=True):
            assert a.dtype == torch.float32 and (a - b).norm() < 0.01 * b.norm()


def test_of_several_rules_the_cheapest_goes_on():
    x = torch.rand(1, 2, 4, 4)
    usual, half, rank1 = (Gaussian(x, x, rule=rule) for rule in ('diagonal', 'bfloat16', 'rank1'))
    assert (usual + half).rule == 'bfloat16' and torch.cat([rank1, half]).rule == 'rank1'
    assert (usual + usual).rule == 'diagonal'
    with pytest.raises(ValueError, match="rule='full' is unknown: use one of 'diagonal', 'bfloat16', 'rank1'"):
        Gaussian(x, x, rule='full')
