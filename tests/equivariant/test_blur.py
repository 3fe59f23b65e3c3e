import copy
import pickle

import e2cnn.nn as enn
import pytest
import torch
import torch.nn.functional as F
from mmcv.cnn import build_upsample_layer
from mmengine.registry import MODELS as ROOT
from torch import nn

from mmrotate_plugin.adf import Gaussian
from mmrotate_plugin.equivariant import (
    build_enn_feature,
    ennBlurPool,
    ennBlurUpsample,
    ennConv,
    ennMaxBlurPool,
    export,
)
from mmrotate_plugin.testing import act_on_regular, disc, relative_error, rotate

EQUAL = 1e-6  # relative, float32: 8 units in the last place
X = torch.randn(2, 16, 13, 13, generator=torch.Generator().manual_seed(0))
LAYERS = [
    ennBlurPool(),
    ennBlurPool(0.5, 1),
    ennBlurPool(1.0, 2, kernel_size=5, count_include_pad=True),
    ennMaxBlurPool(3, 2, 1),
    ennMaxBlurPool(5, 3, 2, sigma=0.4),
    ennBlurUpsample(),
    ennBlurUpsample(1.5, 3),
]


def e2cnn(kind, *arguments, **options):
    field = build_enn_feature(2, 'C8')
    layer = kind(field, *arguments, **options)
    return lambda x: layer(enn.GeometricTensor(x, field)).tensor


@pytest.mark.parametrize('sigma, stride', [(1.0, 2), (0.6, 2), (0.5, 1), (1.3, 3)])
@pytest.mark.parametrize('padding', [None, 0, 1])
def test_blur_equals_e2cnn(sigma, stride, padding):
    layer = ennBlurPool(sigma, stride, padding=padding, count_include_pad=True)
    assert relative_error(layer(X), e2cnn(enn.PointwiseAvgPoolAntialiased, sigma, stride, padding)(X)) < EQUAL
    inside = ennBlurPool(sigma, stride, padding=padding)(X)
    assert (relative_error(inside, layer(X)) < EQUAL) == (padding == 0), 'they differ at the border alone'
    cut = (..., slice(3, -3), slice(3, -3)) if stride == 1 else (..., slice(2, -2), slice(2, -2))
    assert relative_error(inside[cut], layer(X)[cut]) < EQUAL


@pytest.mark.parametrize('kernel_size, stride, sigma', [(3, 2, 0.6), (3, 1, 1.0), (5, 3, 0.4), (2 + 1, None, 0.6)])
def test_max_equals_e2cnn(kernel_size, stride, sigma):
    layer = ennMaxBlurPool(kernel_size, stride, sigma=sigma, count_include_pad=True)
    reference = e2cnn(enn.PointwiseMaxPoolAntialiased, kernel_size, stride, sigma=sigma)
    assert relative_error(layer(X), reference(X)) < EQUAL
    # e2cnn pads the maxima by `padding` as well; ours has the size of an ordinary max pooling
    half = kernel_size // 2
    padded = ennMaxBlurPool(kernel_size, stride, half, sigma, count_include_pad=True)(X)
    assert relative_error(padded, reference(F.pad(X, [half] * 4, value=-1e9))) < EQUAL
    assert padded.shape == F.max_pool2d(X, kernel_size, stride, half).shape


@pytest.mark.parametrize('layer', LAYERS, ids=str)
def test_quarter_turns_are_exact(layer):
    expected = act_on_regular(layer(X), 'C8', 1)
    assert relative_error(layer(act_on_regular(X, 'C8', 1)), expected) < EQUAL
    assert relative_error(layer(X), expected) > 0.1


def test_an_even_size_fails_that_check():
    layer, x = ennBlurPool(), X[..., :12, :12]
    assert relative_error(layer(x.rot90(1, (2, 3))), layer(x).rot90(1, (2, 3))) > 0.1


@pytest.mark.parametrize('layer', LAYERS, ids=str)
def test_sizes_centre_and_constants(layer):
    up = isinstance(layer, ennBlurUpsample)
    for m in (4, 5, 6):
        small, large = m + 1, layer.stride * m + 1
        given, made = (small, large) if up else (large, small)
        x = torch.ones(1, 8, given, given)
        assert layer(x).shape == (1, 8, made, made)
        constant = torch.allclose(layer(x), torch.ones(()), atol=1e-6)
        assert constant != getattr(layer, 'count_include_pad', False), 'zeros of the padding darken the border'
        x = torch.zeros(1, 1, given, given)
        if given % 2:  # a spot at the centre stays there
            x[..., given // 2, given // 2] = 1
            out = layer(x)[0, 0]
            assert (out - out.flip(0)).abs().max() < 1e-6 and (out - out.flip(1)).abs().max() < 1e-6
            assert out.argmax() == made * made // 2 or made % 2 == 0


def waves(size, angle, period, channels=8):
    """A grating of one period, drawn at an angle: no interpolation."""
    at = torch.arange(size) - (size - 1) / 2
    y, x = torch.meshgrid(at, at, indexing='ij')
    phase = torch.arange(channels).view(-1, 1, 1)
    t = torch.deg2rad(torch.tensor(float(angle)))
    along = x * t.cos() - y * t.sin()
    return torch.sin(2 * torch.pi * along / period + phase)[None]


def test_fine_waves_fade_instead_of_turning_into_coarse_ones():
    """A period of 2.5 pixels cannot be held at half of the pixels: what a plain stride makes of it is another wave."""
    x, coarse = waves(65, 20, 2.5), waves(65, 20, 16.0)
    blur = ennBlurPool(1.0, 2)
    assert blur(x)[..., 4:-4, 4:-4].std() < 0.06 * x.std() < 0.9 * x.std() < x[..., ::2, ::2].std()
    assert blur(coarse).std() > 0.8 * coarse.std()


@pytest.mark.parametrize('angle', [15, 45])
def test_error_of_a_stride_at_any_angle(angle):
    """Turn noise that the full map holds well, and compare with the turned output: strides of noise alias."""
    generator = torch.Generator().manual_seed(0)
    noise = ennBlurPool(0.7, 1)(torch.randn(4, 4, 129, 129, generator=generator))
    turned = rotate(noise, angle)

    def error(layer):
        inside = disc((65, 65), 0.7)
        return relative_error(layer(turned) * inside, rotate(layer(noise), angle) * inside)

    assert error(ennBlurPool(1.2, 2)) < 0.25 < 0.5 < error(nn.AvgPool2d(1, 2))
    assert error(ennMaxBlurPool(3, 2, 1, sigma=1.2)) < 0.75 * error(nn.MaxPool2d(3, 2, 1))


@pytest.mark.parametrize('angle', [15, 45])
def test_error_of_a_larger_map_at_any_angle(angle):
    coarse, turned = waves(33, 0, 6.0), waves(33, angle, 6.0)
    inside = disc((65, 65), 0.8)
    expected = waves(65, angle, 12.0)

    def error(up):
        gain = (up(coarse) * inside * waves(65, 0, 12.0)).sum() / (inside * waves(65, 0, 12.0).square()).sum()
        return relative_error(up(turned) * inside, gain * expected * inside)

    assert error(ennBlurUpsample(1.0)) < 0.05
    assert error(nn.Upsample(size=65, mode='nearest')) > 0.2


@pytest.mark.parametrize('layer', LAYERS, ids=str)
def test_gradients(layer):
    x = torch.randn(1, 2, 7, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, x)
    assert torch.autograd.gradgradcheck(layer, x)


@pytest.mark.parametrize('layer', LAYERS, ids=str)
def test_modes_of_torch(layer):
    expected = layer(X)
    with torch.autocast('cpu', torch.bfloat16):
        assert relative_error(layer(X).float(), expected) < 0.01
    for dtype in (torch.bfloat16, torch.float64):
        out = copy.deepcopy(layer).to(dtype)(X.to(dtype))
        assert out.dtype == dtype and relative_error(out.float(), expected) < 0.01
    assert relative_error(layer(X.to(memory_format=torch.channels_last)), expected) < EQUAL
    assert layer(X[:0]).shape == expected[:0].shape
    assert relative_error(torch.func.vmap(lambda x: layer(x[None])[0])(X), expected) < EQUAL
    assert relative_error(torch.jit.trace(layer, X)(X.flip(1)), expected.flip(1)) < EQUAL


@pytest.mark.needs_torch('2.1', 'torch.export')
@pytest.mark.parametrize('layer', [LAYERS[0], LAYERS[3], LAYERS[5]], ids=str)
def test_exported_by_torch(layer):
    assert relative_error(torch.export.export(layer, (X,)).module()(X), layer(X)) < EQUAL


@pytest.mark.needs_torch('2.1', 'torch.compile for Python 3.11')
@pytest.mark.parametrize('layer', [LAYERS[0], LAYERS[3], LAYERS[5]], ids=str)
def test_compiled(layer):
    torch._dynamo.reset()
    assert relative_error(torch.compile(layer, backend='eager', fullgraph=True)(X), layer(X)) < EQUAL


@pytest.mark.parametrize('layer', LAYERS, ids=str)
def test_state_copies_and_export(layer):
    assert not layer.state_dict() and len(pickle.dumps(layer)) < 2000
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert twin.constant is layer.constant and torch.equal(twin(X), layer(X))
    net = nn.Sequential(ennConv(16, 16, 3), layer).eval()
    assert relative_error(export(net)(X), net(X)) < EQUAL and type(export(net)[1]) is type(layer)


@pytest.mark.parametrize('layer', [LAYERS[0], LAYERS[2], LAYERS[5]], ids=str)
def test_moments_of_independent_pixels(layer):
    """Squared weights, by the derivative of the layer: it is linear."""
    mean, var = X[:1, :2], X[1:, :2].square()
    out = layer(Gaussian(mean, var))
    jacobian = torch.autograd.functional.jacobian(layer, mean.double()).reshape(out.numel(), mean.numel())
    assert relative_error(out.mean, layer(mean)) < EQUAL
    assert relative_error(out.var.flatten(), jacobian.square() @ var.double().flatten()) < EQUAL


def test_moments_pass_the_maximum_too():
    out = ennMaxBlurPool(3, 2, 1)(Gaussian(X, torch.full_like(X, 0.1)))
    excess = out.mean - ennMaxBlurPool(3, 2, 1)(X)
    assert out.mean.shape == (2, 16, 7, 7) and (out.var > 0).all()
    assert excess.min() > -1e-6 and (excess > 1e-3).float().mean() > 0.9  # none where one value is far above


def test_size_of_a_larger_map_can_be_asked_for():
    up = ennBlurUpsample()
    assert up(X).shape[-2:] == (25, 25) and up(X, (26, 25)).shape[-2:] == (26, 25)
    assert torch.allclose(up(X, (26, 25))[..., :25, :], up(X), atol=1e-6)
    assert torch.allclose(up(torch.ones(1, 1, 4, 4), (8, 8)), torch.ones(1, 1, 8, 8), atol=1e-6)
    for size in ((24, 25), (27, 25)):
        with pytest.raises(ValueError, match=r'output_size=.*out of reach of \(13, 13\).*\(25, 25\), and up to 1 more'):
            up(X, size)


def test_configs_name_them():
    assert isinstance(ROOT.build(dict(type='mmrotate_plugin.ennBlurPool', sigma=0.8)), ennBlurPool)
    assert ROOT.build(dict(type='ennMaxBlurPool', kernel_size=3, stride=2, padding=1))(X).shape == (2, 16, 7, 7)
    assert build_upsample_layer(dict(type='ennBlurUpsample', scale_factor=2))(X).shape == (2, 16, 25, 25)


BAD = [
    (ennBlurPool, dict(sigma=0), 'sigma=0 must be'),
    (ennBlurPool, dict(sigma=0.1), 'sigma=0.1 blurs nothing.*use 0.2 or more'),
    (ennBlurPool, dict(stride=0), 'stride=0'),
    (ennBlurPool, dict(kernel_size=4), 'kernel_size=4 must be an odd'),
    (ennBlurPool, dict(padding=4), 'padding=4 must be at most 3'),
    (ennMaxBlurPool, dict(kernel_size=2), 'kernel_size=2 has no centre pixel'),
    (ennMaxBlurPool, dict(padding=2), 'padding=2 must be at most 1'),
    (ennMaxBlurPool, dict(sigma=0.1), 'use 0.15 or more'),
    (ennBlurUpsample, dict(scale_factor=1), 'scale_factor=1'),
    (ennBlurUpsample, dict(scale_factor=2.5), 'scale_factor=2.5'),
    (ennBlurUpsample, dict(scale_factor=5), 'leaves gaps at scale_factor=5.*kernel_size=9'),
]


@pytest.mark.parametrize('kind, bad, message', BAD, ids=[m for *_, m in BAD])
def test_bad_arguments_are_named(kind, bad, message):
    with pytest.raises(ValueError, match=message):
        kind(**bad)
