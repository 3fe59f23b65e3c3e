"""The first use of a rule under a mode of torch must leave it sound."""

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses import FakeTensorMode

from mmrotate_plugin.adf import Gaussian
from mmrotate_plugin.adf.functional import normal


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
def test_first_use_leaves_a_sound_rule(use, monkeypatch):
    monkeypatch.setattr(normal, '_constants', {})
    expected = F.relu(Gaussian(torch.ones(3).double(), torch.full((3,), 1.1).double())).var.float()
    use()
    x = torch.ones(3, requires_grad=True)
    out = relu(x)
    out.sum().backward()
    assert torch.allclose(out, expected, rtol=1e-5) and x.grad.isfinite().all()
    assert normal._constants and all(type(kept) is torch.Tensor for kept in normal._constants.values())
    fake()  # nor do kept constants stand in the way of fake tensors
