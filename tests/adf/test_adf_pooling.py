"""Maxima, pooling, interpolation and padding of Gaussians: against Monte Carlo, torch's functions, unit impulses."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmrotate_plugin.adf import Gaussian
from mmrotate_plugin.adf.functional.interpolation import grid_sample
from mmrotate_plugin.adf.functional.maxima import maximum


def random_gaussian(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32, spread: float = 1.0) -> Gaussian:
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(shape, generator=generator, dtype=dtype) * spread
    return Gaussian(mean, 0.5 + torch.rand(shape, generator=generator, dtype=dtype))


def sample_moments(x: Gaussian, function, *, n: int = 4000, repeats: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, variance and fourth central moment of n * repeats samples; the batch axis of x must be one."""
    generator = torch.Generator().manual_seed(7)
    total = []
    for _ in range(repeats):
        noise = torch.randn((n, *x.mean.shape[1:]), generator=generator)
        total.append(function(x.mean + x.std * noise))
    samples = torch.cat(total).double()
    centred = samples - samples.mean(0)
    return samples.mean(0), centred.square().mean(0), centred.pow(4).mean(0)


def weights_of(function, *shape: int) -> Tensor:
    """Dense matrix (outputs, inputs) of a linear function of one map, from unit impulses."""
    count = math.prod(shape)
    impulses = torch.eye(count, dtype=torch.float64).reshape(count, 1, *shape)
    return function(impulses).reshape(count, -1).T


def relative(actual: Tensor, expected: Tensor) -> float:
    return ((actual.double() - expected).norm() / expected.norm()).item()


# maxima ---------------------------------------------------------------------------------------------------------------


def test_maximum_of_two_is_exact():
    x, y = random_gaussian(1, 40), random_gaussian(1, 40, seed=1)
    both = Gaussian(torch.stack([x.mean, y.mean], 1), torch.stack([x.var, y.var], 1))
    n = 100_000
    mean, var, m4 = sample_moments(both, lambda s: s.amax(1), n=n // 5)
    for out in (torch.maximum(x, y), x.maximum(y), torch.max(x, y), both.amax(1), torch.max(both, dim=1)[0]):
        assert ((out.mean[0] - mean).abs() < 5 * (var / n).sqrt()).all()
        assert ((out.var[0] - var).abs() < 5 * ((m4 - var.square()) / n).sqrt()).all()
    # treating one of the two as certain would not pass
    wrong = torch.maximum(x, y.mean)
    assert ((wrong.mean[0] - mean).abs() > 5 * (var / n).sqrt()).any()


def test_maximum_with_a_constant_is_the_rectifier():
    x = random_gaussian(1, 50, dtype=torch.float64)
    std = x.var.sqrt()
    z = x.mean / std
    cdf, density = torch.special.ndtr(z), torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    mean = x.mean * cdf + std * density
    square = (x.mean.square() + x.var) * cdf + x.mean * std * density
    for out in (torch.maximum(x, torch.zeros(1, dtype=torch.float64)), maximum(torch.zeros(50).double(), x)):
        torch.testing.assert_close(out.mean, mean, rtol=0, atol=1e-12)
        torch.testing.assert_close(out.var, square - mean.square(), rtol=0, atol=1e-12)


@pytest.mark.parametrize('size', [7, 14, 28, 113])
def test_max_pool_matches_samples(size):
    x = random_gaussian(1, 1, size, size, seed=size)
    if size > 28:  # a strip of the large map; the windows start at its corner
        x = Gaussian(x.mean[:, :, :, :9], x.var[:, :, :, :9])
    mean, var, _ = sample_moments(x, lambda s: F.max_pool2d(s, 3, 2, 1), n=2000)
    out = F.max_pool2d(x, 3, 2, 1)
    assert (out.mean[0] - mean).square().mean().sqrt() <= 0.02  # the standard deviations are about one
    assert 0.95 <= (out.var[0] / var).sqrt().median() <= 1.02


def test_chained_maxima_need_their_correction():
    """Nine equal values: Clark's chain, uncorrected, loses too much of the spread."""
    x = Gaussian(torch.zeros(1, 1, 3, 3, dtype=torch.float64), torch.ones(1, 1, 3, 3, dtype=torch.float64))
    out = F.max_pool2d(x, 3)
    # moments of the greatest of nine: order statistics, integrated here
    t = torch.linspace(-9, 9, 20001, dtype=torch.float64)
    density = 9 * torch.exp(-t.square() / 2) / math.sqrt(2 * math.pi) * torch.special.ndtr(t) ** 8
    mean = torch.trapezoid(density * t, t)
    var = torch.trapezoid(density * (t - mean).square(), t)
    torch.testing.assert_close(out.mean.squeeze(), mean, rtol=0, atol=1e-9)
    torch.testing.assert_close(out.var.squeeze(), var, rtol=0, atol=1e-9)

    def plain(values: list[Gaussian]) -> Gaussian:
        return torch.maximum(torch.maximum(values[0], values[1]), values[2])

    rows = [plain([Gaussian(x.mean[..., i, j], x.var[..., i, j]) for j in range(3)]) for i in range(3)]
    assert (plain(rows).var / var).sqrt() < 0.95


@pytest.mark.parametrize(
    'size, options',
    [
        ((7, 7), {'kernel_size': 3, 'stride': 2, 'padding': 1}),
        ((8, 11), {'kernel_size': 2}),
        ((9, 8), {'kernel_size': (3, 2), 'stride': (1, 2), 'padding': (1, 0)}),
        ((12, 13), {'kernel_size': 3, 'stride': 2, 'dilation': 2, 'padding': 1}),
        ((10, 12), {'kernel_size': 3, 'stride': 2, 'ceil_mode': True}),
        ((10, 7), {'kernel_size': 2, 'stride': 3, 'padding': 1, 'ceil_mode': True}),
        ((11, 9), {'kernel_size': 5, 'stride': 1, 'padding': 2}),
        ((5, 5), {'kernel_size': 1, 'stride': 2}),
        ((113, 112), {'kernel_size': 3, 'stride': 2, 'padding': 1}),
    ],
)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_without_variance_max_pool_is_torchs(size, options, dtype):
    mean = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0)).relu().to(dtype)  # with ties at zero
    expected = F.max_pool2d(mean, **options)
    for x in (Gaussian(mean, torch.zeros_like(mean)), Gaussian(mean[0], torch.zeros_like(mean[0]))):
        out = nn.MaxPool2d(**options)(x)
        assert torch.equal(out.mean, expected if x.dim() == 4 else expected[0])
        assert not out.var.any() and out.dtype == dtype


@pytest.mark.parametrize('cells', [1, (2, 3), (None, 4), 5])
def test_without_variance_other_maxima_are_torchs(cells):
    mean = torch.randn(2, 3, 10, 7, generator=torch.Generator().manual_seed(0))
    x = Gaussian(mean, torch.zeros_like(mean))
    assert torch.equal(F.adaptive_max_pool2d(x, cells).mean, F.adaptive_max_pool2d(mean, cells))
    for dim in (0, -1, (2, 3), (1, -1)):
        assert torch.equal(x.amax(dim).mean, mean.amax(dim))
        assert torch.equal(x.amax(dim, keepdim=True).mean, mean.amax(dim, keepdim=True))
    assert torch.equal(torch.amax(x).mean, mean.amax()) and torch.equal(x.max().mean, mean.max())
    values, indices = x.max(1)
    assert torch.equal(values.mean, mean.max(1).values) and torch.equal(indices, mean.max(1).indices)


@pytest.mark.parametrize('var', [0.0, 1e-45, 1e-30, 1.0, 1e30])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_extreme_maxima_are_finite_forward_and_backward(var, dtype):
    mean = torch.tensor([-1e3, -1.0, -1e-20, 0.0, 0.0, 1e-20, 1.0, 1.0, 1e3]).repeat(9, 1).to(dtype)[None, None]
    x = Gaussian(mean.requires_grad_(), torch.full_like(mean, var).detach().requires_grad_())
    for out in (F.max_pool2d(x, 3, 2, 1), x.amax((2, 3)), torch.maximum(x, torch.zeros(1, dtype=dtype))):
        assert out.mean.isfinite().all() and out.var.isfinite().all() and (out.var >= 0).all()
        for grad in torch.autograd.grad((out.mean.float().sum() + out.var.float().sum()), (x.mean, x.var)):
            assert grad.isfinite().all()


def test_variance_of_a_maximum_is_never_negative():
    t = torch.linspace(-40, 40, 4001)
    for v1, v2 in ((0.0, 1.0), (1.0, 0.0), (1e-12, 1.0), (1e6, 1e-6)):
        scale = max(v1, v2)
        x = Gaussian(t * scale**0.5, torch.full_like(t, v1))
        y = Gaussian(torch.zeros_like(t), torch.full_like(t, v2))
        out = torch.maximum(x, y)
        wide = torch.maximum(Gaussian(x.mean.double(), x.var.double()), Gaussian(y.mean.double(), y.var.double()))
        assert (out.var >= 0).all()
        assert (out.var - wide.var).abs().max() <= 5e-7 * scale
        excess = out.mean - torch.maximum(x.mean, y.mean)
        assert (excess - (wide.mean - torch.maximum(x.mean, y.mean))).abs().max() <= 4e-6 * scale**0.5  # 40 rounded


def test_gradients_of_maxima():
    x, y = random_gaussian(3, 4, dtype=torch.float64), random_gaussian(3, 4, seed=1, dtype=torch.float64)
    maps = random_gaussian(1, 2, 5, 4, seed=2, dtype=torch.float64)

    def both(m1, v1, m2, v2):
        out = torch.maximum(Gaussian(m1, v1), Gaussian(m2, v2))
        return out.mean, out.var

    def pool(mean, var):
        out = F.max_pool2d(Gaussian(mean, var), 3, 2, 1)
        return out.mean, out.var

    assert torch.autograd.gradcheck(both, [t.requires_grad_() for t in (x.mean, x.var, y.mean, y.var)])
    assert torch.autograd.gradcheck(pool, [t.requires_grad_() for t in (maps.mean, maps.var)])


@pytest.mark.parametrize('function', [F.max_pool2d, F.adaptive_max_pool2d])
def test_indices_are_refused(function):
    with pytest.raises(ValueError, match='return_indices=True.*use return_indices=False'):
        function(random_gaussian(1, 1, 4, 4), 2, return_indices=True)


def test_bad_windows_are_refused():
    with pytest.raises(ValueError, match='padding=2 .* kernel_size=3'):
        F.max_pool2d(random_gaussian(1, 1, 4, 4), 3, padding=2)
    with pytest.raises(ValueError, match=r'kernel_size=5 .* \(4, 4\)'):
        F.max_pool2d(random_gaussian(1, 1, 4, 4), 5)


# weighted sums --------------------------------------------------------------------------------------------------------

SUMS = {
    'avg': lambda x: F.avg_pool2d(x, 2),
    'avg, odd': lambda x: F.avg_pool2d(x, 3, 2, 1),
    'avg, ceil': lambda x: F.avg_pool2d(x, (3, 2), 2, 1, ceil_mode=True),
    'avg, ceil, valid': lambda x: F.avg_pool2d(x, 2, 2, ceil_mode=True, count_include_pad=False),
    'avg, valid': lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    'avg, divisor': lambda x: F.avg_pool2d(x, 3, 2, 1, divisor_override=5),
    'adaptive': lambda x: F.adaptive_avg_pool2d(x, (3, None)),
    'adaptive, one': lambda x: nn.AdaptiveAvgPool2d(1)(x),
    'adaptive, overlapping': lambda x: F.adaptive_avg_pool2d(x, (4, 5)),
    'bilinear': lambda x: F.interpolate(x, scale_factor=2, mode='bilinear'),
    'bilinear, corners': lambda x: F.interpolate(x, size=(13, 5), mode='bilinear', align_corners=True),
    'bilinear, factor': lambda x: F.interpolate(x, scale_factor=(1.7, 0.6), mode='bilinear', align_corners=False),
    'bilinear, recomputed': lambda x: F.interpolate(x, scale_factor=1.7, mode='bilinear', recompute_scale_factor=True),
    'bilinear, antialias': lambda x: F.interpolate(x, size=(4, 3), mode='bilinear', antialias=True),
    'bicubic': lambda x: F.interpolate(x, scale_factor=1.5, mode='bicubic'),
    'area': lambda x: F.interpolate(x, size=(4, 5), mode='area'),
    'nearest': lambda x: F.interpolate(x, scale_factor=2),
    'nearest, exact': lambda x: F.interpolate(x, size=(5, 11), mode='nearest-exact'),
    'upsample': lambda x: nn.Upsample(scale_factor=2, mode='bilinear', align_corners=True)(x),
    'pad': lambda x: F.pad(x, (1, 2, 0, -1)),
    'reflect': lambda x: F.pad(x, (1, 2, 3, 0), mode='reflect'),
    'replicate': lambda x: nn.ReplicationPad2d(2)(x),
    'circular': lambda x: F.pad(x, (1, 2, 3, 0), mode='circular'),
}


@pytest.mark.parametrize('name', SUMS)
def test_variances_take_squared_weights(name):
    function, shape = SUMS[name], (9, 7)
    x = random_gaussian(2, 3, *shape)
    weights = weights_of(function, *shape)
    out = function(x)
    assert torch.equal(out.mean, function(x.mean))
    expected = x.var.double().flatten(2) @ weights.square().T
    assert relative(out.var.flatten(2), expected) < 1e-5
    mixes = not name.startswith(('nearest', 'pad', 'reflect', 'replicate', 'circular'))
    # weights unsquared are wrong wherever values mix
    assert (relative(function(x.var).flatten(2), expected) > 0.1) == mixes


@pytest.mark.parametrize('name', ['avg', 'avg, odd', 'adaptive, overlapping'])
def test_dividing_by_the_area_of_the_map_fails(name):
    x, shape = random_gaussian(1, 1, 9, 7), (9, 7)
    expected = x.var.double().flatten(2) @ weights_of(SUMS[name], *shape).square().T
    assert relative(SUMS[name](x.var).flatten(2) / (9 * 7), expected) > 0.5


@pytest.mark.parametrize('name', ['avg, valid', 'bilinear', 'bilinear, corners', 'bicubic'])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float64])
def test_types_are_kept(name, dtype):
    x = random_gaussian(1, 2, 9, 7, dtype=dtype)
    out = SUMS[name](x)
    wide = SUMS[name](Gaussian(x.mean.double(), x.var.double()))
    assert out.dtype == out.var.dtype == dtype
    assert relative(out.var, wide.var) < 2 * torch.finfo(dtype).eps


def test_interpolation_of_lines_and_volumes():
    for shape, mode in (((1, 2, 6), 'linear'), ((1, 2, 3, 4, 5), 'trilinear')):
        x = random_gaussian(*shape, dtype=torch.float64)
        out = F.interpolate(x, scale_factor=2, mode=mode)
        weights = weights_of(lambda t, mode=mode: F.interpolate(t, scale_factor=2, mode=mode), *shape[2:])
        assert relative(out.var.flatten(2), x.var.flatten(2) @ weights.square().T) < 1e-12


def test_padding_with_a_constant_is_certain():
    out = F.pad(random_gaussian(1, 1, 3, 3), (1, 1, 1, 1), value=4.0)
    assert (out.mean[..., 0, :] == 4).all() and not out.var[..., 0, :].any()


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('padding_mode', ['zeros', 'border'])
@pytest.mark.parametrize('mode', ['bilinear', 'nearest'])
def test_sampling_takes_squared_weights(mode, padding_mode, align_corners):
    x = random_gaussian(2, 3, 6, 5, dtype=torch.float64)
    grid = torch.rand(2, 4, 7, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 2.6 - 1.3
    out = F.grid_sample(x, grid, mode, padding_mode, align_corners)
    for b in range(2):
        weights = weights_of(
            lambda t, b=b: F.grid_sample(t, grid[b].expand(len(t), -1, -1, -1), mode, padding_mode, align_corners), 6, 5
        )
        assert relative(out.var[b].flatten(1), x.var[b].flatten(1) @ weights.square().T) < 1e-12
        assert (relative(x.var[b].flatten(1) @ weights.T, out.var[b].flatten(1)) > 0.1) == (mode == 'bilinear')


def test_sampling_refuses_what_has_no_rule():
    x, grid = random_gaussian(1, 1, 4, 4), torch.zeros(1, 2, 2, 2)
    with pytest.raises(ValueError, match="padding_mode='reflection'"):
        F.grid_sample(x, grid, 'bilinear', 'reflection', False)
    with pytest.raises(ValueError, match='grid must be a plain tensor'):
        grid_sample(x, Gaussian(grid, grid))


@pytest.mark.needs_torch('2.1', 'torch.compile for Python 3.11')
@pytest.mark.parametrize('function', [lambda x: F.max_pool2d(x, 3, 2, 1), SUMS['bilinear'], SUMS['avg, valid']])
def test_rules_are_traced_in_one_graph(function):
    def run(mean, var):
        out = function(Gaussian(mean, var))
        return out.mean, out.var

    x = random_gaussian(1, 2, 9, 7)
    expected = run(x.mean, x.var)
    torch.testing.assert_close(torch.compile(run, fullgraph=True, backend='aot_eager')(x.mean, x.var), expected)
