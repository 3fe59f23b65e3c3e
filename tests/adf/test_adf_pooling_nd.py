"""Pooling over one and three axes, minima and reductions, against samples, torch and each other."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmrotate_plugin.adf import Gaussian

MEANS = {  # a function linear in its input, and a shape
    'avg_pool1d': (lambda x: F.avg_pool1d(x, 3, 2, 1), (2, 3, 11)),
    'avg_pool1d, ceil': (lambda x: F.avg_pool1d(x, 3, 2, 0, True, False), (3, 10)),
    'avg_pool3d': (lambda x: F.avg_pool3d(x, 2), (2, 3, 4, 6, 5)),
    'avg_pool3d, padded': (lambda x: F.avg_pool3d(x, 3, 2, 1), (1, 2, 5, 6, 7)),
    'avg_pool3d, ceil': (lambda x: F.avg_pool3d(x, (2, 3, 2), (2, 2, 1), (1, 1, 0), True), (1, 2, 5, 6, 4)),
    'avg_pool3d, without padding': (lambda x: F.avg_pool3d(x, 3, 2, 1, True, False), (2, 6, 5, 7)),
    'avg_pool3d, divisor': (lambda x: F.avg_pool3d(x, 2, divisor_override=3), (1, 2, 4, 4, 4)),
    'adaptive_avg_pool1d': (lambda x: F.adaptive_avg_pool1d(x, 3), (2, 3, 7)),
    'adaptive_avg_pool2d': (lambda x: F.adaptive_avg_pool2d(x, (3, None)), (2, 7, 3)),
    'adaptive_avg_pool3d': (lambda x: F.adaptive_avg_pool3d(x, (2, 3, None)), (1, 2, 5, 7, 3)),
    'area, line': (lambda x: F.interpolate(x, size=3, mode='area'), (1, 2, 7)),
    'area, volume': (lambda x: F.interpolate(x, size=(2, 2, 3), mode='area'), (1, 2, 5, 4, 6)),
    'fold': (lambda x: F.fold(x, (4, 5), 3, padding=1), (1, 18, 20)),
    'tril': (lambda x: x.tril(), (3, 4)), 'diag': (lambda x: torch.diag_embed(x), (2, 3)),
    'hsplit': (lambda x: torch.hsplit(x, 2)[1], (2, 4)), 'mT': (lambda x: x.mT.contiguous(), (2, 3, 4)),
}  # fmt: skip


@pytest.mark.parametrize('name', MEANS)
def test_the_variance_of_linear_maps_has_squared_weights(name):
    """The weights are the columns that autograd finds."""
    function, shape = MEANS[name]
    mean, var = torch.randn(shape, dtype=torch.float64), torch.rand(shape, dtype=torch.float64)
    weights = torch.autograd.functional.jacobian(function, mean)
    out = function(Gaussian(mean, var))
    expected = function(mean)
    torch.testing.assert_close(out.mean.clone(), expected)
    squares = weights.square().reshape(expected.numel(), -1) @ var.flatten()
    torch.testing.assert_close(out.var.clone(), squares.reshape(expected.shape))
    assert out.var.any()
    plain = function(Gaussian(mean, var, plain_mean=True))
    assert torch.equal(plain.mean, expected) and torch.equal(plain.var, out.var)


MAXIMA = {
    'max_pool1d': (lambda x: F.max_pool1d(x, 2, 1), (3, 9)),
    'max_pool1d, padded': (lambda x: F.max_pool1d(x, 3, 2, 1, 1, True), (1, 3, 9)),
    'max_pool3d': (lambda x: F.max_pool3d(x, (1, 2, 1), (1, 1, 1)), (1, 2, 3, 4, 3)),
    'max_pool3d, wide': (lambda x: F.max_pool3d(x, 2, 2, 1, ceil_mode=True), (1, 2, 4, 5, 4)),
    'adaptive_max_pool1d': (lambda x: F.adaptive_max_pool1d(x, 4), (3, 7)),
    'adaptive_max_pool3d': (lambda x: F.adaptive_max_pool3d(x, (2, 2, None)), (1, 2, 4, 3, 2)),
    'amin': (lambda x: x.amin(-1), (5, 2)), 'min': (lambda x: torch.min(x, 1).values, (3, 2, 4)),
    'minimum': (lambda x: torch.minimum(x[0], x[1]), (2, 7)), 'amax': (lambda x: x.amax((1, 2)), (3, 2, 2)),
    'min of all': (lambda x: x.min(), (4,)),
}  # fmt: skip


@pytest.mark.parametrize('name', MAXIMA)
def test_maxima_and_minima_match_samples(name):
    function, shape = MAXIMA[name]
    n = 20_000
    mean, var = torch.randn(shape) / 2, torch.rand(shape) + 0.1
    noise = torch.randn(n, *shape, generator=torch.Generator().manual_seed(0))
    sample = torch.func.vmap(function)(mean + var.sqrt() * noise)
    out = function(Gaussian(mean, var))
    v = sample.var(0)
    # five standard errors; maxima of more than two values are approximate, those of
    # more than four to 8 % of the standard deviation
    assert ((out.mean - sample.mean(0)).abs() < (5 / n**0.5 + 0.04) * v.sqrt()).all()
    assert ((out.var.sqrt() / v.sqrt() - 1).abs() < 5 / n**0.5 + 0.08).all()
    exact = function(Gaussian(mean, torch.zeros(shape)))
    torch.testing.assert_close(exact.mean.clone(), function(mean))
    assert not exact.var.any()
    assert ((function(mean) - sample.mean(0)).abs() > 0.1 * v.sqrt()).any()  # the control: the plain function


def test_one_axis_and_three_are_the_rule_of_maps():
    x = Gaussian(torch.randn(2, 3, 4, 6), torch.rand(2, 3, 4, 6))
    for k in (2, 3):
        flat, deep = F.max_pool2d(x, (1, k)), F.max_pool3d(x, (1, 1, k))
        line = F.max_pool1d(x.flatten(0, 1), k)
        assert torch.equal(flat.var, deep.var) and torch.equal(flat.var.flatten(0, 1), line.var)
    assert torch.equal(F.avg_pool3d(x, (1, 2, 2)).var, F.avg_pool2d(x, 2).var)


@pytest.mark.parametrize('layer, shape', [
    (nn.MaxPool1d(2), (2, 3, 8)), (nn.AvgPool1d(2), (2, 3, 8)), (nn.AdaptiveAvgPool1d(2), (2, 3, 8)),
    (nn.AdaptiveMaxPool1d(2), (2, 3, 8)), (nn.MaxPool3d(2), (2, 3, 4, 4, 4)), (nn.AvgPool3d(2), (2, 3, 4, 4, 4)),
    (nn.AdaptiveAvgPool3d(1), (2, 3, 4, 4, 4)), (nn.AdaptiveMaxPool3d(1), (2, 3, 4, 4, 4)),
    (nn.Fold(4, 2, stride=2), (1, 8, 4)),
    (nn.AdaptiveAvgPool2d(1), (2, 3, 4, 4)), (nn.Conv3d(3, 2, 2), (1, 3, 4, 4, 4)),
    (nn.Upsample(scale_factor=2), (1, 3, 4)),
], ids=lambda layer: str(layer).replace(' ', ''))  # fmt: skip
def test_layers_of_torch(layer, shape):
    x = Gaussian(torch.randn(shape), torch.rand(shape), min_variance=1e-3)
    out = layer(x)
    assert out.shape == layer(x.mu).shape and (out.var >= 1e-3).all()


def test_minima_in_their_forms():
    x, y = (Gaussian(torch.randn(3, 4), torch.rand(3, 4)) for _ in range(2))
    low = torch.min(x, dim=1, keepdim=True)
    assert low.values.shape == low.indices.shape == (3, 1) and torch.equal(low.indices, x.mu.argmin(1, keepdim=True))
    for out in (x.min(y), torch.min(x, y), torch.min(x, other=y), x.minimum(y)):
        assert torch.equal(out.var, torch.minimum(x, y).var)
    assert torch.equal(x.min(1)[0].var, x.amin(1).var) and torch.equal(torch.amin(x, (0, 1)).var, x.min().var)
    torch.testing.assert_close(torch.minimum(x, x.mu - 100).var.clone(), torch.zeros(3, 4))
    with pytest.raises(ValueError, match='return_indices'):
        F.max_pool3d(Gaussian(torch.randn(1, 4, 4, 4), torch.ones(1, 4, 4, 4)), 2, return_indices=True)
    with pytest.raises(ValueError, match='return_indices'):
        nn.MaxPool1d(2, return_indices=True)(x)


def test_joins():
    x, c = Gaussian(torch.randn(2, 3), torch.rand(2, 3)), torch.randn(2, 3)
    for join in (torch.hstack, torch.vstack, torch.dstack, torch.column_stack, torch.cat, torch.stack):
        out = join([x, c])
        assert torch.equal(out.mean, join([x.mu, c])) and torch.equal(out.var, join([x.v, torch.zeros(2, 3)]))
