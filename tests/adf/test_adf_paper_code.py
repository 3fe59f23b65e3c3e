"""Models written for the ADF paper's code run after changing the import alone."""

from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmrotate_plugin import adf
from mmrotate_plugin.adf import Gaussian


def keep(variance: Tensor) -> Tensor:
    return variance + 1e-3


# --- their models: blocks that are called with mean and variance -----------------------------------------------------


class TwoArguments(nn.Module):
    def __init__(self, channels, stride=1, keep_variance_fn=None):
        super().__init__()
        self.conv = adf.Conv2d(channels, channels, 3, stride, 1, 1, 1, False, keep_variance_fn)
        self.bn = adf.BatchNorm2d(channels, 1e-5, 0.1, True, True, keep_variance_fn)
        self.act = adf.LeakyReLU(0.1, keep_variance_fn)
        self.shortcut = adf.Sequential()
        if stride != 1:
            self.shortcut = adf.Sequential(adf.Conv2d(channels, channels, 1, stride, keep_variance_fn=keep_variance_fn))

    def forward(self, mean, variance):
        out = self.bn(*self.conv(mean, variance))
        shortcut = self.shortcut(mean, variance)
        return self.act(out[0] + shortcut[0], out[1] + shortcut[1])


class AnyArguments(nn.Module):
    def __init__(self, channels, keep_variance_fn=None):
        super().__init__()
        self.conv, self.drop = adf.Conv2d(channels, channels, 1), adf.Dropout(0.2, keep_variance_fn)
        self.act = adf.ReLU(keep_variance_fn)

    def forward(self, *inputs):
        x = self.act(*self.conv(*inputs))
        x = self.drop(*x)
        return [x[0], x[1]]


class Net(nn.Module):
    """A classifier as theirs, on images of 8 x 8."""

    def __init__(self, keep_variance_fn=keep):
        super().__init__()
        self.stem = adf.Conv2d(3, 8, kernel_size=3, padding=1, bias=False, keep_variance_fn=keep_variance_fn)
        self.layer = adf.Sequential(
            TwoArguments(8, 2, keep_variance_fn), AnyArguments(8, keep_variance_fn), TwoArguments(8)
        )
        self.pool, self.linear = adf.AvgPool2d(keep_variance_fn), adf.Linear(8, 5, True, keep_variance_fn)

    def forward(self, x):
        out = self.stem(x, torch.zeros_like(x) + 1e-2)
        out = self.pool(*self.layer(*out), 4)
        return self.linear(*(part.view(len(part), -1) for part in out))


def reference(net: Net, x: Tensor) -> tuple[Tensor, Tensor]:
    """The published formulas by torch alone, in float64."""
    cdf = lambda z: 0.5 * (1 + torch.erf(z / 2**0.5))  # noqa: E731
    pdf = lambda z: torch.exp(-z * z / 2) / (2 * torch.pi) ** 0.5  # noqa: E731

    def conv(layer, mean, var):
        args = layer.stride, layer.padding
        return F.conv2d(mean, layer.weight, layer.bias, *args), F.conv2d(var, layer.weight**2, None, *args)

    def relus(mean, var):
        z = mean / var.sqrt()
        up = mean * cdf(z) + var.sqrt() * pdf(z)
        down = var.sqrt() * pdf(z) - mean * cdf(-z)
        v_up = (mean**2 + var) * cdf(z) + mean * var.sqrt() * pdf(z) - up**2
        v_down = (mean**2 + var) * cdf(-z) - mean * var.sqrt() * pdf(z) - down**2
        return up, v_up, down, v_down

    def block(layer, mean, var, kept):
        y, v = conv(layer.conv, mean, var)
        bn, v = layer.bn, kept(v)
        y = F.batch_norm(y, bn.running_mean, bn.running_var, bn.weight, bn.bias, False, 0, bn.eps)
        v = kept(v * bn.weight.view(1, -1, 1, 1) ** 2)  # where the running variance and eps add up to 1
        for short in layer.shortcut:
            mean, var = conv(short, mean, var)
            var = kept(var)
        up, v_up, down, v_down = relus(y + mean, v + var)
        return up - 0.1 * down, kept(v_up + 0.01 * v_down + 0.2 * up * down)

    mean, var = conv(net.stem, x, torch.zeros_like(x) + 1e-2)
    mean, var = block(net.layer[0], mean, keep(var), keep)
    mean, var = relus(*conv(net.layer[1].conv, mean, var))[:2]
    mean, var = block(net.layer[2], mean, keep(keep(var)), lambda v: v)
    mean, var = F.avg_pool2d(mean, 4).flatten(1), keep(F.avg_pool2d(var, 4) / 16).flatten(1)
    return F.linear(mean, net.linear.weight, net.linear.bias), keep(F.linear(var, net.linear.weight**2))


@torch.no_grad()
def test_a_model_of_theirs_runs_and_equals_their_formulas():
    torch.manual_seed(0)
    net = Net().double().eval()
    for module in net.modules():
        if isinstance(module, adf.BatchNorm2d):
            module.running_var.fill_(1 - module.eps)
            nn.init.normal_(module.running_mean), nn.init.uniform_(module.weight), nn.init.normal_(module.bias)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    out, expected = net(x), reference(net, x)
    assert isinstance(out, tuple)
    for ours, theirs in zip(out, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    without = Net(None).double().eval()  # the control: the function counts
    without.load_state_dict(net.state_dict())
    assert (without(x)[1] < 0.99 * out[1]).all()


@torch.no_grad()
def test_such_blocks_take_gaussians_too():
    torch.manual_seed(0)
    layer = Net().eval().layer
    x = Gaussian(torch.randn(2, 8, 8, 8), torch.rand(2, 8, 8, 8), min_variance=1e-4)
    mean, var = layer(x.mean, x.var)
    out = layer(x)
    assert torch.equal(out.mean, mean) and out.min_variance == 1e-4
    torch.testing.assert_close(out.var, var)
    named = adf.Sequential(OrderedDict(first=layer[0], last=layer[1]))
    torch.testing.assert_close(named(mean, var)[0], layer[1](*layer[0](mean, var))[0])
    by_torch = nn.Sequential(adf.ReLU(), adf.Conv2d(8, 2, 1))  # hands a tuple on
    assert by_torch((mean, var))[1].shape == (2, 2, 4, 4)


class Wrong(nn.Module):
    def forward(self, mean, var):
        return mean, var, mean


def test_what_a_block_must_return():
    mean, var = torch.zeros(1, 2), torch.ones(1, 2)
    with pytest.raises(TypeError, match=r'module 1 \(Wrong\) must return mean and variance, not a tuple of 3'):
        adf.Sequential(adf.ReLU(), Wrong())(mean, var)


# --- their signatures, place by place --------------------------------------------------------------------------------

THEIRS = {  # their arguments up to and behind keep_variance_fn, and the same by name
    'AvgPool2d': ((keep,), {}),
    'Softmax': ((1, keep), dict(dim=1)),
    'ReLU': ((keep,), {}),
    'LeakyReLU': ((0.2, keep), dict(negative_slope=0.2)),
    'Dropout': ((0.2, keep, True), dict(p=0.2, inplace=True)),
    'MaxPool2d': ((keep,), {}),
    'Linear': ((3, 4, False, keep), dict(in_features=3, out_features=4, bias=False)),
    'BatchNorm2d': ((3, 1e-3, 0.2, False, True, keep), dict(num_features=3, eps=1e-3, momentum=0.2, affine=False)),
    'Conv2d': (
        (3, 6, 3, 2, 1, 1, 3, False, keep, 'reflect'),
        dict(in_channels=3, out_channels=6, kernel_size=3, stride=2, padding=1, groups=3, bias=False,
             padding_mode='reflect'),
    ),
    'ConvTranspose2d': (
        (3, 6, 3, 2, 1, 1, 3, False, 1, keep, 'zeros'),
        dict(in_channels=3, out_channels=6, kernel_size=3, stride=2, padding=1, output_padding=1, groups=3, bias=False),
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', THEIRS)
def test_each_place_of_their_signature(name):
    args, options = THEIRS[name]
    place = args.index(keep)
    layer, named = getattr(adf, name)(*args), getattr(adf, name)(**options, keep_variance_fn=keep)
    assert layer.keep_variance_fn is named.keep_variance_fn is keep
    assert repr(layer) == repr(named) and list(layer.state_dict()) == list(named.state_dict())
    assert getattr(adf, name)(*args[:place], None, *args[place + 1 :]).keep_variance_fn is None
    with pytest.raises(TypeError, match=f'{name} got keep_variance_fn twice: at place {place + 1} and by name'):
        getattr(adf, name)(*args, keep_variance_fn=keep)
    with pytest.raises(ValueError, match='give one of keep_variance_fn and min_variance=0.1'):
        getattr(adf, name)(*args, min_variance=0.1)


@pytest.mark.parametrize('name, args, place', [
    ('ReLU', (False, keep), 2), ('LeakyReLU', (keep,), 1), ('Dropout', (keep,), 1), ('Softmax', (keep,), 1),
    ('Conv2d', (3, 4, 3, keep), 4), ('Linear', (3, 4, keep), 3), ('MaxPool2d', (2, keep), 2),
    ('Linear', (3, 4, True, keep, keep), 5),
])  # fmt: skip
def test_a_function_elsewhere_is_refused(name, args, place):
    with pytest.raises(TypeError, match=f'{name} got a function at place {place}: .*place .*keep_variance_fn='):
        getattr(adf, name)(*args)


def test_torchs_own_places_stay():
    assert adf.ReLU(True).inplace and adf.LeakyReLU(0.2, True).inplace and adf.Dropout(0.2, True).inplace
    assert adf.MaxPool2d(3, 2, 1).stride == 2 and adf.MaxPool2d().kernel_size == 2 and adf.AvgPool2d(3, 2).stride == 2
    assert adf.Linear(3, 4, True, None, torch.float64).weight.dtype == torch.float64
    assert adf.BatchNorm2d(3, 1e-5, 0.1, True, True, 'meta').weight.is_meta
    assert adf.Conv2d(3, 4, 3, 1, 1, 1, 1, True, 'circular').padding_mode == 'circular'
    assert adf.Softmax().dim == 1


def test_their_calls():
    mean, var = torch.randn(1, 3, 5, 5), torch.rand(1, 3, 5, 5)
    assert adf.ConvTranspose2d(3, 4, 3, 2, 1)(mean, var, (10, 10))[1].shape[-2:] == (10, 10)
    with pytest.raises(TypeError, match='eps=1e-05 has no effect here.*leave it out'):
        adf.Softmax()(mean, var, 1e-5)


def test_maps_are_joined_at_one_size():
    same, large, small = ((torch.randn(1, 2, n, n), torch.rand(1, 2, n, n)) for n in (4, 8, 2))
    mean, var = adf.concatenate_as((same, large, small), same, dim=1)
    assert mean.shape == var.shape == (1, 6, 4, 4)
    assert torch.equal(var[:, :2], same[1])
    torch.testing.assert_close(var[:, 2:4], F.avg_pool2d(large[1], 2) / 4)
    expected = F.interpolate(Gaussian(*small), (4, 4), mode='bilinear')
    torch.testing.assert_close((mean[:, 4:], var[:, 4:]), (expected.mean.clone(), expected.var.clone()))
    assert isinstance(adf.concatenate_as([Gaussian(*same), same], same, 1), Gaussian)
