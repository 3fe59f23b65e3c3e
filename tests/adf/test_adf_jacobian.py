"""The linearised variance: exact for linear networks, close to Monte Carlo for others, and refuses nonsense."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmrotate_plugin.adf import Gaussian
from mmrotate_plugin.adf.jacobian import jacobian_variance


def small_net():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.AvgPool2d(2),
        nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(8 * 4, 5),
    )  # fmt: skip


def test_linear_network_is_exact():
    net = nn.Linear(6, 4).double()
    x, var = torch.randn(3, 6, dtype=torch.double), torch.rand(3, 6, dtype=torch.double)
    out = jacobian_variance(net, Gaussian(x, var), torch.tensor([3, 0, -2]))
    expected = var @ net.weight.detach().square().T
    assert torch.allclose(out, expected[:, [3, 0, 2]], rtol=1e-12)
    assert jacobian_variance(net, x, lambda y: y.sum(), noise_variance=var).shape == ()
    assert torch.allclose(
        jacobian_variance(net, x, lambda y: y.sum(), noise_variance=var),
        (var * net.weight.detach().sum(0).square()).sum(), rtol=1e-12,
    )  # fmt: skip


def test_covariance_inside_the_network_counts():
    """The sum of two equal values: variance 4 v, which the diagonal rules take for 2 v."""
    x = torch.zeros(1, 1)
    twice = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False))
    for layer in twice:
        nn.init.ones_(layer.weight)
    assert jacobian_variance(twice, x, torch.tensor([0]), noise_variance=0.25).item() == pytest.approx(1.0)
    assert twice(Gaussian(x, torch.full_like(x, 0.25))).var.item() == pytest.approx(0.5)


def test_network_agrees_with_samples():
    net, x = small_net().eval(), torch.randn(1, 3, 8, 8)
    variance = torch.tensor([1e-5, 4e-5, 9e-5])
    n = 4000
    noise = torch.randn(n, 3, 8, 8) * variance.sqrt()[:, None, None]
    with torch.no_grad():
        sample = net(x + noise)
    out = jacobian_variance(net, x, torch.arange(5), noise_variance=variance)[0]
    # five standard errors of a variance of Gaussian values; the noise is small enough for the net to be linear
    assert ((sample.var(0) / out - 1).abs() < 5 * (2 / n) ** 0.5 + 0.02).all()


@pytest.mark.parametrize('chunk_size', [1, 2, 100])
def test_chunks_do_not_change_the_result(chunk_size):
    net, x = small_net(), torch.randn(4, 3, 8, 8)
    out = jacobian_variance(net, x, torch.arange(5), noise_variance=0.1, chunk_size=chunk_size)
    one = torch.stack([
        jacobian_variance(net, x, lambda y, b=b, k=k: y[b, k], noise_variance=0.1) for b in range(4) for k in range(5)
    ])  # fmt: skip
    assert out.shape == (4, 5) and torch.allclose(out.flatten(), one, rtol=1e-4)


class Unbatchable(torch.autograd.Function):
    """As compiled operators are: its backward pass cannot be mapped over a batch."""

    @staticmethod
    def forward(_, x):
        return 3 * x

    @staticmethod
    def backward(_, grad):
        return 3 * torch.from_numpy(grad.numpy().copy())


def test_operations_that_cannot_be_batched_are_passed_one_by_one():
    out = jacobian_variance(Unbatchable.apply, torch.zeros(2, 3), torch.arange(3), noise_variance=1.0)
    assert torch.equal(out, torch.full((2, 3), 9.0))


def test_network_is_left_as_it_was():
    net, x = small_net().train(), torch.randn(2, 3, 8, 8)
    net[0].eval()
    net[0].weight.requires_grad_(False)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with torch.no_grad():
        first = jacobian_variance(net, x, torch.arange(5), noise_variance=0.1)
    with torch.inference_mode():
        second = jacobian_variance(net, torch.clone(x), torch.arange(5), noise_variance=0.1)
    assert torch.equal(first, second)  # eval mode: no dropout
    assert [m.training for m in net] == [i != 0 for i in range(len(net))]
    assert all(p.grad is None for p in net.parameters()) and not x.requires_grad
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_a_network_that_works_in_place_leaves_the_input():
    x = torch.randn(2, 3)
    kept = x.clone()
    out = jacobian_variance(lambda t: F.relu(t.mul_(2), inplace=True), x, torch.arange(3), noise_variance=1.0)
    assert torch.equal(x, kept) and torch.equal(out, torch.where(x > 0, 4.0, 0.0))


@pytest.mark.parametrize('options, error, text', [
    (dict(noise_variance=-1.0), ValueError, 'noise_variance=-1.0 must be finite and non-negative'),
    (dict(noise_variance=float('nan')), ValueError, 'noise_variance=nan'),
    (dict(noise_variance=[1.0, 2.0]), ValueError, r'shape \(2,\) does not fit .* each of the 3 channels'),
    (dict(), ValueError, 'noise_variance is missing'),
    (dict(noise_variance=1.0, chunk_size=0), ValueError, 'chunk_size=0'),
    (dict(noise_variance=1.0, outputs=torch.tensor([5])), ValueError, 'goes beyond the 5 outputs'),
    (dict(noise_variance=1.0, outputs=torch.tensor([0.5])), TypeError, 'must hold integers'),
    (dict(noise_variance=1.0, outputs=lambda y: y.argmax(1)), TypeError, 'torch.int64'),
    (dict(noise_variance=1.0, outputs=lambda y: y.detach()), ValueError, 'differentiable steps'),
    (dict(noise_variance=1.0, outputs=lambda _: torch.zeros(1, requires_grad=True)), ValueError, 'differentiable'),
    (dict(noise_variance=1.0, outputs=lambda y: (y,)), TypeError, 'tuple'),
])  # fmt: skip
def test_bad_input_is_named(options, error, text):
    options = dict(options)
    outputs = options.pop('outputs', torch.tensor([0]))
    with pytest.raises(error, match=text):
        jacobian_variance(small_net(), torch.randn(2, 3, 8, 8), outputs, **options)


def test_a_gaussian_has_its_noise():
    x = torch.zeros(1, 3, 8, 8)
    with pytest.raises(ValueError, match='must be None where x is a Gaussian'):
        jacobian_variance(small_net(), Gaussian(x, x), torch.tensor([0]), noise_variance=1.0)
    with pytest.raises(TypeError, match='returns a tuple: give a function'):
        jacobian_variance(lambda t: (t,), x, torch.tensor([0]), noise_variance=1.0)
