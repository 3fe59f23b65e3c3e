"""Variance gains: found where they are known, right on a trained network and new images, and carried by checkpoints."""

import copy
import json
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmrotate_plugin.adf import Gaussian
from mmrotate_plugin.adf.calibration import calibrate
from mmrotate_plugin.adf.calibration.comparison import fit_gain
from mmrotate_plugin.adf.gains import (
    GAIN,
    accept_gains,
    gain_noise,
    gain_rule,
    is_gain,
    misfit,
    remove_gains,
    set_gain,
    set_origin,
)


class Doubling(nn.Module):
    """Puts out the sum of two copies of its input: variance 4 v, which the diagonal rule takes for 2 v."""

    def __init__(self):
        super().__init__()
        self.copy, self.sum = nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(2, 1, 1, bias=False)
        for conv in (self.copy, self.sum):
            nn.init.ones_(conv.weight)

    def forward(self, x):
        return self.sum(self.copy(x))


def stripes(n, seed):
    """Images of wide bars at four angles, which say which class they are."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (n,), generator=g)
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing='ij')
    angle = labels[:, None, None] * torch.pi / 4
    phase = torch.rand(n, 1, 1, generator=g) * 6.28
    image = torch.cos((x * angle.cos() + y * angle.sin()) * 1.2 + phase)[:, None]
    return image + 0.2 * torch.randn(image.shape, generator=g), labels


class Classifier(nn.Module):
    """With a residual block, a norm, a functional ReLU and both poolings."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.conv2, self.bn2 = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.conv3 = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.avg, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(32, 4)

    def forward(self, x):
        x = self.pool(self.relu(self.bn1(self.conv1(x))))
        x = self.relu(x + self.bn2(self.conv2(x)))
        return self.fc(self.avg(self.relu(self.conv3(x))).flatten(1))


@pytest.fixture(scope='module')
def trained():
    torch.manual_seed(0)
    net = Classifier()
    images, labels = stripes(512, 0)
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    for step in range(48):
        some = slice(step * 64 % 512, step * 64 % 512 + 64)
        optimizer.zero_grad()
        F.cross_entropy(net(images[some]), labels[some]).backward()
        optimizer.step()
    net.eval()
    images, labels = stripes(200, 1)
    assert (net(images).argmax(1) == labels).float().mean() > 0.95
    return net


NOISE_VARIANCE = 0.01


@pytest.fixture
def calibrated(trained):
    net = copy.deepcopy(trained)
    report = calibrate(net, stripes(8, 2)[0], NOISE_VARIANCE, num_samples=200, held_out=stripes(8, 3)[0])
    return net, report


def deviation(net, plain, images, samples=600):
    """Standard deviations of the logits over those of samples: 5th percentile, median, 95th."""
    with torch.no_grad():
        out = net(Gaussian(images, torch.full_like(images, NOISE_VARIANCE)))
        drawn = torch.stack([plain(images + NOISE_VARIANCE**0.5 * torch.randn_like(images)) for _ in range(samples)])
    return (out.std / drawn.std(0)).flatten().quantile(torch.tensor([0.05, 0.5, 0.95])).tolist()


def test_a_known_gain_is_found():
    net = Doubling()
    report = calibrate(net, torch.zeros(4, 1, 8, 8), 0.25, num_samples=400)
    assert not hasattr(net.copy, GAIN)
    # 256 variances, each with a standard error of 7 % that they share through nothing: 5 * 0.07 * 1.25 / 16
    assert net.sum.variance_gain.item() == pytest.approx(2.0, rel=0.03)
    out = net(Gaussian(torch.zeros(1, 1, 8, 8), torch.full((1, 1, 8, 8), 0.25)))
    assert out.var.mean().item() == pytest.approx(1.0, rel=0.03)
    before, after = ({layer.name: getattr(layer, key) for layer in report.layers} for key in ('before', 'after'))
    assert before['sum'].median == pytest.approx(0.5**0.5, rel=0.02)
    assert after['sum'].median == pytest.approx(1, rel=0.02)
    assert report.layers[0].gains is None and report.noise_variance == (0.25,)


def test_independent_values_need_no_gain():
    """The control: nothing is corrected where the diagonal rule is right."""
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4).eval())
    calibrate(net, torch.randn(4, 1, 9, 9), 0.1, num_samples=200)
    weights = {key for key in net.state_dict() if not is_gain(key)}
    assert weights == set(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)).state_dict())


def test_trained_network_is_right_on_new_images(trained, calibrated):
    net, report = calibrated
    new = stripes(24, 4)[0]
    before, after = deviation(trained, trained, new), deviation(net, trained, new)
    assert before[1] < 0.6  # overconfident: else there is nothing to correct
    assert 0.9 < after[1] < 1.15 and after[0] > 0.4 and after[2] < 1.5
    last = report.layers[-1]
    assert last.name == 'fc' and last.held_out_before.median < 0.6 and 0.9 < last.held_out_after.median < 1.15
    assert {'bn1', 'bn2', 'relu'}.isdisjoint(layer.name for layer in report.layers if layer.gains)


def test_plain_tensors_and_plain_means_do_not_change(trained, calibrated):
    net, x = calibrated[0], stripes(2, 5)[0]
    assert torch.equal(net(x), trained(x))
    assert torch.equal(net(Gaussian(x, torch.full_like(x, NOISE_VARIANCE), plain_mean=True)).mean, trained(x))


def test_gains_are_carried_by_state_dicts(trained, calibrated):
    net, x = calibrated[0], Gaussian(stripes(2, 5)[0], torch.full((2, 1, 16, 16), NOISE_VARIANCE))
    expected = net(x).var
    fresh = Classifier().eval()
    with pytest.raises(RuntimeError, match='fc.variance_gain'):
        fresh.load_state_dict(net.state_dict())
    accept_gains(fresh)
    accept_gains(fresh)
    assert fresh.load_state_dict(trained.state_dict()) and gain_noise(fresh) is None
    fresh.load_state_dict(net.state_dict())
    assert torch.equal(fresh(x).var, expected) and gain_noise(fresh).item() == pytest.approx(NOISE_VARIANCE)
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(twin(x).var, expected)

    part = nn.ModuleDict({'backbone': Classifier(), 'head': nn.Linear(1, 1)}).eval()  # as in a detector
    accept_gains(part['backbone'])
    part.load_state_dict({**part.state_dict(), **{f'backbone.{k}': v for k, v in net.state_dict().items()}})
    assert torch.equal(part['backbone'](x).var, expected)

    fresh.load_state_dict(trained.state_dict())  # other weights: the gains would be wrong for them
    assert list(fresh.state_dict()) == list(trained.state_dict())
    assert torch.equal(fresh(x).var, trained(x).var)


def test_gains_can_be_removed_and_fitted_again(trained, calibrated):
    net, images = calibrated[0], stripes(8, 2)[0]
    first = {k: v.clone() for k, v in net.state_dict().items()}
    calibrate(net, images, NOISE_VARIANCE, num_samples=200)
    assert all(torch.equal(v, first[k]) for k, v in net.state_dict().items())
    assert sum(len(m._forward_hooks) for m in net.modules()) == sum(hasattr(m, GAIN) for m in net.modules())
    remove_gains(net)
    assert list(net.state_dict()) == list(trained.state_dict())
    assert not any(m._forward_hooks for m in net.modules())


def test_modes_and_gradients_are_left(trained):
    net = copy.deepcopy(trained).train()
    net.bn2.eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    calibrate(net, stripes(2, 2)[0], NOISE_VARIANCE, num_samples=8)
    assert net.training and net.bn1.training and not net.bn2.training
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in before.items())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


def test_shared_gains_for_equivariant_networks(trained):
    net = copy.deepcopy(trained)
    calibrate(net, stripes(4, 2)[0], NOISE_VARIANCE, num_samples=50, share=4)
    gains = net.conv3.variance_gain.reshape(8, 4)
    assert torch.equal(gains, gains[:, :1].expand(8, 4)) and len(gains[:, 0].unique()) > 1
    assert len(net.conv2.variance_gain.unique()) == 4


class Shared(nn.Module):
    """One layer for maps of two sizes, as heads have."""

    def __init__(self):
        super().__init__()
        self.copy, self.sum = nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(2, 1, 1, bias=False)
        for conv in (self.copy, self.sum):
            nn.init.ones_(conv.weight)

    def forward(self, x):
        return self.sum(self.copy(x)), self.sum(self.copy(x[:, :, ::2, ::2]))


def test_layers_called_several_times_get_one_gain():
    net = Shared()
    calibrate(net, torch.zeros(4, 1, 8, 8), 1.0, num_samples=400)
    assert net.sum.variance_gain.item() == pytest.approx(2.0, rel=0.03)
    x = torch.ones(1, 1, 8, 8)
    assert all(out.var.mean().item() == pytest.approx(4, rel=0.03) for out in net(Gaussian(x, x)))


class OwnNoise(Doubling):
    """As the paper's classifiers: it makes a Gaussian of a tensor by itself, with another mean than the plain net's."""

    def forward(self, x):
        x = x if isinstance(x, Gaussian) else Gaussian(x, torch.ones_like(x))
        return super().forward(F.relu(x))


def test_networks_that_make_their_own_gaussian():
    net, x = OwnNoise(), torch.full((4, 1, 8, 8), 0.3)
    calibrate(net, x, 1e-4, num_samples=400)
    assert net.sum.variance_gain.item() == pytest.approx(2.0, rel=0.03)  # the ReLU is on: all is linear


def test_dead_channels_are_harmless():
    ratio = torch.tensor([[0.5] * 9, [float('nan')] * 9, [0.0] * 9, [float('inf')] * 9])
    gain = fit_gain(ratio, 1)
    assert gain.isfinite().all() and gain[0].item() == pytest.approx(4) and gain[1].item() == pytest.approx(4, rel=0.5)
    assert gain.min() >= 1e-2 and gain.max() <= 1e3
    assert torch.equal(fit_gain(torch.full((3, 5), float('nan')), 1), torch.ones(3))


def test_floor_holds_behind_a_gain():
    layer = nn.Linear(2, 2)
    set_gain(layer, torch.tensor([1e-3, 1.0]))
    out = layer(Gaussian(torch.zeros(1, 2), torch.ones(1, 2), min_variance=0.01))
    assert out.var.min() >= 0.01 and out.min_variance == 0.01


def test_report_as_table_and_json(calibrated):
    report = calibrated[1]
    text = str(report)
    assert text.count('\n') == len(report.layers) and 'before, other images' in text
    read = json.loads(json.dumps(report.as_dict()))
    assert read['noise_variance'] == pytest.approx([NOISE_VARIANCE]) and read['num_images'] == 8
    assert read['layers'][-1]['held_out_after']['median'] == report.layers[-1].held_out_after.median


@pytest.mark.parametrize('noise, options, text', [
    (-0.1, {}, 'noise_variance=-0.1 must be finite and non-negative'),
    (float('nan'), {}, 'noise_variance=nan'),
    ([0.1, 0.2], {}, 'for each of the 1 channels'),
    (0.0, {}, 'noise_variance is 0'),
    (0.1, dict(num_samples=2), 'num_samples=2 must be 8 or more'),
    (0.1, dict(share=0), 'share=0'),
    (0.1, dict(max_positions=0), 'max_positions=0'),
])  # fmt: skip
def test_bad_input_is_named(noise, options, text):
    with pytest.raises(ValueError, match=text):
        calibrate(Doubling(), torch.zeros(2, 1, 4, 4), noise, **options)


def test_networks_without_a_variance_are_refused():
    class Plain(Doubling):
        def forward(self, x):
            return super().forward(x.mean if isinstance(x, Gaussian) else x)

    with pytest.raises(ValueError, match='no module of Plain outputs a Gaussian'):
        calibrate(Plain(), torch.zeros(1, 1, 4, 4), 0.1)


@pytest.mark.parametrize('share', [4, 1])
def test_equivariant_variance_stays_so_with_shared_gains(share):
    """The control, a gain for each orientation, breaks it."""
    models = pytest.importorskip('mmrotate_plugin.models')
    from mmrotate_plugin.testing import randomize_norms_

    net = randomize_norms_(models.ReResNet(18, group='C4', base_channels=16, out_indices=(3,))).eval()
    calibrate(net, torch.randn(2, 3, 33, 33), 0.05, num_samples=16, share=share)
    assert any(hasattr(m, GAIN) for m in net.modules())
    x = torch.randn(1, 3, 33, 33)
    with torch.no_grad():
        maps, turned = (net(Gaussian(y, torch.full_like(y, 0.05)))[0].var for y in (x, x.rot90(1, (-2, -1))))
    expected = maps.rot90(1, (-2, -1)).reshape(1, -1, 4, *maps.shape[-2:]).roll(1, 2).reshape(turned.shape)
    error = ((turned - expected).norm() / expected.norm()).item()
    assert error < 1e-4 if share == 4 else error > 0.01


@pytest.mark.parametrize('rule', ['diagonal', 'delta'])
def test_the_rule_is_kept_with_the_gains(rule):
    class Chosen(nn.Sequential):
        def forward(self, x):
            return super().forward(Gaussian(x.mean, x.var, rule=rule) if isinstance(x, Gaussian) else x)

    net = Chosen(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 1, 3))
    calibrate(net, stripes(4, 2)[0], NOISE_VARIANCE, num_samples=16)
    assert gain_rule(net) == rule
    fresh = Chosen(*copy.deepcopy(list(net)))
    accept_gains(fresh)
    fresh.load_state_dict(net.state_dict())
    assert gain_rule(fresh) == rule
    remove_gains(fresh)
    assert gain_rule(fresh) is None and not any(map(is_gain, fresh.state_dict()))


def test_misfit_tells_of_other_noise_and_other_rules():
    net = nn.Identity()
    assert misfit(net, 0.01, 'diagonal') is None
    set_origin(net, torch.tensor([0.01, 0.02]), 'diagonal')
    assert misfit(net, (0.011, 0.03), 'diagonal') is None and misfit(net, None, 'diagonal') is None
    assert "rule 'diagonal', but the rule is 'rank1'" in misfit(net, 0.01, 'rank1')
    assert 'a noise variance of 0.01, 0.02, but the noise is 0.011, 0.05' in misfit(net, (0.011, 0.05), 'diagonal')
