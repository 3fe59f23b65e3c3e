"""The first use of a rule under a mode of torch must leave it sound."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses import FakeTensorMode

from mmrotate_plugin.adf import Gaussian, estimate_noise
from mmrotate_plugin.adf.functional import _normal
from mmrotate_plugin.kernels import use_compiled_loops


def relu(x):
    return F.relu(Gaussian(x, x.square() + 0.1)).var


def fake():
    with FakeTensorMode():
        relu(torch.ones(2, 3))


def transformed():
    torch.func.grad(lambda x: relu(x).sum())(torch.ones(3))


def inference():
    with torch.inference_mode():
        relu(torch.ones(3))


@pytest.mark.parametrize('use', [fake, transformed, inference])
def test_first_use_leaves_a_sound_rule(use, monkeypatch, request):
    monkeypatch.setattr(_normal, '_constants', {})
    before = use_compiled_loops(False)  # they need no constants
    request.addfinalizer(lambda: use_compiled_loops(before))
    expected = F.relu(Gaussian(torch.ones(3).double(), torch.full((3,), 1.1).double())).var.float()
    use()
    x = torch.ones(3, requires_grad=True)
    out = relu(x)
    out.sum().backward()
    assert torch.allclose(out, expected, rtol=1e-5) and x.grad.isfinite().all()
    assert _normal._constants and all(type(kept) is torch.Tensor for kept in _normal._constants.values())
    fake()  # nor do kept constants stand in the way of fake tensors


NET = nn.Sequential(
    nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Sigmoid(),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3), nn.Softmax(1),
).double()  # fmt: skip
OPTIONS = [{}, dict(plain_mean=True), dict(rule='rank1'), dict(rule='delta'), dict(min_variance=0.01)]


def moments(mean, var, **options):
    out = NET(Gaussian(mean, var, **options))
    return out.mu, out.v


@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_vmap_is_a_loop(options):
    NET.eval()
    mean, var = torch.randn(5, 2, 4, 4).double(), torch.rand(5, 2, 4, 4).double() + 0.1
    one = lambda m, v: moments(m[None], v[None], **options)[1][0]  # noqa: E731
    torch.testing.assert_close(torch.vmap(one)(mean, var), moments(mean, var, **options)[1])
    # a constant for one of the two, and a batch in the last dimension
    expected = moments(mean[:1].expand_as(var), var, **options)[1]
    torch.testing.assert_close(torch.vmap(lambda v: one(mean[0], v), in_dims=3)(var.movedim(0, 3)), expected)
    if 'plain_mean' in options or 'rule' in options:
        return
    gradient = torch.func.grad(lambda m, v: one(m, v).sum().log())
    looped = torch.stack([gradient(m, v) for m, v in zip(mean, var, strict=True)])
    torch.testing.assert_close(torch.vmap(gradient)(mean, var), looped, atol=1e-12, rtol=1e-7)


@pytest.mark.parametrize('options', OPTIONS, ids=str)
@pytest.mark.parametrize('train', [True, False])
def test_an_empty_batch_passes(train, options):
    NET.train(train)
    statistics = [buffer.clone() for buffer in NET[1].buffers()]
    mean = torch.zeros(0, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    out = moments(mean, torch.ones_like(mean), **options)
    assert [tuple(t.shape) for t in out] == [(0, 3)] * 2
    (out[0].sum() + out[1].sum()).backward()
    assert mean.grad.shape == mean.shape and (NET[0].weight.grad == 0).all()
    if train:
        statistics[-1] += 1  # the batch is counted, as by torch
    assert all(map(torch.equal, NET[1].buffers(), statistics))


def test_maps_without_rows_pass_where_torch_lets_them():
    x = Gaussian(torch.zeros(2, 4, 0, 5), torch.ones(2, 4, 0, 5))
    for layer in (
        nn.BatchNorm2d(4),
        nn.InstanceNorm2d(4, affine=True),
        nn.GroupNorm(2, 4),
        nn.Softmax(2),
        nn.Sigmoid(),
    ):
        assert layer(x).shape == layer(x.mu).shape == x.shape
    assert F.scaled_dot_product_attention(x, x, x).shape == x.shape
    for pool in (nn.MaxPool2d(3, 2, 1), nn.AdaptiveMaxPool2d(1)):
        for value in (x, x.mu):
            with pytest.raises((ValueError, RuntimeError)):
                pool(value)


def test_rules_that_look_at_values_do_not_look_at_fake_ones():
    with FakeTensorMode():
        x = torch.zeros(1, 3, 64, 64)
        assert torch.sigmoid(Gaussian(x, x)).v.shape == estimate_noise(x).shape == x.shape
