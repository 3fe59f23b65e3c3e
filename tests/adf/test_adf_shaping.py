"""Moves act on mean and variance alike: both tensors must be torch's own result for them."""

import pytest
import torch
import torch.nn.functional as F

from mmrotate_plugin.adf import Gaussian, NoMomentRule
from mmrotate_plugin.adf.functional.shaping import ASKED, MOVED
from mmrotate_plugin.adf.moment_rules import RULES

INDEX = torch.tensor([1, 0, 1])

MOVES = {
    'view': lambda x: x.view(2, -1),
    'view list': lambda x: x.view([16, 9]),
    'view_as': lambda x: x.view_as(torch.empty(16, 9)),
    'reshape': lambda x: x.reshape(2, 2, -1, 3),
    'torch.reshape': lambda x: torch.reshape(x, (2, -1)),
    'flatten': lambda x: torch.flatten(x, 1),
    'flatten method': lambda x: x.flatten(2, -1),
    'unflatten': lambda x: x.unflatten(1, (2, 2)),
    'ravel': lambda x: x.ravel(),
    'squeeze': lambda x: x[:1].squeeze(),
    'squeeze dim': lambda x: torch.squeeze(x[:, :1], 1),
    'unsqueeze': lambda x: x.unsqueeze(-1),
    'permute': lambda x: x.permute(0, 2, 3, 1),
    'torch.permute': lambda x: torch.permute(x, (3, 0, 1, 2)),
    'transpose': lambda x: x.transpose(1, 2),
    'swapaxes': lambda x: torch.swapaxes(x, 0, 1),
    'movedim': lambda x: torch.movedim(x, 1, -1),
    't': lambda x: x.flatten(1).t(),
    'roll': lambda x: torch.roll(x, (1, -1), (1, 2)),
    'roll method': lambda x: x.roll(2, dims=1),
    'flip': lambda x: x.flip(-1),
    'rot90': lambda x: torch.rot90(x, 1, (-2, -1)),
    'pixel_shuffle': lambda x: F.pixel_shuffle(x, 2),
    'pixel_unshuffle': lambda x: F.pixel_unshuffle(x, 3),
    'channel_shuffle': lambda x: F.channel_shuffle(x, 2),
    'expand': lambda x: x[:1].expand(5, -1, -1, -1),
    'expand_as': lambda x: x[:1].expand_as(torch.empty(5, 4, 6, 3)),
    'repeat': lambda x: x.repeat(2, 1, 1, 2),
    'repeat_interleave': lambda x: torch.repeat_interleave(x, 2, dim=1),
    'tile': lambda x: torch.tile(x, (2, 1)),
    'broadcast_to': lambda x: torch.broadcast_to(x[:1], (3, 4, 6, 3)),
    'narrow': lambda x: x.narrow(1, 1, 2),
    'select': lambda x: x.select(1, 2),
    'diagonal': lambda x: torch.diagonal(x, dim1=2, dim2=3),
    'unfold method': lambda x: x.unfold(2, 3, 2),
    'F.unfold': lambda x: F.unfold(x, 3, padding=1, stride=2),
    'index_select': lambda x: torch.index_select(x, 1, INDEX),
    'gather': lambda x: x.gather(0, torch.ones(1, 4, 6, 3, dtype=torch.long)),
    'take_along_dim': lambda x: torch.take_along_dim(x, torch.zeros(2, 4, 6, 1, dtype=torch.long), 3),
    'masked_select': lambda x: torch.masked_select(x, torch.eye(6, 3).bool()),
    'getitem int': lambda x: x[1],
    'getitem slices': lambda x: x[..., ::2, ::2],
    'getitem none': lambda x: x[:, None, 1:],
    'getitem index': lambda x: x[:, INDEX],
    'getitem mask': lambda x: x[torch.tensor([True, False])],
    'getitem pair': lambda x: x[INDEX, 2],
    'clone': lambda x: x.clone(memory_format=torch.channels_last),
    'contiguous': lambda x: x.transpose(1, 2).contiguous(),
    'detach': lambda x: x.detach(),
    'double': lambda x: x.double(),
    'bfloat16': lambda x: x.bfloat16(),
    'half': lambda x: x.half(),
    'to': lambda x: x.to(torch.float64),
    'to both': lambda x: x.to('cpu', torch.float64),
    'to layout': lambda x: x.to(memory_format=torch.channels_last),
    'cpu': lambda x: x.cpu(),
    'type': lambda x: x.type(torch.float64),
    'type_as': lambda x: x.type_as(torch.empty(1, dtype=torch.float64)),
    'float': lambda x: x.double().float(),
}

SPLITS = {
    'chunk': lambda x: x.chunk(3, 2),
    'torch.chunk': lambda x: torch.chunk(x, 2, dim=1),
    'split': lambda x: torch.split(x, [1, 3], dim=1),
    'split method': lambda x: x.split(2, 1),
    'tensor_split': lambda x: torch.tensor_split(x, 4, dim=2),
    'unbind': lambda x: x.unbind(1),
    'torch.unbind': torch.unbind,
    'iteration': tuple,
}


def gaussian(*shape: int) -> Gaussian:
    return Gaussian(torch.randn(*shape), torch.rand(*shape))


def assert_equal(out: Gaussian, mean, var):
    assert type(out) is Gaussian
    for actual, expected in ((out.mean, mean), (out.var, var)):
        assert torch.equal(actual, expected) and actual.dtype == expected.dtype
        assert actual.stride() == expected.stride()


@pytest.mark.parametrize('name', MOVES)
def test_moves(name):
    x = gaussian(2, 4, 6, 3)
    assert_equal(MOVES[name](x), MOVES[name](x.mean), MOVES[name](x.var))


@pytest.mark.parametrize('name', SPLITS)
def test_splits_give_tuples_of_gaussians(name):
    x = gaussian(2, 4, 6, 3)
    out = SPLITS[name](x)
    assert isinstance(out, tuple)
    for part, mean, var in zip(out, SPLITS[name](x.mean), SPLITS[name](x.var), strict=True):
        assert_equal(part, mean, var)


@pytest.mark.parametrize('name', [*MOVED, *ASKED])
def test_every_name_has_a_rule(name):
    owners = [owner for owner in (torch, torch.Tensor) if callable(getattr(owner, name, None))]
    assert owners and all(getattr(owner, name) in RULES for owner in owners)


def test_gaussians_lend_their_shape_and_type():
    x, y = gaussian(1, 3), gaussian(4, 3)
    assert_equal(x.expand_as(y), x.mean.expand(4, 3), x.var.expand(4, 3))
    assert_equal(y.view_as(gaussian(3, 4)), y.mean.view(3, 4), y.var.view(3, 4))
    plain = torch.randn(1, 3, dtype=torch.float64)
    assert torch.equal(plain.expand_as(y), plain.expand(4, 3))
    assert plain.type_as(y).dtype == plain.to(y).dtype == torch.float32
    assert x.to(plain).var.dtype == torch.float64


def test_in_place_moves_return_the_result():
    x = gaussian(1, 3)
    assert x.squeeze_(0).shape == (3,) and x.unsqueeze_(0).shape == (1, 1, 3)
    assert x.shape == (1, 3)
    assert x.requires_grad_().requires_grad and x.mean.requires_grad and x.var.requires_grad


def test_questions_are_answered_by_the_mean():
    x = gaussian(2, 3)
    assert x.size(0) == 2 and x.stride() == (3, 1) and x.is_contiguous() and x.is_floating_point()
    assert torch.is_floating_point(x) and torch.numel(x) == 6 and x.type() == 'torch.FloatTensor'
    for new in (torch.zeros_like(x), x.new_zeros(2, 3)):
        assert type(new) is torch.Tensor and new.shape == (2, 3) and not new.any()
    noise = x.new_empty(2, 1).bernoulli_(0.5)  # stochastic depth
    assert_equal(x * noise, x.mean * noise, x.var * noise)


@pytest.mark.parametrize('join', [torch.cat, torch.concat, torch.concatenate, torch.stack])
def test_joins_take_plain_tensors_as_exact(join):
    x, y, plain = gaussian(2, 3), gaussian(2, 3), torch.randn(2, 3)
    assert_equal(join([x, y], 1), join([x.mean, y.mean], 1), join([x.var, y.var], 1))
    zeros = torch.zeros(2, 3)
    assert_equal(join([x, plain], dim=0), join([x.mean, plain], 0), join([x.var, zeros], 0))
    assert_equal(join(tensors=(plain, x)), join([plain, x.mean]), join([zeros, x.var]))
    floored = join([Gaussian(x.mean, x.var, min_variance=0.01), plain])
    assert floored.var.min() == pytest.approx(0.01)


def test_where_and_masked_fill():
    x, y, plain = gaussian(2, 3), gaussian(3), torch.randn(2, 3)
    mask = torch.tensor([[True], [False]])
    zeros = torch.zeros(2, 3)
    assert_equal(torch.where(mask, x, y), torch.where(mask, x.mean, y.mean), torch.where(mask, x.var, y.var))
    assert_equal(torch.where(mask, plain, x), torch.where(mask, plain, x.mean), torch.where(mask, zeros, x.var))
    assert_equal(torch.where(mask, x, 2.0), torch.where(mask, x.mean, 2.0), torch.where(mask, x.var, 0.0))
    assert_equal(x.where(mask, y), torch.where(mask, x.mean, y.mean), torch.where(mask, x.var, y.var))
    for out in (x.masked_fill(mask, -1.0), torch.masked_fill(x, mask, -1.0), x.masked_fill_(mask, -1.0)):
        assert_equal(out, x.mean.masked_fill(mask, -1.0), x.var.masked_fill(mask, 0.0))
    with pytest.raises(NoMomentRule, match='Gaussian condition'):
        torch.where(x, x, y)


def test_integers_are_refused():
    with pytest.raises(TypeError, match='mean must be .* torch.int64'):
        gaussian(2).to(torch.int64)


def test_gradients_go_back_to_both():
    x = gaussian(2, 4, 3, 3)
    x.requires_grad_()
    parts = x.permute(0, 2, 3, 1).reshape(2, 9, 4)[:, 1:].chunk(2, 1)
    out = torch.cat([parts[1], torch.zeros(2, 4, 4)], 1)
    (out.mean.sum() + 3 * out.var.sum()).backward()
    assert x.mean.grad.sum() == 32 and x.var.grad.sum() == 96
