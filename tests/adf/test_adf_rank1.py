"""The cheaper rule for the variance of linear layers, and squares that are made again for the backward pass."""

import copy

import pytest
import torch
from torch import nn

from mmrotate_plugin.adf import Gaussian
from mmrotate_plugin.adf.functional._rank1 import rank1_variance

F = nn.functional


def gaussian(*shape: int, rule: str = 'rank1') -> Gaussian:
    generator = torch.Generator().manual_seed(1)
    mean, var = (torch.rand(*shape, dtype=torch.float64, generator=generator) for _ in range(2))
    return Gaussian(mean - 0.5, var, rule=rule)


def factored(weight, groups: int, transposed: bool):
    """The weights whose squares are row sums times column sums over the total, by loops over groups and outputs."""
    squares = weight.detach().square()
    if transposed:  # (I, O / G, k...)
        squares = torch.cat([part.transpose(0, 1) for part in squares.chunk(groups)])
    parts = []
    for part in squares.chunk(groups):  # (O / G, I / G, k...)
        columns = sum(part) / part.sum()
        parts.append(torch.stack([row.sum() * columns for row in part]))
    roots = [part.sqrt() for part in parts]
    return torch.cat([root.transpose(0, 1) for root in roots]) if transposed else torch.cat(roots)


LAYERS = {
    'conv': (nn.Conv2d(4, 6, 3, padding=1), (2, 4, 5, 6)),
    'strided, dilated, grouped': (nn.Conv2d(4, 6, 3, (2, 1), (2, 1), dilation=2, groups=2), (1, 4, 7, 6)),
    'same': (nn.Conv2d(2, 3, (1, 4), padding='same'), (1, 2, 5, 5)),
    'unbatched': (nn.Conv2d(4, 4, 3, groups=2), (4, 5, 5)),
    'conv1d': (nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), (2, 4, 7)),
    'conv3d': (nn.Conv3d(2, 3, 2, dilation=(1, 2, 1)), (1, 2, 3, 4, 3)),
    'transposed': (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2), (1, 4, 3, 4)),
    'transposed, dilated': (nn.ConvTranspose2d(2, 3, 3, dilation=2, bias=False), (1, 2, 3, 3)),
    'transposed, unbatched': (nn.ConvTranspose1d(2, 4, 3, stride=2), (2, 5)),
    'linear': (nn.Linear(5, 3), (2, 4, 5)),
    'linear of a vector': (nn.Linear(5, 3), (5,)),
}


@pytest.mark.parametrize('name', LAYERS)
def test_equals_the_layer_with_factored_weights(name):
    layer, shape = LAYERS[name]
    layer = layer.double()
    x = gaussian(*shape)
    out = layer(x)
    other = copy.deepcopy(layer)
    other.weight.data = factored(layer.weight, getattr(layer, 'groups', 1), 'transposed' in name)
    diagonal = Gaussian(x.mean, x.var)
    torch.testing.assert_close(out.var, other(diagonal).var, rtol=1e-12, atol=0)
    assert torch.equal(out.mean, layer(x.mean)) and out.rule == 'rank1'
    # negative control: it is an approximation, so it must differ from the diagonal rule
    assert not torch.allclose(out.var, layer(diagonal).var, rtol=1e-2)


def test_exact_where_the_variance_is_constant_and_for_depthwise_layers():
    layer = nn.Conv2d(4, 6, 3, groups=2).double()
    x = gaussian(1, 4, 6, 6)
    even = Gaussian(x.mean, torch.full_like(x.var, 0.3), rule='rank1')
    exact = layer(Gaussian(even.mean, even.var)).var
    torch.testing.assert_close(layer(even).var, exact, rtol=1e-12, atol=0)
    assert not torch.allclose(layer(x).var, layer(Gaussian(x.mean, x.var)).var, rtol=1e-2)
    depthwise = nn.Conv2d(4, 4, 3, groups=4).double()
    torch.testing.assert_close(depthwise(x).var, depthwise(Gaussian(x.mean, x.var)).var, rtol=1e-12, atol=0)


def test_keeps_the_sum_over_the_output_channels():
    layer = nn.Conv2d(4, 6, 3, padding=1).double()
    x = gaussian(1, 4, 6, 6)
    out, exact = layer(x).var, layer(Gaussian(x.mean, x.var)).var
    torch.testing.assert_close(out.sum(1), exact.sum(1), rtol=1e-12, atol=0)
    assert not torch.allclose(out, exact, rtol=1e-2)


def test_travels_through_a_network_and_is_not_the_default():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 4)
    )
    net = net.double().eval()
    out = net(gaussian(1, 3, 4, 4))
    assert out.rule == 'rank1' and "rule='rank1'" in repr(out) and out.replace(out.mean, out.var).rule == 'rank1'
    assert (out + Gaussian(out.mean, out.var)).rule == 'rank1'
    usual = net(gaussian(1, 3, 4, 4, rule='diagonal'))
    assert usual.rule == 'diagonal' and not torch.allclose(out.var, usual.var, rtol=1e-3)


@pytest.mark.parametrize('name', ['strided, dilated, grouped', 'transposed', 'linear', 'unbatched'])
@pytest.mark.parametrize('rule', ['diagonal', 'rank1'])
def test_gradients(name, rule):
    layer, shape = LAYERS[name]
    layer = layer.double()
    x = gaussian(*shape)

    def variance(var, weight):
        values = {'weight': weight, 'bias': layer.bias}
        return torch.func.functional_call(layer, values, Gaussian(x.mean, var, rule=rule)).var

    inputs = [x.var.clone().requires_grad_(), layer.weight.detach().clone().requires_grad_()]
    assert torch.autograd.gradcheck(variance, inputs)
    assert torch.autograd.gradgradcheck(variance, inputs, fast_mode=True)


@pytest.mark.parametrize('name', LAYERS)
def test_diagonal_gradients_equal_those_that_autograd_finds(name):
    layer, shape = LAYERS[name]
    layer = layer.double()
    x = gaussian(*shape, rule='diagonal')
    leaves = x.var.requires_grad_(), layer.weight
    seed = torch.rand_like(layer(x.mean))
    found = torch.autograd.grad((layer(x).var * seed).sum(), leaves)
    # by hand: the plain layer with squared weights and no bias
    other = copy.deepcopy(layer)
    other.bias = None
    del other.weight
    other.weight = layer.weight.square()
    expected = torch.autograd.grad((other(x.var) * seed).sum(), leaves)
    for a, e in zip(found, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-12, atol=1e-13)
    frozen = copy.deepcopy(layer).requires_grad_(False)
    (alone,) = torch.autograd.grad((frozen(x).var * seed).sum(), leaves[:1])
    torch.testing.assert_close(alone, expected[0], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize('rule', ['diagonal', 'rank1'])
def test_squared_weights_are_not_saved(rule):
    layer = nn.Conv2d(64, 64, 3, padding=1)
    x = Gaussian(torch.randn(1, 64, 4, 4), torch.rand(1, 64, 4, 4), rule=rule)

    def saved_besides_the_parameters(function):
        own = {p.untyped_storage().data_ptr() for p in layer.parameters()}
        found = {}

        def note(t):
            if t.untyped_storage().data_ptr() not in own:
                found[t.untyped_storage().data_ptr()] = t
            return t

        with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            out = function()
        del out
        return sum(t.untyped_storage().nbytes() for t in found.values())

    weights = layer.weight.numel() * layer.weight.element_size()
    assert saved_besides_the_parameters(lambda: layer(x)) < 0.1 * weights
    # negative control: the count sees squares that are saved
    assert saved_besides_the_parameters(lambda: F.conv2d(x.var.requires_grad_(), layer.weight.square())) >= weights


@pytest.mark.parametrize('rule', ['diagonal', 'rank1'])
def test_gradients_under_autocast(rule):
    layer = nn.Conv2d(8, 8, 3)
    x = Gaussian(torch.randn(1, 8, 6, 6), torch.rand(1, 8, 6, 6).requires_grad_(), rule=rule)
    leaves = x.var, layer.weight
    expected = torch.autograd.grad(layer(x).var.sum(), leaves)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = layer(x).var
    assert out.dtype == torch.bfloat16
    for a, e in zip(torch.autograd.grad(out.float().sum(), leaves), expected, strict=True):
        assert a.dtype == torch.float32
        # a few roundings to 8 bits
        assert (a - e).norm() < 2**-6 * e.norm()


@pytest.mark.parametrize('scale', [0.0, 1e-30, 1e15])
def test_extreme_weights_and_variances_stay_finite(scale):
    layer = nn.Conv2d(2, 3, 3)
    layer.weight.data.mul_(scale)
    for var in (0.0, 1e-45, 1e-30, 1.0):
        x = Gaussian(torch.randn(1, 2, 5, 5), torch.full((1, 2, 5, 5), var).requires_grad_(), rule='rank1')
        layer.zero_grad()
        out = layer(x).var
        out.sum().backward()
        assert (out >= 0).all()
        for values in (out, x.var.grad, layer.weight.grad):
            assert values.isfinite().all()
        if var == 0:
            assert not out.any()


@pytest.mark.needs_torch('2.1', 'torch.compile for Python 3.11')
@pytest.mark.parametrize('rule', ['diagonal', 'rank1'])
def test_compiles_in_one_graph_with_gradients(rule):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 4, 2, groups=2))

    def variance(mean, var):
        return net(Gaussian(mean, var, rule=rule)).var

    mean, var = torch.randn(1, 3, 6, 6), torch.rand(1, 3, 6, 6)
    expected = variance(mean, var)
    out = torch.compile(variance, backend='aot_eager', fullgraph=True)(mean, var)
    torch.testing.assert_close(out, expected)
    leaves = net[0].weight, net[2].weight
    found, reference = (torch.autograd.grad(y.sum(), leaves) for y in (out, expected))
    for a, e in zip(found, reference, strict=True):
        torch.testing.assert_close(a, e)


@pytest.mark.needs_torch('2.1', 'float16 on CPUs')
def test_half_types_square_in_single_precision():
    layer = nn.Conv2d(8, 4, 3)
    layer.weight.data.mul_(1e-3)  # squares are below the smallest float16
    x = Gaussian(torch.randn(1, 8, 6, 6), torch.full((1, 8, 6, 6), 1e4), rule='rank1')
    expected = layer(x).var
    out = layer.half()(x.to(torch.float16))
    assert out.var.dtype == torch.float16
    torch.testing.assert_close(out.var.float(), expected, rtol=2**-9, atol=1e-6)


def test_rule_is_a_function_of_its_own():
    weight, var = torch.randn(6, 4, dtype=torch.float64), gaussian(3, 4).var
    squares = weight.square()
    expected = var @ torch.outer(squares.sum(0), squares.sum(1)) / squares.sum()
    torch.testing.assert_close(rank1_variance(F.linear, var, weight), expected, rtol=1e-12, atol=0)
