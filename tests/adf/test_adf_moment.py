"""`x.mean` and `x.var` of a Gaussian are its tensors, and methods of networks as well."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor, FakeTensorMode

from mmrotate_plugin.adf import Gaussian


def gaussian(*shape: int, **options) -> Gaussian:
    return Gaussian(torch.randn(*shape), torch.rand(*shape) + 0.1, **options)


CALLS = {
    'all': ((), {}), 'axis': ((-1,), {}), 'axes': (([2, 3],), {}), 'tuple': (((2, 3),), {}),
    'kept': (((2, 3), True), {}), 'named': ((), dict(dim=(2, 3), keepdim=True)), 'one kept': ((1,), dict(keepdim=True)),
}  # fmt: skip


@pytest.mark.parametrize('name', CALLS)
@pytest.mark.parametrize('what', ['mean', 'var'])
def test_networks_call_them(name, what):
    args, kwargs = CALLS[name]
    x = gaussian(2, 3, 4, 5, min_variance=1e-4)
    out, expected = getattr(x, what)(*args, **kwargs), getattr(torch, what)(x, *args, **kwargs)
    assert isinstance(out, Gaussian) and out.min_variance == 1e-4
    assert torch.equal(out.mean, expected.mean) and torch.equal(out.var, expected.var)
    assert out.shape == getattr(x.mu, what)(*args, **kwargs).shape


def test_mean_of_a_sum_that_nobody_else_holds():
    x = gaussian(2, 3)
    torch.testing.assert_close((x + 1).mean(1).mu, x.mu.mean(1) + 1)


class Pooled(nn.Module):
    """As MNASNet, ShuffleNet and ConvNeXt write it."""

    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x):
        x = self.conv(x)
        x = x - x.mean(1, keepdim=True)
        return self.linear(x.mean([2, 3]))


def test_an_unmodified_network_learns():
    net, x = Pooled(), gaussian(2, 3, 6, 6)
    out = net(x)
    (out.mean.sum() + out.var.sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_to_torch_they_are_the_tensors():
    mean, var = torch.randn(2, 3), torch.rand(2, 3)
    x = Gaussian(mean, var)
    assert isinstance(x.mean, Tensor) and not isinstance(mean, type(x.mean))
    for out in (x.mean + 1, 1 + x.mean, x.mean * x.var, x.mean.detach(), x.mean[0], torch.stack([x.mean, x.var]),
                x.mean.view(-1), x.mean.clone(), torch.cat((x.mean, mean)), x.mean.to(torch.float64)):  # fmt: skip
        assert type(out) is Tensor
    assert x.mean.shape == (2, 3) and len(x.mean) == 2 and x.mean.dtype == torch.float32 and x.mean.tolist()
    assert repr(x.mean) == repr(mean) and f'{x.mean.sum():.3f}' == f'{mean.sum():.3f}'
    assert x.mean.data_ptr() == mean.data_ptr()
    np.testing.assert_array_equal(np.asarray(x.mean), mean.numpy())
    x.mean.add_(1)  # in place
    assert torch.equal(x.mu, mean)
    x.mean = mean * 2
    x.var += 1
    assert torch.equal(x.mu, mean * 2) and type(x.v) is Tensor
    assert Gaussian(x.mean, x.var).mu is x.mu
    assert (x.mean == x.mu).all() and x.mean.mean().item() == x.mu.mean().item()


def test_gradients_and_hooks_are_those_of_the_tensors():
    mean = torch.randn(3, requires_grad=True)
    x = Gaussian(mean, torch.rand(3))
    assert x.mean.requires_grad and x.mean.is_leaf and not x.var.requires_grad
    x.var.requires_grad_()
    y = x * 2
    out = y * 3
    seen = []
    y.mean.register_hook(seen.append)
    by_y, by_x, by_var = torch.autograd.grad(out.mean.sum() + out.var.sum(), (y.mean, x.mean, x.var), retain_graph=True)
    assert by_y.tolist() == [3.0] * 3 and by_x.tolist() == [6.0] * 3 and by_var.tolist() == [36.0] * 3
    out.mean.sum().backward()
    assert torch.equal(x.mean.grad, mean.grad) and mean.grad.tolist() == [6.0] * 3 and len(seen) == 2


def test_copies_and_files_hold_tensors():
    x = gaussian(2, 3)
    file = io.BytesIO()
    torch.save({'mean': x.mean, 'all': [x.var]}, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    for other in (copy.copy(x.mean), copy.deepcopy(x.mean), pickle.loads(pickle.dumps(x.mean)), loaded['mean']):
        assert type(other) is Tensor and torch.equal(other, x.mu)
    assert torch.equal(pickle.loads(pickle.dumps(x)).mean(1).mu, x.mean(1).mu)


def test_batched_functions_and_traces():
    x = gaussian(4, 3)
    out = torch.func.vmap(lambda m, v: Gaussian(m, v).mean(0).mean + 0)(x.mean, x.var)
    torch.testing.assert_close(out, x.mu.mean(1))
    traced = torch.jit.trace(lambda m: Gaussian(m, m.square()).mean(1).var + 0, (torch.randn(4, 3),))
    torch.testing.assert_close(traced(x.mu), x.mu.square().mean(1) / 3)


def test_fake_tensors_call_them():
    """Without numbers, and with tensors whose class cannot change."""
    net, x = Pooled().eval(), gaussian(2, 3, 6, 6)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        out = net(Gaussian(mode.from_tensor(x.mu), mode.from_tensor(x.v)))
        assert out.shape == (2, 2) and isinstance(out.mean + 0, FakeTensor) and out.var.shape == (2, 2)
    assert Gaussian(nn.Parameter(x.mu), x.v).mean(1).shape == (2, 6, 6)


@pytest.mark.needs_torch('2.1', 'torch.compile for Python 3.11')
def test_compiled_networks_write_the_function():
    torch._dynamo.reset()
    x = gaussian(2, 3, 4)
    pooled = torch.compile(lambda m, v: torch.mean(Gaussian(m, v), 2).var * 2, backend='eager', fullgraph=True)
    torch.testing.assert_close(pooled(x.mu, x.v), x.mean(2).v * 2)


def test_the_sample_variance_matches_samples():
    """Of values with means and variances of their own, a quadratic form."""
    mean = torch.tensor([0.0, 1.0, -2.0, 0.5], dtype=torch.float64)
    var = torch.tensor([1.0, 0.2, 0.5, 2.0], dtype=torch.float64)
    n = 100_000
    noise = torch.randn(n, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for options in ({}, dict(unbiased=False), dict(correction=2)):
        sample = (mean + var.sqrt() * noise).var(1, **options)
        centred = sample - sample.mean()
        v, m4 = centred.square().mean(), centred.pow(4).mean()
        out = Gaussian(mean, var).var(0, **options)
        # five standard errors of a sample mean and of a sample variance
        assert (out.mean - sample.mean()).abs() < 5 * (v / n).sqrt()
        assert (out.var - v).abs() < 5 * ((m4 - v.square()) / n).sqrt()
        assert (mean.var(0, **options) - sample.mean()).abs() > 50 * (v / n).sqrt()  # the control: without the noise
    spread, centre = torch.var_mean(Gaussian(mean, var), 0)
    assert torch.equal(spread.mean, Gaussian(mean, var).var(0).mean) and torch.equal(centre.mean, mean.mean(0))
    exact = Gaussian(mean.float(), torch.zeros(4)).var(0)
    assert exact.var == 0 and exact.mean == pytest.approx(mean.var().item())
