"""The compiled moments against the rules in Python, which are their reference."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mmrotate_plugin.adf import Gaussian
from mmrotate_plugin.adf.deferred import Deferred
from mmrotate_plugin.kernels import available, use_compiled_loops
from mmrotate_plugin.kernels.library import wanted

pytestmark = pytest.mark.skipif(not available(), reason='no C compiler was there at the installation')


def both(function):
    """Return what a function gives compiled and in Python."""
    found = []
    for compiled in (True, False):
        use_compiled_loops(compiled)
        with torch.no_grad():
            found.append(function())
    use_compiled_loops(True)
    return found


def gaussian(*shape, **traits):
    generator = torch.Generator().manual_seed(0)
    mean, var = (torch.randn(shape, generator=generator) for _ in range(2))
    return Gaussian(2 * mean, var.square(), **traits)


def difference(a, b, x):
    """The largest differences of means in standard deviations, and of variances in variances, of the largest of x."""
    scale = x.v.max()
    return max(((a.mu - b.mu).abs() / scale.sqrt()).max().item(), ((a.v - b.v).abs() / scale).max().item())


class Names(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


# ---- ReLU


@pytest.mark.parametrize('plain_mean', [False, True])
def test_relu_is_that_of_python_at_every_scale(plain_mean):
    z = torch.linspace(-14, 14, 4001)
    for var in (0.0, 1e-30, 1e-6, 1.0, 1e6):
        v = torch.full_like(z, var)
        x = Gaussian(z * max(var, 1e-6) ** 0.5, v, plain_mean=plain_mean)
        a, b = both(lambda x=x: F.relu(x))
        std = max(var, 1e-12) ** 0.5
        # some roundings of values up to |mean| and v
        assert ((a.mu - b.mu).abs() <= 1e-6 * std + 2e-7 * b.mu.abs()).all()
        assert ((a.v - b.v).abs() <= 1e-6 * var).all() and a.mu.min() >= 0 and a.v.min() >= 0
        assert not plain_mean or a.mu.equal(b.mu)
    delta = F.relu(Gaussian(z, torch.ones_like(z), rule='delta'))
    assert (delta.v - F.relu(Gaussian(z, torch.ones_like(z))).v).abs().max() > 0.1  # another rule would be seen


def test_no_value_is_denormal():
    """Such numbers take a processor several times as long; they come of variances like those of a deep network."""
    z = torch.linspace(-30, 30, 6001)
    v = torch.full_like(z, 1e-8)
    with torch.no_grad():
        out = F.relu(Gaussian(z * 1e-4, v))
    for value in (out.v, out.mu):
        assert ((value == 0) | (value.abs() >= torch.finfo(torch.float32).tiny)).all() and (value == 0).any()
    assert (out.v[z < -9.1] == 0).all() and out.v[z > 9.1].equal(v[z > 9.1]) and (out.v[z > -8.9] > 0).all()


def test_not_a_number_stays_one():
    nan = torch.tensor([float('nan'), 1.0, -1.0, float('inf')])
    a, b = both(lambda: F.relu(Gaussian(nan, torch.tensor([1.0, float('nan'), 1.0, 1.0]))))
    assert a.mu.isnan().equal(b.mu.isnan()) and a.v.isnan().equal(b.v.isnan()) and a.mu.isnan().sum() == 2
    a, b = both(lambda: F.max_pool2d(Gaussian(nan.reshape(1, 2, 2), torch.ones(1, 2, 2)), 2))
    assert a.mu.isnan().all() and b.mu.isnan().all()


@pytest.mark.parametrize(
    'change',
    [
        lambda t: t,
        lambda t: t.contiguous(memory_format=torch.channels_last),
        lambda t: t.transpose(2, 3),
        lambda t: t[:, :, ::2],
        lambda t: t[0, 0, 0],
        lambda t: t[0, 0, 0, 0],
        lambda t: t[:0],
        lambda t: t.double(),
        lambda t: t.bfloat16(),
    ],
)
def test_every_layout_and_type_gives_the_same(change):
    x = gaussian(2, 3, 8, 6)
    x = Gaussian(change(x.mu), change(x.v))
    a, b = both(lambda: F.relu(x))
    assert a.mu.shape == x.shape and a.dtype == x.dtype
    assert torch.allclose(a.mu, b.mu, atol=2e-6) and torch.allclose(a.v, b.v, atol=2e-6)


def test_threads_share_a_map_without_a_difference():
    x, before, found = gaussian(2, 3, 91, 93), torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append((F.relu(x), F.max_pool2d(x, 3, 2, 1)))
    finally:
        torch.set_num_threads(before)
    for a, b in zip(*found, strict=True):
        # vectors end elsewhere, and the rest is computed value by value
        assert difference(a, b, x) < 1e-6


# ---- maxima


@pytest.mark.parametrize('ceil_mode', [False, True])
@pytest.mark.parametrize(
    'kernel, stride, padding, dilation',
    [(1, 1, 0, 1), (2, 2, 1, 1), (3, 2, 1, 1), (3, 1, 1, 2), (4, 3, 0, 1), (5, 1, 2, 1)],
)
def test_pooling_is_that_of_python(kernel, stride, padding, dilation, ceil_mode):
    x = gaussian(2, 2, 19, 14)
    x.v[0, 0] = 0
    a, b = both(lambda: F.max_pool2d(x, kernel, stride, padding, dilation, ceil_mode))
    assert a.shape == b.shape and difference(a, b, x) < 1e-6
    shifted = Gaussian(x.mu, x.v.roll(1, -1))
    assert kernel == 1 or difference(F.max_pool2d(shifted, kernel, stride, padding, dilation, ceil_mode), b, x) > 1e-3


def test_what_the_kernel_does_not_take_goes_by_python():
    x = gaussian(1, 2, 12, 12)
    for size, step in (((3, 2), 1), (7, 2), (3, (1, 2))):
        a, b = both(lambda size=size, step=step: F.max_pool2d(x, size, step))
        assert a.mu.equal(b.mu) and a.v.equal(b.v)


# ---- norms and sums that a ReLU computes on the way


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))
        self.norm1, self.norm2 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.down = nn.BatchNorm2d(4, affine=False)
        for norm in (self.norm1, self.norm2, self.down):
            norm.running_mean.uniform_(-1, 1)
            norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        out = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(out + self.down(x)), out


@pytest.mark.parametrize(
    'traits', [{}, {'plain_mean': True}, {'min_variance': 0.3}, {'plain_mean': True, 'rule': 'rank1'}]
)
def test_a_residual_block_gives_the_same(traits):
    torch.manual_seed(0)
    net, x = Block().eval(), gaussian(2, 4, 9, 7, **traits)
    for a, b in zip(*both(lambda: net(x)), strict=True):
        assert difference(a, b, x) < 2e-6
        assert (a.min_variance, a.plain_mean, a.rule) == (b.min_variance, b.plain_mean, b.rule)
        assert not x.plain_mean or a.mu.equal(b.mu)
    with torch.no_grad(), Names() as seen:
        assert isinstance(net(Gaussian(x.mu, x.v))[1].variance, Deferred)
    assert seen.names.count('mmrotate_plugin.relu_moments.default') == 2
    assert net(Gaussian(x.mu, x.v))[0].mu.requires_grad  # a gradient follows: nothing is deferred


@pytest.mark.parametrize('plain_mean', [False, True])
def test_norms_of_a_sample_give_the_same(plain_mean):
    torch.manual_seed(0)
    x, y = gaussian(2, 6, 9, 7, plain_mean=plain_mean), gaussian(2, 6, 9, 7, plain_mean=plain_mean)
    x.mu[1] *= 5  # a scale for each sample
    norm, other = nn.GroupNorm(3, 6), nn.BatchNorm2d(6).eval()
    nn.init.uniform_(norm.weight, 0.5, 2)
    for norms in ((norm, other), (nn.GroupNorm(2, 6, affine=False), norm)):
        a, b = both(lambda norms=norms: F.relu(norms[0](x) + norms[1](y)))
        assert difference(a, b, x) < 2e-6 and (not plain_mean or a.mu.equal(b.mu))
        a, b = both(lambda norms=norms: norms[0](x))
        assert difference(a, b, x) < 2e-6
    with torch.no_grad():
        assert isinstance(norm(x).variance, Deferred) == plain_mean


@pytest.mark.parametrize('plain_mean', [False, True])
def test_a_reshape_into_whole_channels_defers(plain_mean):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3, affine=False).eval()
    norm.running_var.uniform_(0.5, 2)
    x = gaussian(2, 3, 4, 6, plain_mean=True)
    expected = norm(x).v
    whole, others = [(2, 6, 2, 6), (2, 3, 24), (2, 12, -1)], [(2, 1, 12, 6), (6, 4, 6), (1, 6, 4, 6), (144,)]
    for shape in whole + others:  # the others join channels, or mix them with samples
        y = norm(x)
        a = Gaussian(y.mu, y.variance, plain_mean=plain_mean).reshape(shape)
        assert isinstance(a.variance, Deferred) == (shape in whole) and a.plain_mean == plain_mean
        assert a.v.equal(expected.reshape(shape)) and a.mu.equal(y.mu.reshape(shape))
    group = nn.GroupNorm(3, 3, affine=False)  # a scale for each sample
    a = group(x).reshape(2, 6, 2, 6)
    assert isinstance(a.variance, Deferred) and a.v.equal(group(x).v.reshape(2, 6, 2, 6))


def test_a_deferred_sum_is_what_it_would_have_been():
    x, y = gaussian(2, 3, 4, 4), gaussian(2, 3, 4, 4)
    total, before = x + y, x.v + y.v
    assert isinstance(total.variance, Deferred) and total.v.equal(before)
    again = copy.deepcopy(x.replace(x.mu, x.v.add_(0)) + y)
    assert isinstance(again.variance, Deferred) and again.v.equal(before)
    assert ((x + y) + x).v.allclose(before + x.v) and (x + x).v.equal(4 * x.v)


def test_a_variance_that_is_changed_in_place_is_refused():
    x = gaussian(2, 3, 4, 4)
    for use in (lambda y: y.v, F.relu):
        y = x + gaussian(2, 3, 4, 4)
        x.v.mul_(2)
        with pytest.raises(RuntimeError, match='changed in place'):
            use(y)


# ---- modes


def test_gradients_are_those_of_the_rule():
    found = []
    for compiled in (True, False):
        use_compiled_loops(compiled)
        x = gaussian(2, 3, 8, 8)
        x.mu.requires_grad_(), x.v.requires_grad_()
        out = F.max_pool2d(F.relu(x), 3, 2)
        found.append(torch.autograd.grad((out.mu * out.v).sum(), [x.mu, x.v]))
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-5) and b.abs().max() > 0.1


def test_transforms_of_torch_follow():
    x = gaussian(5, 2, 3, 4)
    a, b = both(lambda: torch.vmap(lambda m, v: F.relu(Gaussian(m, v)).v)(x.mu, x.v))
    assert torch.allclose(a, b, atol=1e-6)
    with torch.inference_mode():
        y = F.relu(gaussian(2, 3, 4, 4) + gaussian(2, 3, 4, 4))
    assert y.v.is_inference()


@pytest.mark.parametrize(
    'value, on', [(None, True), ('', True), ('1', True), ('0', False), (' OFF ', False), ('no', False)]
)
def test_the_environment_switches_them_off(value, on):
    assert wanted(value) == on


def test_the_switch_returns_what_was_before():
    assert use_compiled_loops(False) and not use_compiled_loops(True) and use_compiled_loops(True)
