"""Monte Carlo dropout over ADF passes: against the closed form for one dropped layer, and what it leaves untouched."""

from typing import NamedTuple

import pytest
import torch
from torch import nn

from mmrotate_plugin.adf import Gaussian
from mmrotate_plugin.adf.mc_dropout import predict


def head(p=0.4):
    return nn.Sequential(nn.Dropout(p), nn.Linear(6, 2)).double()


def test_moments_are_those_of_bernoulli_masks():
    """y = W (k x) with k = 0 or 1 / (1 - p): the variances are known in closed form."""
    net, p, n = head(), 0.4, 4000
    x, var = torch.randn(1, 6, dtype=torch.double), torch.rand(1, 6, dtype=torch.double)
    out = predict(net, Gaussian(x, var), n, seed=0)
    weight, bias = net[1].weight.detach(), net[1].bias.detach()
    data = (var / (1 - p)) @ weight.square().T  # E[k²] = 1 / (1 - p)
    model = (p / (1 - p) * x.square()) @ weight.square().T
    # five standard errors; a sum of six independent terms has a kurtosis of less than 6
    assert ((out.mean - (x @ weight.T + bias)).abs() < 5 * (model / n).sqrt()).all()
    assert ((out.model_variance / model - 1).abs() < 5 * (5 / n) ** 0.5).all()
    spread = (((p / (1 - p) ** 3) * var.square()) @ weight.pow(4).T / n).sqrt()  # Var(k²) = p / (1 - p)³
    assert ((out.data_variance - data).abs() < 5 * spread).all()
    assert torch.equal(out.total_variance, out.data_variance + out.model_variance)
    assert torch.equal(out.std, out.total_variance.sqrt())


def test_variance_of_means_is_unbiased():
    """Over many runs of two passes, the mean of the model variance is right; with 1 / T it would be half of it."""
    net, x = nn.Dropout(0.5), torch.ones(20_000)
    assert predict(net, x, 2, seed=1).model_variance.mean().item() == pytest.approx(1.0, abs=5 * 2 / 20_000**0.5)


def test_equals_two_pass_formulas():
    net, x = head(), torch.randn(3, 6, dtype=torch.double)
    net[0].train()
    torch.manual_seed(5)
    passes = torch.stack([net(x) for _ in range(7)])
    out = predict(net, x, 7, seed=5)
    assert torch.allclose(out.mean, passes.mean(0)) and torch.allclose(out.model_variance, passes.var(0))
    assert torch.equal(out.data_variance, torch.zeros(3, 2, dtype=torch.double))
    assert not out.mean.requires_grad


def test_only_dropout_is_active_and_modes_return():
    net = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3), nn.BatchNorm1d(3))
    net.train()
    net[3].eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    predict(net, torch.randn(5, 4), 3)
    assert [m.training for m in net] == [True, True, True, False]
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    with pytest.raises(RuntimeError):
        predict(net, torch.randn(5, 7), 3)
    assert [m.training for m in net] == [True, True, True, False]


def test_seed_repeats_and_leaves_the_global_state():
    net, x = head(), torch.randn(2, 6, dtype=torch.double)
    state = torch.get_rng_state()
    first, second, other = (predict(net, x, 4, seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.mean, second.mean) and not torch.equal(first.mean, other.mean)
    predict(net, x, 4)
    assert not torch.equal(torch.get_rng_state(), state)


class Two(NamedTuple):
    maps: list
    more: dict


class Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        x = self.dropout(x)
        return Two([x, 2 * x.mean if isinstance(x, Gaussian) else 2 * x], {'a': (x,)})


def test_nested_outputs_keep_their_form():
    x = torch.ones(1, 8)
    out = predict(Nested(), Gaussian(x, 3 * x), 50, seed=0)
    assert isinstance(out, Two) and isinstance(out.maps, list) and set(out.more) == {'a'}
    g, plain, (inner,) = out.maps[0], out.maps[1], out.more['a']
    assert torch.equal(plain.mean, 2 * g.mean) and torch.equal(inner.data_variance, g.data_variance)
    assert (g.data_variance > 0).all() and (plain.data_variance == 0).all()


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout2d(0.5)

    def forward(self, mean, var):
        return self.dropout(mean), var


def test_pairs_of_mean_and_variance():
    mean, var = torch.ones(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.5)
    out = predict(Pair(), (mean, var), 5, pairs=True)
    assert torch.equal(out.data_variance, var) and out.mean.shape == mean.shape
    two = predict(Pair(), (mean, var), 5)  # two outputs
    assert isinstance(two, tuple) and len(two) == 2 and (two[1].data_variance == 0).all()


def test_half_types_are_averaged_in_float32():
    """Steps of bfloat16 at 256 are 2 wide: a mean of 0s and 512s would stick there."""
    out = predict(nn.Dropout(0.5), torch.full((1000,), 256.0, dtype=torch.bfloat16), 400, seed=0)
    assert out.mean.dtype == torch.float32
    assert out.mean.mean().item() == pytest.approx(256, abs=5 * 256 / (400 * 1000) ** 0.5)


def test_progress_bar(capsys):
    predict(head(), torch.randn(1, 6, dtype=torch.double), 3, progress=True)
    assert '3/3' in capsys.readouterr().err
    predict(head(), torch.randn(1, 6, dtype=torch.double), 3)
    assert capsys.readouterr().err == ''  # no terminal


class Growing(nn.Module):
    def __init__(self):
        super().__init__()
        self.dropout, self.n = nn.Dropout(0.5), 0

    def forward(self, x):
        self.n += 1
        return self.dropout(x).new_zeros(self.n)


class Label(nn.Module):
    def forward(self, x):
        return x.argmax(1)


class Text(nn.Module):
    def forward(self, x):
        return str(x)


@pytest.mark.parametrize('net, passes, options, error, text', [
    (head(), 1, {}, ValueError, 'num_samples=1 must be 2 or more'),
    (nn.Linear(6, 2).double(), 3, {}, ValueError, 'Linear has no active layer of the kind Dropout'),
    (head(0.0), 3, {}, ValueError, 'no active layer'),
    (head(), 3, dict(layers=nn.Dropout2d), ValueError, 'of the kind Dropout2d'),
    (Growing(), 3, {}, ValueError, r'shape \(1,\) in one pass and \(2,\)'),
    (nn.Sequential(nn.Dropout(0.5), Label()),
     3, {}, TypeError, 'torch.int64'),
    (nn.Sequential(nn.Dropout(0.5), Text()),
     3, {}, TypeError, 'returns a str'),
])  # fmt: skip
def test_bad_input_is_named(net, passes, options, error, text):
    with pytest.raises(error, match=text):
        predict(net, torch.randn(2, 6, dtype=torch.double), passes, **options)
