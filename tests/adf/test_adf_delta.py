"""Rules of first order, against derivatives that autograd takes of the plain functions."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmrotate_plugin.adf import Gaussian
from mmrotate_plugin.models import ADFResNet

FUNCTIONS = {
    'relu': torch.relu,
    'leaky_relu': lambda x: F.leaky_relu(x, 0.3),
    'max_pool2d': lambda x: F.max_pool2d(x, 3, 2, 1),
    'max pool, unbatched': lambda x: F.max_pool2d(x[0], (2, 3), dilation=2, ceil_mode=True),
    'module': nn.Sequential(nn.MaxPool2d(2), nn.ReLU(inplace=True)),
}


@pytest.mark.parametrize('name', FUNCTIONS)
def test_variance_is_the_squared_derivative_times_the_variance(name):
    function = FUNCTIONS[name]
    mean, var = torch.randn(1, 3, 9, 8, dtype=torch.float64), torch.rand(1, 3, 9, 8, dtype=torch.float64)

    out = function(Gaussian(mean, var, rule='delta'))

    slopes = torch.autograd.functional.jacobian(lambda m: function(m.clone()), mean)
    expected = (slopes.square() * var).flatten(out.dim()).sum(-1)
    torch.testing.assert_close(out.var, expected, rtol=1e-12, atol=0)
    assert out.mean.equal(function(mean.clone())) and out.rule == 'delta' and out.plain_mean
    moments = function(Gaussian(mean, var, plain_mean=True)).var
    assert (moments - expected).abs().max() > 0.01  # another rule would not pass


def test_learns_and_refuses_indices():
    x = Gaussian(torch.randn(1, 2, 6, 6), torch.rand(1, 2, 6, 6).requires_grad_(), rule='delta')
    (grad,) = torch.autograd.grad(F.max_pool2d(torch.relu(x), 2).var.sum(), x.var)
    assert 0 < grad.sum() <= 2 * 9
    with pytest.raises(ValueError, match='return_indices'):
        F.max_pool2d(x, 2, return_indices=True)


def test_backbone_keeps_plain_means_and_is_first_order_but_for_its_filters():
    torch.manual_seed(0)
    net = ADFResNet(18, base_channels=8, output='gaussian', variance='delta', noise_variance=0.01).eval()
    plain = ADFResNet(18, base_channels=8).eval()
    plain.load_state_dict(net.state_dict())
    image = torch.randn(1, 3, 33, 33)
    with torch.no_grad():
        outs, others = net(image), plain(image)
    assert all(a.mean.equal(b) and a.rule == 'delta' for a, b in zip(outs, others, strict=True))
    assert all((a.var > 0).any() and a.var.isfinite().all() and (a.var >= 0).all() for a in outs)
    with pytest.raises(ValueError, match="mean='adf' needs another rule"):
        ADFResNet(18, variance='delta', mean='adf')
