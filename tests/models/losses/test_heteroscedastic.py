import math

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from mmrotate_plugin.adf import Gaussian
from mmrotate_plugin.models.losses import HeteroscedasticLoss

N, D = 12, 4


@pytest.fixture
def data():
    mean, target = torch.randn(2, N, D, dtype=torch.float64)
    return mean.requires_grad_(), torch.rand(N, D, dtype=torch.float64) + 0.1, target


def loss_of(**options):
    return HeteroscedasticLoss(D, **options).double()


def total_variance(loss, var):
    return loss.log_gain.detach().exp() * var + loss.log_constant.detach().exp()


def test_gaussian_is_torchs(data):
    mean, var, target = data
    loss = loss_of(gain=3.0, std=0.5)
    s = 3 * var + 0.25
    expected = nn.GaussianNLLLoss()(mean, target, s)
    # the logarithms are float32
    assert loss(Gaussian(mean, var), target).item() == pytest.approx(expected.item(), abs=1e-6)
    # the control: a loss that leaves the variance away
    assert abs(nn.GaussianNLLLoss()(mean, target, torch.full_like(s, 0.25)).item() - expected.item()) > 0.1
    assert abs(loss(Gaussian(mean, 2 * var), target).item() - expected.item()) > 0.01


def test_laplace_is_the_density(data):
    mean, var, target = data
    loss = loss_of(kind='laplace', reduction='sum')
    density = torch.distributions.Laplace(mean, ((var + 1) / 2).sqrt()).log_prob(target)
    assert loss(Gaussian(mean, var), target).item() == pytest.approx(-density.sum().item(), abs=1e-10)
    # the variance of that density is s
    assert torch.distributions.Laplace(0.0, math.sqrt(3 / 2)).variance.item() == pytest.approx(3)


def test_gradients_are_those_of_the_equation(data):
    mean, var, target = data
    var = var.requires_grad_()
    loss = loss_of(gain=2.0, std=0.7, reduction='sum')
    loss(Gaussian(mean, var), target).backward()
    s, r = total_variance(loss, var.detach()), (target - mean).detach()
    by_variance = 0.5 * (1 / s - (r / s).square())
    torch.testing.assert_close(mean.grad, -r / s)
    torch.testing.assert_close(var.grad, 2 * by_variance)
    torch.testing.assert_close(loss.log_gain.grad, (2 * var.detach() * by_variance).sum(0))
    torch.testing.assert_close(loss.log_constant.grad, (0.49 * by_variance).sum(0))


@pytest.mark.parametrize('kind', ['gaussian', 'laplace'])
def test_gradients_are_those_of_differences(data, kind):
    mean, var, target = data
    loss = loss_of(kind=kind, gain=2.0)
    assert torch.autograd.gradcheck(
        lambda m, v, *_: loss(Gaussian(m, v), target), (mean, var.requires_grad_(), *loss.parameters())
    )


def test_uncertain_predictions_weigh_less(data):
    """Attenuation, of Kendall & Gal; with beta=1 none is left."""
    mean, _, target = data
    var = torch.ones(N, D, dtype=torch.float64)
    var[: N // 2] = 99
    for beta, ratio in ((0.0, 100 / 2), (1.0, 1.0)):
        mean.grad = None
        loss_of(beta=beta, reduction='sum')(Gaussian(mean, var), target).backward()
        weight = mean.grad / (mean - target).detach()
        torch.testing.assert_close(weight[N // 2 :] / weight[: N // 2], torch.full_like(weight[N // 2 :], ratio))


def test_learns_the_constant_and_the_gain():
    """Of residuals whose variance is 4 v + 1."""
    torch.manual_seed(0)
    var = torch.rand(4000, 1) * 5
    target = torch.randn(4000, 1) * (4 * var + 1).sqrt()
    loss = HeteroscedasticLoss(1)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        loss(Gaussian(torch.zeros_like(var), var), target).backward()
        optimizer.step()
    assert loss.log_gain.exp().item() == pytest.approx(4, rel=0.15)
    assert loss.log_constant.exp().item() == pytest.approx(1, rel=0.3)


def test_weights_and_averages_as_mmdets_losses(data):
    mean, var, target = data
    pred = Gaussian(mean, var)
    each = loss_of(reduction='none')(pred, target)
    assert each.shape == (N, D)
    rows, cells = torch.rand(N).double(), torch.rand(N, D).double()
    loss = loss_of(loss_weight=0.5)
    by_row = (each * rows[:, None]).sum().item()
    assert loss(pred, target, rows, avg_factor=7.0).item() == pytest.approx(0.5 * by_row / 7)
    assert loss(pred, target, cells).item() == pytest.approx(0.5 * (each * cells).mean().item())
    assert loss(pred, target, reduction_override='sum').item() == pytest.approx(0.5 * each.sum().item())
    empty = Gaussian(mean[:0], var[:0])
    assert loss(empty, target[:0]).item() == 0


def test_bad_input(data):
    mean, var, target = data
    loss = loss_of()
    for error, args, text in [
        (TypeError, (mean, target), 'put the detector into an enabled mmrotate_plugin.UncertainDetector'),
        (ValueError, (Gaussian(mean[:, :2], var[:, :2]), target[:, :2]), r'both must be \(N, columns=4\)'),
        (ValueError, (Gaussian(mean, var), target[:3]), 'both must be'),
        (ValueError, (Gaussian(mean, var), target, None, 3.0, 'sum'), "avg_factor=3.0 divides a 'mean'"),
    ]:
        with pytest.raises(error, match=text):
            loss(*args)
    for options, text in [
        (dict(kind='cauchy'), "kind='cauchy' is unknown: use one of 'gaussian', 'laplace'"),
        (dict(gain=0), 'gain=0 must be finite and positive'),
        (dict(std=math.inf), 'std=inf must be'),
        (dict(beta=2), 'beta=2 must be between 0 and 1'),
        (dict(reduction='max'), "reduction='max' is unknown"),
    ]:
        with pytest.raises(ValueError, match=text):
            loss_of(**options)


def test_is_registered():
    built = MODELS.build(dict(type='mmrotate_plugin.HeteroscedasticLoss', columns=5))
    assert set(dict(built.named_parameters())) == {'log_gain', 'log_constant'} and built.log_gain.shape == (5,)
