"""Sums, products and powers against samples, quadrature and hand computation."""

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from mmrotate_plugin.adf import Gaussian, NoMomentRule


def gaussian(*shape: int, dtype=torch.float64) -> Gaussian:
    return Gaussian(torch.randn(*shape, dtype=dtype), torch.rand(*shape, dtype=dtype) + 0.1)


def assert_same(actual: Gaussian, mean, var, rtol=1e-12):
    torch.testing.assert_close(actual.mean, mean, rtol=rtol, atol=1e-13)
    torch.testing.assert_close(actual.var, var, rtol=rtol, atol=1e-13)


def deviation_from_samples(actual: Gaussian, samples) -> float:
    """Largest deviation of mean and variance, in standard errors of the samples' (n, ...)."""
    n = len(samples)
    centred = samples - samples.mean(0)
    v, m4 = centred.square().mean(0), centred.pow(4).mean(0)
    in_mean = (actual.mean - samples.mean(0)).abs() / (v / n).sqrt()
    in_var = (actual.var - v).abs() / ((m4 - v.square()) / n).sqrt()
    return float(torch.maximum(in_mean, in_var).max())


def draw(x: Gaussian, n: int = 200_000):
    return x.mean + x.std * torch.randn(n, *x.shape, dtype=x.dtype)


BINARY = {
    'add': torch.add,
    'sub': torch.sub,
    'mul': torch.mul,
    'add alpha': lambda x, y: torch.add(x, y, alpha=3),
    'sub alpha': lambda x, y: torch.sub(x, y, alpha=3),
    'rsub': torch.rsub,
    'rsub alpha': lambda x, y: torch.rsub(x, y, alpha=0.5),
    'lerp': lambda x, y: torch.lerp(x, y, 0.3),
}


@pytest.mark.parametrize('name', BINARY)
def test_two_gaussians_match_samples(name):
    function, x, y = BINARY[name], gaussian(2, 3), gaussian(3)
    samples = function(draw(x), draw(y)[:, None])
    assert deviation_from_samples(function(x, y), samples) < 5
    assert deviation_from_samples(Gaussian(*(v * 1.05 for v in (function(x, y).mean, function(x, y).var))), samples) > 5


@pytest.mark.parametrize('name', BINARY)
def test_a_constant_is_a_gaussian_without_variance(name):
    function, x = BINARY[name], gaussian(2, 3)
    c = torch.randn(2, 3, dtype=torch.float64)
    exact = Gaussian(c, torch.zeros_like(c))
    for a, b, plain in ((x, c, (x, exact)), (c, x, (exact, x))):
        expected = function(*plain)
        assert_same(function(a, b), expected.mean, expected.var)


@pytest.mark.parametrize('name', BINARY)
def test_zero_variance_is_the_plain_function(name):
    x, y = gaussian(2, 3, dtype=torch.float32), gaussian(2, 3, dtype=torch.float32)
    for a, b in ((x, y), (x, y.mean), (x.mean, y)):
        zeroed = [Gaussian(v.mean, 0 * v.var) if isinstance(v, Gaussian) else v for v in (a, b)]
        out = BINARY[name](*zeroed)
        torch.testing.assert_close(out.mean, BINARY[name](x.mean, y.mean), rtol=0, atol=1e-7)
        assert not out.var.any()


def test_constants_scale_the_variance_by_their_square():
    x = gaussian(2, 3, 4)
    c = torch.tensor([2.0, -3.0, 0.5])[:, None]  # float32, broadcasts: the type is that of torch
    m, v = x.mean, x.var
    for out in (x * c, c * x, torch.mul(x, c), x.mul(c), torch.multiply(x, other=c), torch.mul(input=x, other=c)):
        assert_same(out, m * c, v * c**2)
    for out in (x / c, torch.div(x, c), x.div(c), torch.true_divide(x, c)):
        assert_same(out, m / c, v / c**2)
    assert_same(x * 3, m * 3, v * 9)
    assert_same(3 * x, m * 3, v * 9)
    assert_same(x / 4, m / 4, v / 16)
    assert_same(x * torch.tensor(2), m * 2, v * 4)
    assert_same(x * (m > 0), m * (m > 0), v * (m > 0))
    assert_same(-x, -m, v)
    assert_same(x.neg(), -m, v)


def test_constants_shift_the_mean_alone():
    x = gaussian(2, 1)
    c = torch.randn(3, dtype=torch.float64)
    m, v = x.mean, x.var.expand(2, 3)
    for out in (x + c, c + x, torch.add(c, x), torch.add(x, c), x.add(c)):
        assert_same(out, m + c, v)
    assert_same(x - c, m - c, v)
    assert_same(c - x, c - m, v)
    assert_same(x + 2, m + 2, x.var)
    assert_same(2 - x, 2 - m, x.var)
    assert_same(torch.rsub(x, 2, alpha=3), 2 - 3 * m, 9 * x.var)
    assert_same(torch.add(c, x, alpha=3), c + 3 * m, 9 * v)
    assert_same(torch.add(x, c, alpha=3), m + 3 * c, v)
    wide = torch.add(Gaussian(m.float(), x.var.float()), c)
    assert wide.dtype == wide.var.dtype == torch.float64


@pytest.mark.parametrize('name', ['add_', 'sub_', 'mul_', 'div_', '__iadd__', '__imul__', '__itruediv__', '__isub__'])
def test_in_place_forms_return_the_result_and_change_nothing(name):
    x = gaussian(2, 3)
    before, plain = x.mean.clone(), x.mean.clone()
    out = Gaussian.__torch_function__(getattr(torch.Tensor, name), (Gaussian,), (x, 3.0))
    assert torch.equal(out.mean, getattr(plain, name)(3.0)) and torch.equal(x.mean, before)
    out = x
    out += plain
    assert torch.equal(out.mean, before + plain) and torch.equal(x.mean, before)


def test_an_object_is_not_independent_of_itself():
    x = gaussian(3)
    assert_same(x + x, 2 * x.mean, 4 * x.var)
    assert_same(x - x, 0 * x.mean, 0 * x.var)
    assert_same(x * x, torch.square(x).mean, torch.square(x).var)
    assert_same(torch.lerp(x, x, 0.3), x.mean, x.var)
    other = Gaussian(x.mean, x.var)  # the control: equal, but another value
    assert_same(x + other, 2 * x.mean, 2 * x.var)


@pytest.mark.parametrize('mean, var', [(0.0, 1.0), (-2.0, 0.5), (10.0, 0.01), (0.01, 4.0)])
@pytest.mark.parametrize('name', ['square', 'abs'])
def test_powers_match_quadrature(name, mean, var):
    function = {'square': np.square, 'abs': np.abs}[name]
    density = stats.norm(mean, var**0.5).pdf
    low, high = mean - 12 * var**0.5, mean + 12 * var**0.5

    def expect(f):
        kinks = [0] if low < 0 < high else None
        return integrate.quad(
            lambda a: f(a) * density(a), low, high, points=kinks, limit=500, epsabs=1e-13, epsrel=1e-13
        )[0]

    m = expect(function)
    v = expect(lambda a: (function(a) - m) ** 2)
    mean, var, m, v = torch.tensor([[mean], [var], [m], [v]], dtype=torch.float64)
    x = Gaussian(mean, var)
    assert_same(getattr(torch, name)(x), m, v, rtol=1e-10)
    if name == 'square':
        for out in (x**2, x.pow(2), torch.pow(x, 2.0), x.square()):
            assert_same(out, m, v, rtol=1e-10)
    assert x**1 is x


def test_abs_in_float32_keeps_its_precision():
    mean = torch.linspace(-40, 40, 2001, dtype=torch.float64)
    for std in (1e-6, 1.0, 1e3):
        wide = torch.abs(Gaussian(mean * std, torch.full_like(mean, std**2)))
        out = torch.abs(Gaussian((mean * std).float(), torch.full_like(mean, std**2).float()))
        exact = torch.from_numpy(stats.foldnorm.mean(mean.abs().numpy()))
        assert ((wide.mean / std - exact).abs() / (1 + exact)).max() < 1e-12
        assert ((out.mean.double() / std - wide.mean / std).abs() < 1e-6 * (1 + mean.abs())).all()
        assert ((out.var.double() - wide.var).abs() / std**2).max() < 1e-6
        assert (out.var > 0).all()


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('var', [0.0, 1e-45, 1e-30, 1e30])
@pytest.mark.parametrize('name', ['abs', 'square', 'mul', 'add', 'div', 'mean', 'sum'])
def test_no_variance_gives_nan(name, var, dtype):
    function = {
        'mul': lambda x: x * torch.tensor([0.0, -2.0, 1e3], dtype=dtype)[:, None],
        'add': lambda x: x + Gaussian(torch.ones_like(x), torch.ones_like(x)),
        'div': lambda x: x / torch.tensor([0.5, -2.0, 1e3], dtype=dtype)[:, None],
    }.get(name) or getattr(torch, name)
    mean = torch.tensor([-1e3, -1.0, -1e-20, 0.0, 1e-3, 1e3], dtype=dtype).repeat(3, 1).requires_grad_()
    v = torch.full_like(mean, var).requires_grad_()
    out = function(Gaussian(mean, v))
    assert not out.mean.isnan().any() and not out.var.isnan().any() and (out.var >= 0).all()
    if (name, var) != ('square', 1e30):  # its variance is 2e60
        assert out.mean.isfinite().all() and out.var.isfinite().all()
        (out.mean.float() + out.var.float()).sum().backward()
        assert mean.grad.isfinite().all() and v.grad.isfinite().all()
    if var == 0 and name != 'add':
        assert not out.var.any()


REDUCTIONS = {
    'all': ((), {}),
    'one': ((1,), {}),
    'tuple': (((0, 2),), {}),
    'list': (([1, 2],), {'keepdim': True}),
    'keyword': ((), {'dim': -1, 'keepdim': True}),
    'numpy': ((), {'axis': 0}),
    'dtype': ((), {'dim': 0, 'dtype': torch.float32}),
}


@pytest.mark.parametrize('name', REDUCTIONS)
def test_sums_and_means(name):
    args, kwargs = REDUCTIONS[name]
    x = gaussian(2, 3, 4)
    for out in (torch.sum(x, *args, **kwargs), x.sum(*args, **kwargs)):
        assert_same(out, x.mean.sum(*args, **kwargs), x.var.sum(*args, **kwargs))
    out = torch.mean(x, *args, **kwargs)
    n = x.numel() // out.numel()
    assert_same(out, x.mean.mean(*args, **kwargs), x.var.sum(*args, **kwargs) / n**2, rtol=1e-6)
    samples = draw(x, 20_000)
    shifted = {k: (v + (v >= 0) if k in ('dim', 'axis') else v) for k, v in kwargs.items() if k != 'dtype'}
    if name in ('keyword', 'numpy'):
        assert deviation_from_samples(out, samples.mean(**shifted)) < 5


def test_gradients():
    x, y = gaussian(2, 3), gaussian(3)

    def moments(m1, v1, m2, v2):
        a, b = Gaussian(m1, v1), Gaussian(m2, v2)
        outs = (a + b, a * b, b - 2 * a, a**2, abs(a), torch.mean(a, 0), a.sum(), torch.lerp(a, b, 0.2), a / m2, m2 * a)
        return tuple(value for out in outs for value in (out.mean, out.var))

    inputs = [v.clone().requires_grad_() for v in (x.mean, x.var, y.mean, y.var)]
    assert torch.autograd.gradcheck(moments, inputs)


def test_half_types_are_squared_in_float32():
    x = Gaussian(torch.full((3,), 300.0).half(), torch.full((3,), 0.01).half())
    assert (x * 300).var.isfinite().all()  # 300² is beyond float16
    assert x.mul(torch.full((3,), 1e-3).half()).var.min() == 0  # 1e-8 is too
    x = Gaussian(torch.tensor([3.0]).bfloat16(), torch.tensor([0.01]).bfloat16())
    assert (x * x).dtype == (x * x).var.dtype == torch.bfloat16


def test_what_has_no_moments_is_refused():
    x, y = gaussian(3), gaussian(3)
    for quotient in (lambda: x / y, lambda: 2 / x, lambda: y.mean / x):
        with pytest.raises(NoMomentRule, match='the quotient has no moments'):
            quotient()
    with pytest.raises(NoMomentRule, match="rounding_mode='floor'"):
        torch.div(x, 2, rounding_mode='floor')
    for exponent in (0.5, -1, 3):
        with pytest.raises(NoMomentRule, match=f'not to {exponent}'):
            x**exponent
    with pytest.raises(NoMomentRule, match='not to Gaussian'):
        torch.pow(x, y)
    with pytest.raises(NoMomentRule, match='Gaussian weight'):
        torch.lerp(x, y, x)
