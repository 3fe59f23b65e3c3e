import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmrotate_plugin import adf
from mmrotate_plugin.adf import Gaussian, ResNetADF
from mmrotate_plugin.testing import randomize_norms_

# the plain ResNets of the paper's code, by torch alone: names and order of its modules
BLOCKS = {18: (False, (2, 2, 2, 2)), 34: (False, (3, 4, 6, 3)), 50: (True, (3, 4, 6, 3)),
          101: (True, (3, 4, 23, 3)), 152: (True, (3, 8, 36, 3))}  # fmt: skip


class PlainBlock(nn.Module):
    def __init__(self, c_in, width, stride, wide):
        super().__init__()
        c_out = width * (4 if wide else 1)
        layers = [(1, 1), (3, stride), (1, 1)] if wide else [(3, stride), (3, 1)]
        self.n, c = len(layers), c_in
        for i, (k, s) in enumerate(layers):
            out = c_out if i == self.n - 1 else width
            setattr(self, f'conv{i + 1}', nn.Conv2d(c, out, k, s, k // 2, bias=False))
            setattr(self, f'bn{i + 1}', nn.BatchNorm2d(out))
            c = out
        self.shortcut = nn.Sequential()
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x):
        y = x
        for i in range(1, self.n + 1):
            y = getattr(self, f'bn{i}')(getattr(self, f'conv{i}')(y))
            y = F.relu(y) if i < self.n else y
        return F.relu(y + self.shortcut(x))


class PlainResNet(nn.Module):
    def __init__(self, depth, base=64, num_classes=10):
        super().__init__()
        wide, blocks = BLOCKS[depth]
        self.conv1, self.bn1 = nn.Conv2d(3, base, 3, 1, 1, bias=False), nn.BatchNorm2d(base)
        c = base
        for i, n in enumerate(blocks):
            stage = []
            for j in range(n):
                stage.append(PlainBlock(c, base * 2**i, 2 if i and not j else 1, wide))
                c = base * 2**i * (4 if wide else 1)
            setattr(self, f'layer{i + 1}', nn.Sequential(*stage))
        self.linear = nn.Linear(c, num_classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.linear(F.avg_pool2d(x, 4).flatten(1))


@pytest.mark.parametrize('depth', BLOCKS)
def test_the_papers_keys_and_shapes(depth):
    with torch.device('meta'):
        ours, theirs = getattr(adf, f'ResNet{depth}ADF')().state_dict(), PlainResNet(depth).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}
    assert {'conv1.weight', 'layer2.0.shortcut.0.weight', 'layer2.0.shortcut.1.running_var', 'linear.bias'} <= set(ours)


@pytest.mark.parametrize('depth', BLOCKS)
def test_without_noise_it_is_the_plain_network(depth):
    plain = randomize_norms_(PlainResNet(depth, base=8)).eval()
    net = ResNetADF(depth, noise_variance=0, min_variance=0, base_channels=8).eval()
    net.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        mean, var = net(x)
        torch.testing.assert_close(mean, plain(x), rtol=1e-4, atol=1e-5)
        assert not var.any()
        net.noise_variance = 1e-2
        noisy_mean, var = net(x)
    assert (var > 0).all() and var.isfinite().all() and not torch.equal(noisy_mean, mean)


def small(**options):
    torch.manual_seed(0)
    return ResNetADF(18, base_channels=8, **options).eval()


@torch.no_grad()
def test_every_argument_has_an_effect():
    x = torch.randn(2, 3, 32, 32)
    usual = small(min_variance=0)(x)
    assert (small(noise_variance=1e-2, min_variance=0)(x)[1] > 2 * usual[1]).all()
    assert not torch.allclose(small(noise_variance=(1e-3, 1e-3, 1e-2), min_variance=0)(x)[1], usual[1])
    equal = small(noise_variance=(1e-3, 1e-3, 1e-3), min_variance=0)(x)
    assert all(torch.equal(a, b) for a, b in zip(equal, usual, strict=True))
    assert (small(min_variance=100.0)(x)[1] >= 100).all() and usual[1].max() < 100
    assert small(num_classes=4)(x)[0].shape == (2, 4)
    assert small(in_channels=1)(x[:, :1])[1].shape == (2, 10)
    dropping = small(p=0.3).train()
    for module in dropping.modules():
        module.training = isinstance(module, nn.Dropout2d)
    assert not torch.equal(dropping(x)[0], dropping(x)[0])
    assert sum(isinstance(m, adf.Dropout) for m in dropping.modules()) == 9


@torch.no_grad()
def test_the_floor_is_a_clamp_and_does_not_pile_up():
    x = torch.randn(2, 3, 32, 32)
    free, floored = small(min_variance=0)(x)[1], small(min_variance=1e-12)(x)[1]
    torch.testing.assert_close(floored, free, rtol=1e-3, atol=0)


@torch.no_grad()
def test_a_gaussian_is_taken_as_it_is():
    x = torch.randn(2, 3, 32, 32)
    out = small(noise_variance=5.0)(Gaussian(x, torch.full_like(x, 1e-3)))
    mean, var = small()(x)
    assert torch.equal(out.mean, mean) and torch.equal(out.var, var)


@torch.no_grad()
def test_any_size_and_copies():
    net = small()
    assert net(torch.randn(1, 3, 45, 70))[1].shape == (1, 10)
    x = torch.randn(1, 3, 32, 32)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(other(x)[1], net(x)[1])


@pytest.mark.parametrize('depth', [18, 50])
def test_it_trains(depth):
    net = ResNetADF(depth, base_channels=8).train()
    mean, var = net(torch.randn(8, 3, 32, 32))
    target = torch.randn(8, 10)
    ((target - mean).square() / var + var.log()).mean().backward()
    assert not [n for n, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert all(p.grad.any() for p in (net.conv1.weight, net.linear.weight))


@pytest.mark.parametrize('block', [adf.BasicBlock, adf.Bottleneck])
def test_blocks_take_pairs_and_gaussians(block):
    net = block(8, 8, 2, keep_variance_fn=lambda v: v + 1).eval()
    mean, var = torch.randn(2, 8, 9, 9), torch.rand(2, 8, 9, 9)
    a, b = net(mean, var)
    g = net(Gaussian(mean, var))
    assert a.shape == (2, 8 * block.expansion, 5, 5)
    assert torch.equal(a, g.mean) and torch.equal(b, g.var) and (b >= 1).all()
    assert (block(8, 8, min_variance=0.5).eval()(mean, var)[1] >= 0.5).all()


BAD = [
    (dict(depth=20), ValueError, 'depth=20 is unknown: use one of 18, 34, 50, 101, 152'),
    (dict(noise_variance=-1.0), ValueError, 'noise_variance=-1.0 must be finite and non-negative'),
    (dict(noise_variance=float('nan')), ValueError, 'noise_variance=nan'),
    (dict(noise_variance=(0.1, 0.2)), ValueError, 'has 2 values.*3 channels'),
    (dict(noise_variance='large'), TypeError, "noise_variance='large' must be a number"),
    (dict(min_variance=-1e-3), ValueError, 'min_variance=-0.001'),
    (dict(p=1.5), ValueError, '1.5'),
]


@pytest.mark.parametrize('bad, error, message', BAD, ids=[m for _, _, m in BAD])
def test_bad_arguments_are_named(bad, error, message):
    with pytest.raises(error, match=message):
        ResNetADF(**{'depth': 18, 'base_channels': 8, **bad})


@pytest.mark.parametrize('seed', [0, 1, 2])
@pytest.mark.parametrize('likelihood', ['softmax', 'gaussian'])
def test_training_stays_finite_and_learns(seed, likelihood):
    """The published code ends in NaN by the third step."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randn(4, 1, 8, 8, generator=generator)
    torch.manual_seed(seed)
    net = adf.ResNetADF(18, noise_variance=0.36, min_variance=1e-3, num_classes=4, in_channels=1, base_channels=8)
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    losses = []
    for _ in range(12):
        labels = torch.randint(4, (32,), generator=generator)
        images = patterns[labels] + 0.6 * torch.randn(32, 1, 8, 8, generator=generator)
        probability = torch.softmax(adf.Gaussian(*net(images)), 1)
        if likelihood == 'softmax':
            loss = F.nll_loss(probability.mean.clamp_min(1e-8).log(), labels)
        else:
            var = probability.var + 1e-3
            loss = (0.5 * (F.one_hot(labels, 4) - probability.mean).square() / var + 0.5 * var.log()).mean()
        optimizer.zero_grad()
        loss.backward()
        assert loss.isfinite()
        assert all(p.grad.isfinite().all() for p in net.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-3:]) < sum(losses[:3])
