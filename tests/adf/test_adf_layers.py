import pickle
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmrotate_plugin import adf
from mmrotate_plugin.adf import Gaussian
from mmrotate_plugin.testing import randomize_norms_

LAYERS = {
    'Conv2d': (lambda m, **k: m.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, **k), (2, 4, 9, 8)),
    'ConvTranspose2d': (lambda m, **k: m.ConvTranspose2d(4, 6, 3, stride=2, padding=1, **k), (2, 4, 5, 6)),
    'BatchNorm2d': (lambda m, **k: m.BatchNorm2d(4, **k), (2, 4, 5, 6)),
    'ReLU': (lambda m, **k: m.ReLU(**k), (2, 4, 5, 6)),
    'LeakyReLU': (lambda m, **k: m.LeakyReLU(0.2, **k), (2, 4, 5, 6)),
    'MaxPool2d': (lambda m, **k: m.MaxPool2d(3, 2, 1, **k), (2, 4, 7, 6)),
    'AvgPool2d': (lambda m, **k: m.AvgPool2d(3, 2, 1, **k), (2, 4, 7, 6)),
    'Linear': (lambda m, **k: m.Linear(7, 5, **k), (3, 7)),
    'Softmax': (lambda m, **k: m.Softmax(dim=1, **k), (3, 7)),
}
everything = pytest.mark.parametrize('name', LAYERS)
double = partial(torch.mul, other=2)


def moments(shape):
    return torch.randn(shape), torch.rand(shape) + 0.1


@everything
def test_keys_are_torchs_and_without_noise_so_is_the_function(name):
    make, shape = LAYERS[name]
    ours, theirs = make(adf).eval(), randomize_norms_(make(nn)).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(shape)
    mean, var = ours(x, torch.zeros(shape))
    torch.testing.assert_close(mean, theirs(x))
    assert var.shape == mean.shape and not var.any()


@everything
def test_pairs_and_gaussians_and_torchs_layer_give_the_same(name):
    make, shape = LAYERS[name]
    ours, theirs = make(adf).eval(), make(nn).eval()
    theirs.load_state_dict(ours.state_dict())
    mean, var = moments(shape)
    pair = ours(mean, var)
    gaussian = ours(Gaussian(mean, var))
    by_torch = theirs(Gaussian(mean, var))
    assert isinstance(pair, tuple) and isinstance(gaussian, Gaussian)
    for other in (gaussian, by_torch):
        assert torch.equal(pair[0], other.mean) and torch.equal(pair[1], other.var)
    assert (pair[1] > 0).all()


@everything
def test_the_variance_is_kept(name):
    make, shape = LAYERS[name]
    layer = make(adf).eval()
    floored, doubled = make(adf, min_variance=0.3).eval(), make(adf, keep_variance_fn=double).eval()
    for other in (floored, doubled):
        other.load_state_dict(layer.state_dict())
        pickle.dumps(other)
    mean, var = layer(*moments(shape))
    for other, expected in ((floored, var.clamp(min=0.3)), (doubled, 2 * var)):
        torch.manual_seed(1)
        x = moments(shape)
        mean, var = layer(*x)
        kept = other(*x)
        expected = var.clamp(min=0.3) if other is floored else 2 * var
        assert torch.equal(kept[0], mean) and torch.equal(kept[1], expected)
        assert not torch.equal(kept[1], var)
        g = other(Gaussian(*x, 0.05, plain_mean=True))
        assert (g.min_variance, g.plain_mean) == (0.05, True), "the layer's floor ends with the layer"


def test_dropout_drops_channels_with_their_variance():
    layer = adf.Dropout(0.5)
    mean, var = moments((4, 8, 5, 5))
    out, out_var = layer(mean, var)
    dropped = (out == 0).flatten(2).all(2)
    assert 0 < dropped.sum() < dropped.numel()
    assert torch.equal(dropped, (out_var == 0).flatten(2).all(2))
    torch.testing.assert_close(out[~dropped], 2 * mean[~dropped])
    torch.testing.assert_close(out_var[~dropped], 4 * var[~dropped])
    assert all(torch.equal(a, b) for a, b in zip(layer.eval()(mean, var), (mean, var), strict=True))


def test_the_papers_calls():
    mean, var = moments((2, 3, 8, 8))
    out, out_var = adf.AvgPool2d(keep_variance_fn=double)(mean, var, 4)
    torch.testing.assert_close(out, F.avg_pool2d(mean, 4))
    torch.testing.assert_close(out_var, 2 * F.avg_pool2d(var, 4) / 16)
    assert adf.MaxPool2d()(mean, var)[0].shape == (2, 3, 4, 4)
    torch.testing.assert_close(adf.Softmax()(mean, var)[0].sum(1), torch.ones(2, 8, 8))
    with pytest.raises(ValueError, match='give kernel_size once: it is None of the layer, None of the call'):
        adf.AvgPool2d()(mean, var)
    with pytest.raises(ValueError, match='give kernel_size once: it is 2 of the layer, 4 of the call'):
        adf.AvgPool2d(2)(mean, var, 4)


def test_an_output_size_reaches_the_transposed_convolution():
    layer = adf.ConvTranspose2d(3, 4, 3, stride=2, padding=1)
    mean, var = moments((1, 3, 5, 5))
    assert layer(mean, var)[1].shape[-2:] == (9, 9)
    assert layer(mean, var, output_size=(10, 10))[1].shape[-2:] == (10, 10)


def test_sequential_takes_any_layers_and_slices():
    net = adf.Sequential(adf.Conv2d(3, 4, 3), nn.GELU(), adf.Sequential(nn.BatchNorm2d(4), adf.ReLU()))
    mean, var = moments((2, 3, 6, 6))
    a, b = net(mean, var)
    g = net(Gaussian(mean, var))
    assert torch.equal(a, g.mean) and torch.equal(b, g.var)
    assert isinstance(net[:2], adf.Sequential) and len(net[:2]) == 2
    theirs = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()))
    assert list(net.state_dict()) == list(theirs.state_dict())
    assert adf.Sequential()(mean, var) == (mean, var)


def test_bad_arguments_are_named():
    mean, var = moments((2, 3, 4, 4))
    for bad in (-1.0, float('nan'), float('inf')):
        with pytest.raises(ValueError, match=f'min_variance={bad} must be finite and non-negative'):
            adf.ReLU(min_variance=bad)
    with pytest.raises(ValueError, match='give one of keep_variance_fn and min_variance=0.1'):
        adf.ReLU(keep_variance_fn=double, min_variance=0.1)
    with pytest.raises(TypeError, match='give a mean and a variance, or a Gaussian, not Tensor alone'):
        adf.ReLU()(mean)
    with pytest.raises(TypeError, match='give a mean and a variance, or a Gaussian, not tuple alone'):
        adf.ReLU()((mean, var, var))
    with pytest.raises(TypeError, match='a Gaussian has its variance'):
        adf.ReLU()(Gaussian(mean, var), var)
    with pytest.raises(ValueError, match=r'mean and var must have one shape.*\(2, 3, 4, 4\) and \(2, 3, 4\)'):
        adf.ReLU()(mean, var[..., 0])


# --- means of the plain network -------------------------------------------------------------------------------------

PLAIN = {
    'conv': lambda x: F.conv2d(x, torch.ones(5, 4, 3, 3), padding=1),
    'batch norm, training': lambda x: F.batch_norm(x, None, None, torch.full((4,), 0.5), None, True),
    'group norm': lambda x: F.group_norm(x, 2, torch.full((4,), 0.5)),
    'layer norm': lambda x: F.layer_norm(x, [6, 6], torch.full((6, 6), 0.5)),
    'instance norm': lambda x: F.instance_norm(x),
    'relu, in place': lambda x: F.relu(x, inplace=True),
    'relu_': lambda x: x.relu_(),
    'max pool': lambda x: F.max_pool2d(x, 3, 2, 1),
    'average pool': lambda x: F.avg_pool2d(x, 3, 2, 1),
    'bilinear': lambda x: F.interpolate(x, scale_factor=2.0, mode='bilinear'),
    'pad': lambda x: F.pad(x, (1, 1, 2, 0), mode='reflect'),
    'product': lambda x: x * x,
    'softmax': lambda x: F.softmax(x, dim=1),
    'mean': lambda x: torch.mean(x, (2, 3)),
    'cat': lambda x: torch.cat([x, torch.ones(2, 1, 6, 6), F.gelu(x)], 1),
    'chunks': lambda x: torch.sigmoid(x).chunk(2, 1)[1],
}


@pytest.mark.parametrize('function', PLAIN.values(), ids=PLAIN)
def test_plain_means_are_those_of_the_plain_function(function):
    mean, var = moments((2, 4, 6, 6))
    kept = mean.clone()
    out = function(Gaussian(mean, var, plain_mean=True))
    assert torch.equal(mean, kept), 'nothing is changed in place'
    assert out.plain_mean and not function(Gaussian(mean, var)).plain_mean
    assert torch.equal(out.mean, function(mean))
    assert (out.var > 0).any()


def test_moment_matched_means_are_others():
    mean, var = moments((2, 4, 6, 6))
    for name in ('relu_', 'max pool', 'product', 'softmax', 'batch norm, training'):
        out = PLAIN[name](Gaussian(mean, var))
        assert (out.mean - PLAIN[name](mean.clone())).abs().max() > 0.01, name


def test_plain_batch_norm_learns_the_plain_statistics_once():
    plain, noisy = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
    mean, var = moments((8, 4, 6, 6))
    expected = plain(mean)
    out = noisy(Gaussian(mean, var, plain_mean=True))
    assert torch.equal(out.mean, expected)
    assert all(torch.equal(a, b) for a, b in zip(plain.buffers(), noisy.buffers(), strict=True))
    # the map is affine: its slope is that of the plain function
    spread = mean.double().var((0, 2, 3), unbiased=False, keepdim=True)
    torch.testing.assert_close(out.var.double(), var / (spread + 1e-5), rtol=1e-5, atol=0)


@pytest.mark.parametrize('name', ['group norm', 'layer norm', 'instance norm'])
def test_the_variance_of_plain_norms_has_their_slope(name):
    x = torch.randn(1, 4, 6, 6, dtype=torch.float64)
    function = lambda x: PLAIN[name](x) if x.dtype == torch.float32 else None  # noqa: E731
    scale = PLAIN[name](Gaussian(x.float(), torch.ones(1, 4, 6, 6), plain_mean=True)).var.sqrt()
    # differences of outputs over differences of inputs, within a channel
    y = function(x.float())
    slope = (y[..., 0, 0] - y[..., 3, 3]) / (x[..., 0, 0] - x[..., 3, 3])
    torch.testing.assert_close(scale[..., 0, 0], slope.abs().float(), rtol=1e-3, atol=1e-5)


def test_dropout_draws_one_mask_for_both():
    mean, var = moments((4, 16, 3, 3))
    torch.manual_seed(1)
    out = F.dropout2d(Gaussian(mean, var, plain_mean=True), 0.5)
    torch.manual_seed(1)
    assert torch.equal(out.mean, F.dropout2d(mean, 0.5))
    assert torch.equal(out.mean == 0, out.var == 0)


def test_gradients_flow_through_plain_means():
    mean, var = (t.requires_grad_() for t in moments((2, 4, 6, 6)))
    out = F.max_pool2d(F.relu(Gaussian(mean, var, plain_mean=True), inplace=True), 3, 2, 1)
    expected = torch.autograd.grad(F.max_pool2d(F.relu(mean), 3, 2, 1).sum(), mean)[0]
    assert torch.equal(torch.autograd.grad(out.mean.sum(), mean, retain_graph=True)[0], expected)
    by_mean, by_var = torch.autograd.grad(out.var.sum(), (mean, var))
    assert by_mean.isfinite().all() and by_var.isfinite().all() and by_var.any()
