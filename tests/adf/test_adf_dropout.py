"""Every kind of dropout is sampled, nothing else changes its mode, and a network without any is refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmrotate_plugin.adf import Gaussian, NoDropout, predict
from mmrotate_plugin.adf.dropout_sampling import may_drop, sampled_dropout, sampling_layers

DROPOUT, BATCH_NORM = torch.dropout, torch.batch_norm


class Functional(nn.Module):
    """A norm and a function of its output and the module."""

    def __init__(self, function):
        super().__init__()
        self.norm, self.function = nn.BatchNorm2d(4), function

    def forward(self, x):
        return self.function(self.norm(x), self)


class DropPath(nn.Module):
    """As mmcv's and timm's."""

    def __init__(self, drop_prob):
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x):
        if self.drop_prob == 0 or not self.training:
            return x
        mask = torch.rand((len(x), *[1] * (x.dim() - 1))) < 1 - self.drop_prob
        return x / (1 - self.drop_prob) * mask


class Attention(nn.Module):
    """A number as probability, which goes into a fused function."""

    def __init__(self, drop):
        super().__init__()
        self.attn_drop, self.norm = drop, nn.LayerNorm(25)

    def forward(self, x):
        q = self.norm(x.flatten(2))
        return F.scaled_dot_product_attention(q, q, q, dropout_p=self.attn_drop if self.training else 0.0)


class Over(nn.Module):
    """A layer of torch over the positions of a map."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        x = x.flatten(2).transpose(1, 2)
        out = self.layer(x, x, x) if isinstance(self.layer, nn.MultiheadAttention) else self.layer(x)
        return out[0] if isinstance(out, tuple) else out


KINDS = {
    'Dropout': nn.Dropout(0.2), 'Dropout2d': nn.Dropout2d(0.2), 'Dropout3d': nn.Dropout3d(0.2),
    'AlphaDropout': nn.AlphaDropout(0.2), 'FeatureAlphaDropout': nn.FeatureAlphaDropout(0.2),
    'DropPath': DropPath(0.5),
    'functional': Functional(lambda x, m: F.dropout(x, 0.2, m.training)),
    'functional, by name': Functional(lambda x, m: F.dropout2d(x, p=0.2, training=m.training)),
    'functional, alpha': Functional(lambda x, m: F.alpha_dropout(x, 0.2, training=m.training)),
    'functional, whole features': Functional(lambda x, m: F.feature_alpha_dropout(x, 0.2, m.training)),
    'functional, of C++': Functional(lambda x, m: torch.dropout(x, 0.2, m.training)),
    'functional beside a literal': Functional(lambda x, m: F.dropout(F.dropout(x, 0.2, m.training), 0.9, False)),
    'attention by hand': Attention(0.2),
    'MultiheadAttention': Over(nn.MultiheadAttention(4, 2, dropout=0.2, batch_first=True)),
    'TransformerEncoderLayer': Over(nn.TransformerEncoderLayer(4, 2, 8, dropout=0.2, batch_first=True)),
    'LSTM': Over(nn.LSTM(4, 3, 2, dropout=0.2, batch_first=True)),
}  # fmt: skip


@pytest.mark.parametrize('name', KINDS)
def test_every_kind_is_sampled_and_only_that(name):
    net = nn.Sequential(nn.BatchNorm2d(4), KINDS[name]).train()
    net[0].eval()
    modes = [m.training for m in net.modules()]
    state = {key: value.clone() for key, value in net.state_dict().items()}
    x = torch.randn(4, 4, 5, 5)
    out = predict(net, x, 8, seed=0)
    assert out.model_variance.max() > 1e-4
    assert [m.training for m in net.modules()] == modes and all(type(m.training) is bool for m in net.modules())
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items()), 'norms do not learn'
    assert torch.equal(predict(net, x, 8, seed=0).model_variance, out.model_variance)
    assert torch.dropout is DROPOUT and torch.batch_norm is BATCH_NORM


@pytest.mark.parametrize('function', [
    lambda x, m: F.dropout(
        F.batch_norm(x, m.norm.running_mean, m.norm.running_var, None, None, m.training), 0.2, m.training),
    lambda x, m: F.dropout(
        torch.batch_norm(x, None, None, m.norm.running_mean, m.norm.running_var, m.training, 0.1, 1e-5, False),
        0.2, m.training),
])  # fmt: skip
def test_a_norm_beside_functional_dropout_stays_in_eval_mode(function):
    net, x = Functional(function), torch.randn(4, 4, 5, 5)
    net.norm.running_mean.normal_()
    before = net.norm.running_mean.clone()
    assert (predict(net, x, 4, seed=0).model_variance > 0).any()
    assert torch.equal(net.norm.running_mean, before)


def test_moments_of_functional_dropout_are_bernoullis():
    x = torch.full((1, 4, 100, 100), 2.0)
    net = Functional(lambda x, m: F.dropout(x, 0.3, m.training))
    out = predict(net, x, 50, seed=0)
    expected = net.eval()(x).square().mean() * 0.3 / 0.7
    # 40,000 values, each with the variance of 50 samples: five standard errors, kurtosis below 3
    assert out.model_variance.mean().item() == pytest.approx(expected.item(), rel=5 * (3 / 50 / 40_000) ** 0.5)


NOTHING = {
    'no dropout': nn.Conv2d(4, 4, 1), 'p = 0': nn.Dropout(0.0),
    'functional, p = 0': Functional(lambda x, m: F.dropout(x, 0.0, m.training)),
    'a literal False': Functional(lambda x, m: F.dropout(x, 0.3, False) if m else x), 'path, p = 0': DropPath(0.0),
    'attention, p = 0': Attention(0.0),
}  # fmt: skip


@pytest.mark.parametrize('name', NOTHING)
def test_a_network_that_drops_nothing_is_refused(name):
    net = NOTHING[name].train()
    with pytest.raises(NoDropout, match='has no active layer .* all passes would be equal') as error:
        predict(net, torch.randn(2, 4, 5, 5), 4)
    assert '\n' not in str(error.value) and all(m.training is True for m in net.modules())
    assert ('give Dropout a p > 0' in str(error.value)) == (name == 'p = 0')


def test_what_is_known_beforehand():
    both = nn.Sequential(nn.Dropout(0.0), DropPath(0.1), nn.MultiheadAttention(4, 2), nn.LSTM(4, 4), nn.Dropout1d(0.1))
    assert [type(m).__name__ for m in sampling_layers(both)] == ['DropPath', 'Dropout1d']
    assert [type(m).__name__ for m in sampling_layers(both, nn.Dropout1d)] == ['Dropout1d']
    assert may_drop(both) and not may_drop(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
    assert not may_drop(nn.Sequential(nn.Dropout(0.0)))


def test_chosen_layers_sample_alone():
    net = nn.Sequential(Functional(lambda x, m: F.dropout(x, 0.5, m.training)), nn.Dropout(0.5)).eval()
    with sampled_dropout(net, nn.Dropout) as check:
        out = net(torch.ones(1, 4, 50, 50))
        check()
    assert abs((out == 0).float().mean().item() - 0.5) < 5 * 0.5 / 100
    assert (predict(net, torch.ones(1, 4, 8, 8), 4, seed=0).mean != 1).any()


@pytest.mark.parametrize('function', [F.alpha_dropout, F.feature_alpha_dropout])
def test_alpha_dropout_of_a_gaussian(function):
    mean, var = torch.randn(4, 8, 5, 5), torch.rand(4, 8, 5, 5) + 0.1
    torch.manual_seed(1)
    out = function(Gaussian(mean, var), 0.3, True)
    torch.manual_seed(1)
    plain = function(mean, 0.3, True)
    torch.testing.assert_close(out.mean.clone(), plain)
    torch.manual_seed(1)
    slope = (function(mean + 1, 0.3, True) - plain).round(decimals=3)  # of the affine map
    torch.testing.assert_close(out.var.clone(), var * slope.square(), rtol=5e-3, atol=1e-5)
    assert (out.var == 0).any() and (out.var > 0).any()
    x = Gaussian(mean, var)
    assert function(x, 0.3, False) is x and not function(x, 1.0, True).var.any()
    with pytest.raises(ValueError, match='p=1.5 must be a probability'):
        function(x, 1.5, True)
