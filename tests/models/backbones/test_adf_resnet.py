import copy
import warnings

import pytest
import torch
import torchvision
from mmdet.models import ResNet as MMDetResNet
from torch import nn

from mmrotate_plugin.adf import Gaussian
from mmrotate_plugin.adf.gains import set_origin
from mmrotate_plugin.models import ADFResNet, ReResNet, ResNet
from mmrotate_plugin.testing import equivariance_error, randomize_norms_

IMAGE = torch.randn(2, 3, 65, 65, generator=torch.Generator().manual_seed(0))
NARROW = dict(base_channels=16, zero_init_residual=False)


def pair(depth=18, train=False, **options):
    """A plain ResNet and an ADFResNet of the same weights."""
    shared = {k: options.pop(k) for k in tuple(options) if k in ('avg_down', 'deep_stem', 'norm_cfg', 'with_cp')}
    torch.manual_seed(0)
    plain = randomize_norms_(ResNet(depth, **NARROW, **shared)).train(train)
    net = ADFResNet(depth, **NARROW, **shared, **options).train(train)
    net.load_state_dict(plain.state_dict())
    return plain, net


def test_checkpoints_of_torchvision_and_mmdet_load_strictly():
    theirs = {k: v for k, v in torchvision.models.resnet18().state_dict().items() if not k.startswith('fc.')}
    options = dict(noise_std=4.0, std=(58.4, 57.1, 57.4), min_variance=1e-6, dropout=0.1, output='gaussian')
    net = ADFResNet(18, **options)
    net.load_state_dict(theirs, strict=True)
    with torch.device('meta'):
        assert list(ADFResNet(50, **options).state_dict()) == list(MMDetResNet(50).state_dict())


SHAPES = [dict(depth=18), dict(depth=50), dict(depth=50, avg_down=True, deep_stem=True),
          dict(depth=18, norm_cfg=dict(type='GN', num_groups=4))]  # fmt: skip


@pytest.mark.parametrize('options', SHAPES, ids=str)
@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize('output', ['mean', 'gaussian'])
@torch.no_grad()
def test_plain_means_are_bit_equal(options, train, output):
    plain, net = pair(train=train, output=output, **options)
    outs = net(IMAGE)
    assert all(isinstance(y, Gaussian if output == 'gaussian' else torch.Tensor) for y in outs)
    for y, expected in zip(outs, plain(IMAGE), strict=True):
        mean = y.mean if output == 'gaussian' else y
        assert torch.equal(mean, expected)
        if output == 'gaussian':
            assert (y.var >= 0).all() and y.var.median() > 0 and y.var.isfinite().all()
    assert all(torch.equal(a, b) for a, b in zip(plain.buffers(), net.buffers(), strict=True))


@torch.no_grad()
def test_adf_means_are_others_and_no_variance_costs_nothing():
    plain, net = pair(mean='adf', noise_variance=0.1)
    expected = plain(IMAGE)
    for y, e in zip(net(IMAGE), expected, strict=True):
        assert isinstance(y, torch.Tensor) and (y - e).norm() > 0.005 * e.norm()
    for options in (dict(), dict(variance='none')):
        _, net = pair(**options)
        net._noisy = None  # would be called to make a Gaussian
        assert all(torch.equal(a, b) for a, b in zip(net(IMAGE), expected, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(net(Gaussian(IMAGE, IMAGE.square())), expected, strict=True))


@pytest.mark.parametrize('depth', [18, 50])
@pytest.mark.parametrize('mean', ['plain', 'adf'])
@torch.no_grad()
def test_without_noise_the_variance_is_zero_in_each_stage(depth, mean):
    plain, net = pair(depth, noise_variance=0, output='gaussian', mean=mean)
    for y, expected in zip(net(IMAGE), plain(IMAGE), strict=True):
        torch.testing.assert_close(y.mean, expected, rtol=1e-5, atol=1e-5)
        assert not y.var.any()


@torch.no_grad()
def test_the_cheaper_variance_is_near_and_its_means_are_plain():
    plain, net = pair(output='gaussian')
    _, cheaper = pair(output='gaussian', variance='rank1')
    near = cheaper(IMAGE)
    for y, other, mean in zip(net(IMAGE), near, plain(IMAGE), strict=True):
        assert other.rule == 'rank1' and y.rule == 'diagonal'
        assert torch.equal(other.mean, mean) and not torch.equal(other.var, y.var)
        assert 0.8 < (other.std / y.std)[y.std > 0].median() < 1.25
    given = net(Gaussian(IMAGE, torch.full_like(IMAGE, 1e-3), rule='rank1'))
    assert all(torch.equal(a.var, b.var) for a, b in zip(given, near, strict=True))


@torch.no_grad()
def test_noise_in_grey_levels_is_converted():
    std = (58.395, 57.12, 57.375)
    _, by_std = pair(noise_std=4.0, std=std, output='gaussian')
    _, by_variance = pair(noise_variance=[(4.0 / s) ** 2 for s in std], output='gaussian')
    _, per_channel = pair(noise_std=(4.0, 4.0, 4.0), std=std, output='gaussian')
    given = torch.tensor([(4.0 / s) ** 2 for s in std]).view(1, 3, 1, 1).expand_as(IMAGE)
    # a Gaussian is taken as it is: the network's noise is not added
    expected = by_std(Gaussian(IMAGE, given.contiguous()))
    for net in (by_std, by_variance, per_channel):
        assert all(torch.equal(a.var, b.var) for a, b in zip(net(IMAGE), expected, strict=True))
    _, other = pair(noise_std=(8.0, 4.0, 4.0), std=std, output='gaussian')
    assert not torch.allclose(other(IMAGE)[0].var, expected[0].var)


@torch.no_grad()
def test_the_floor_holds_everywhere_and_goes_on():
    _, net = pair(noise_variance=0, min_variance=0.01, output='gaussian')
    for y in net(IMAGE):
        assert y.min_variance == 0.01 and y.var.min() >= 0.01
    assert (net(Gaussian(IMAGE, torch.zeros_like(IMAGE), 0.5))[0].var >= 0.5).all()


@torch.no_grad()
def test_dropout_drops_whole_channels_after_each_block():
    _, net = pair(dropout=0.5, output='gaussian')
    assert sum(isinstance(m, nn.Dropout2d) for m in net.modules()) == 8
    assert torch.equal(net(IMAGE)[0].mean, net(IMAGE)[0].mean), 'not in eval mode'
    for module in net.modules():
        module.training = isinstance(module, nn.Dropout2d)
    y = net(IMAGE)[3]
    dropped = (y.var == 0).flatten(2).all(2)
    assert 0.2 < dropped.float().mean() < 0.8
    assert not y.mean[dropped].any()


@pytest.mark.parametrize('mean', ['plain', 'adf'])
@pytest.mark.parametrize('with_cp', [False, True])
def test_training_has_finite_gradients(mean, with_cp):
    _, net = pair(50, train=True, mean=mean, output='gaussian', with_cp=with_cp, dropout=0.1)
    torch.manual_seed(0)
    loss = sum(y.mean.square().mean() + y.var.add(1e-3).log().mean() for y in net(IMAGE))
    loss.backward()
    assert not [n for n, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert net.conv1.weight.grad.any()


@pytest.mark.parametrize('mean', ['plain', 'adf'])
def test_recomputed_blocks_give_the_same_gradients(mean):
    results = []
    for with_cp in (False, True):
        _, net = pair(train=True, mean=mean, output='gaussian', with_cp=with_cp)
        sum(y.mean.mean() + y.var.mean() for y in net(IMAGE)).backward()
        results.append(([p.grad for p in net.parameters()], list(net.buffers())))
    (grads, buffers), (grads_cp, buffers_cp) = results
    for a, b in zip(grads, grads_cp, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(buffers, buffers_cp, strict=True)), 'each batch counts once'


def test_copies_and_half_types():
    _, net = pair(output='gaussian', noise_variance=(1e-3, 2e-3, 3e-3))
    with torch.no_grad():
        expected = net(IMAGE)[-1]
        assert torch.equal(copy.deepcopy(net)(IMAGE)[-1].var, expected.var)
        half = net.bfloat16()(IMAGE.bfloat16())[-1]
    assert half.dtype == torch.bfloat16 and half.var.isfinite().all() and (half.var >= 0).all()


# --- over Monte Carlo, and with the group ----------------------------------------------------------------------------


@torch.no_grad()
def calibrated(depth, **options):
    """At initialisation, with the running statistics of noise, in eval mode."""
    net = ADFResNet(depth, base_channels=16, zero_init_residual=False, output='gaussian', **options)
    net.init_weights()
    for module in net.train().modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    for _ in range(4):
        ResNet.forward(net, torch.randn(8, 3, 64, 64))
    return net.eval()


@torch.no_grad()
def test_the_variance_is_that_of_samples_at_initialisation():
    net = calibrated(18, noise_variance=0.01, mean='adf')
    x = torch.randn(1, 3, 64, 64)
    samples = [ResNet.forward(net, x + 0.1 * torch.randn(32, 3, 64, 64)) for _ in range(4)]
    for i, y in enumerate(net(x)):
        true = torch.cat([s[i] for s in samples]).std(0)
        ratio = (y.std[0] / true)[true > 0.01 * true.mean()].median()
        # 128 samples: each deviation is known to 6 %, their median to far less
        assert 0.9 < ratio < 1.06, (i, ratio)


@pytest.mark.parametrize('group, flip', [('C8', False), ('D4', True)])
@pytest.mark.parametrize('options', [dict(), dict(avg_down=True, deep_stem=True)], ids=str)
@pytest.mark.parametrize('plain_mean', [True, False])
def test_reresnets_moments_commute_with_quarter_turns(group, flip, options, plain_mean):
    net = randomize_norms_(ReResNet(18, group, base_channels=16, zero_init_residual=False, **options)).eval()
    for moment in ('mean', 'var'):

        def moments(x, moment=moment):
            noise = 0.01 + 0.1 * x.square()
            return [getattr(y, moment) for y in net(Gaussian(x, noise, plain_mean=plain_mean))]

        found = equivariance_error(moments, IMAGE, group, quarter_turns=1, flip=flip)
        assert max(found.error) < 1e-4, moment
        assert min(found.change) > 0.01, moment


def test_a_plain_networks_variance_does_not_commute():
    _, net = pair(output='gaussian')
    found = equivariance_error(lambda x: [y.var for y in net(x)], IMAGE, 'C8')
    assert min(found.error) > 0.1


BAD = [
    (dict(noise_variance=-0.1), ValueError, 'noise_variance=-0.1 must be finite and non-negative'),
    (dict(noise_variance=float('nan')), ValueError, 'noise_variance=nan must be finite'),
    (dict(noise_variance=(0.1, 0.1)), ValueError, 'has 2 values.*each of 3 channels'),
    (dict(noise_variance=(0.1, 0.1, 0.1), in_channels=1), ValueError, 'has 3 values.*each of 1 channels'),
    (dict(noise_variance='much'), TypeError, "noise_variance='much' must be float"),
    (dict(noise_variance=0.1, noise_std=2, std=(1, 1, 1)), ValueError, 'noise_variance=0.1 and noise_std=2, not both'),
    (dict(noise_std=2), ValueError, 'noise_std=2 is in grey levels: give std too'),
    (dict(std=(1, 1, 1)), ValueError, r'std=\(1, 1, 1\) converts noise_std'),
    (dict(noise_std=-2, std=(1, 1, 1)), ValueError, 'noise_std=-2 must be finite and non-negative'),
    (dict(noise_std=2, std=(1, 0, 1)), ValueError, r'std=\(1, 0, 1\) finite and positive'),
    (dict(noise_std=(2, 2), std=(1, 1, 1)), ValueError, r'noise_std=\(2, 2\).*each of 3 channels'),
    (dict(min_variance=-1), ValueError, 'min_variance=-1'),
    (dict(min_variance=float('nan')), ValueError, 'min_variance=nan'),
    (dict(dropout=1.0), ValueError, 'dropout=1.0 must be a probability'),
    (dict(mean='noisy'), ValueError, "mean='noisy' is unknown: use one of 'plain', 'adf'"),
    (
        dict(variance='full'),
        ValueError,
        "variance='full' is unknown: use one of 'diagonal', 'bfloat16', 'rank1', 'delta', 'none'",
    ),
    (dict(output='both'), ValueError, "output='both' is unknown: use one of 'mean', 'gaussian'"),
    (dict(variance='none', output='gaussian'), ValueError, "variance='none' has no variance for.*output='gaussian'"),
    (dict(variance='none', mean='adf'), ValueError, "variance='none' has no variance for mean='adf'"),
    (dict(depth=20), ValueError, 'depth=20 is unknown'),
]


@pytest.mark.parametrize('bad, error, message', BAD, ids=[m for _, _, m in BAD])
def test_bad_arguments_are_named(bad, error, message):
    with pytest.raises(error, match=message):
        ADFResNet(**{'depth': 18, 'base_channels': 16, **bad})


def test_an_image_of_other_channels_is_named():
    _, net = pair(noise_variance=(0.1, 0.1, 0.1), output='gaussian')
    with pytest.raises(ValueError, match=r'has one value per channel, but x is \(2, 1, 65, 65\)'):
        net(IMAGE[:, :1])


def test_warns_where_it_was_calibrated_at_another_noise():
    net = ADFResNet(18, base_channels=8, output='gaussian', noise_variance=0.01).eval()
    image = torch.randn(1, 3, 33, 33)
    set_origin(net, torch.tensor(0.001), 'diagonal')
    with pytest.warns(UserWarning, match='ADFResNet is calibrated at a noise variance of 0.001, but the noise is 0.01'):
        net(image)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        net(image)  # once
        ADFResNet(18, base_channels=8, output='gaussian', noise_variance=0.01).eval()(image)
