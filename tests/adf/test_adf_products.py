"""Einstein's sums, products with something added, attention, unit vectors."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmrotate_plugin.adf import Gaussian, NoMomentRule

LINEAR = {
    'matrix': ('ij,jk->ik', (3, 4), (4, 2)),
    'implicit': ('ij,jk', (3, 4), (4, 2)),
    'channels': ('bchw,dc->bdhw', (1, 3, 2, 2), (4, 3)),
    'ellipsis': ('...i,ij->...j', (2, 2, 3), (3, 2)),
    'outer': ('i,j->ij', (3,), (2,)),
    'sum alone': ('ij,jk->k', (3, 4), (4, 2)),
    "a constant's sum alone": ('ij,k->ij', (2, 3), (4,)),
    'both alone': ('ij,k->', (2, 3), (4,)),
    'diagonal': ('ii,i->i', (3, 3), (3,)),
    'batch': ('bij,bjk->bik', (2, 3, 4), (2, 4, 2)),
    'spaces': ('i j, j -> i', (2, 3), (3,)),
    'trace': ('ii->', (3, 3)),
    'transpose': ('ij->ji', (2, 3)),
    'row sums': ('ij->i', (2, 3)),
    'three': ('bi,ij,jk->bk', (2, 3), (3, 4), (4, 2)),
    'ellipsis of a constant': ('...ij,j->...i', (2, 3, 4), (4,)),
}  # fmt: skip


@pytest.mark.parametrize('name', LINEAR)
def test_einsum_with_constants_has_squared_weights(name):
    equation, shape, *shapes = LINEAR[name]
    mean, var = torch.randn(shape, dtype=torch.float64), torch.rand(shape, dtype=torch.float64)
    constants = [torch.randn(s, dtype=torch.float64) for s in shapes]
    weights = torch.autograd.functional.jacobian(lambda x: torch.einsum(equation, x, *constants), mean)
    expected = torch.einsum(equation, mean, *constants)
    out = torch.einsum(equation, Gaussian(mean, var), *constants)
    torch.testing.assert_close(out.mean.clone(), expected)
    squares = weights.square().reshape(expected.numel(), -1) @ var.flatten()
    torch.testing.assert_close(out.var.clone(), squares.reshape(expected.shape))
    assert torch.equal(torch.einsum(equation, [Gaussian(mean, var), *constants]).var, out.var)


@pytest.mark.parametrize('equation, left, right', [
    ('ij,jk->ik', (3, 4), (4, 2)), ('i,j->ij', (3,), (2,)), ('ij,k->i', (2, 3), (2,)),
    ('bhid,bhjd->bhij', (1, 2, 3, 2), (1, 2, 4, 2)),
])  # fmt: skip
def test_einsum_of_two_gaussians_matches_samples(equation, left, right):
    n, generator = 40_000, torch.Generator().manual_seed(0)
    a, b = (Gaussian(torch.randn(s, dtype=torch.float64), torch.rand(s, dtype=torch.float64)) for s in (left, right))
    draws = [g.mu + g.v.sqrt() * torch.randn(n, *g.shape, generator=generator, dtype=torch.float64) for g in (a, b)]
    sample = torch.func.vmap(lambda x, y: torch.einsum(equation, x, y))(*draws)
    centred = sample - sample.mean(0)
    v, m4 = centred.square().mean(0), centred.pow(4).mean(0)
    out = torch.einsum(equation, a, b)
    # five standard errors of a sample mean and of a sample variance
    assert ((out.mean - sample.mean(0)).abs() < 5 * (v / n).sqrt()).all()
    assert ((out.var - v).abs() < 5 * ((m4 - v.square()) / n).sqrt()).all()


def test_what_einsum_cannot():
    x = Gaussian(torch.randn(2, 2), torch.rand(2, 2))
    with pytest.raises(NoMomentRule, match='not for 3 of 3 operands: multiply in steps'):
        torch.einsum('ij,jk,kl->il', x, x, x)
    with pytest.raises(NoMomentRule, match='not for 2 of 3 operands'):
        torch.einsum('ij,jk,kl->il', x, x, x.mu)
    with pytest.raises(ValueError, match='has 2 operands, but 1 are given'):
        torch.einsum('ij,jk->ik', x)


def test_products_with_something_added():
    x, w, b = Gaussian(torch.randn(3, 4), torch.rand(3, 4)), torch.randn(4, 2), torch.randn(3, 2)
    for out in (torch.addmm(b, x, w, beta=0.5, alpha=2), b.addmm(x, w, beta=0.5, alpha=2)):
        torch.testing.assert_close(out.mean.clone(), torch.addmm(b, x.mu, w, beta=0.5, alpha=2))
        torch.testing.assert_close(out.var.clone(), 4 * x.v @ w.square())
    noisy = Gaussian(b, torch.ones(3, 2))
    torch.testing.assert_close(noisy.addmm(x, w, beta=3).var.clone(), 9 + x.v @ w.square())
    torch.testing.assert_close(torch.addmm(noisy, x.mu, w).var.clone(), torch.ones(3, 2))
    many = torch.baddbmm(b.expand(5, 3, 2), x.expand(5, 3, 4), w.expand(5, 4, 2))
    torch.testing.assert_close(many.var.clone(), (x.v @ w.square()).expand(5, 3, 2))
    torch.testing.assert_close(torch.mv(x, w[:, 0]).var.clone(), x.v @ w[:, 0].square())
    torch.testing.assert_close(torch.addmv(b[:, 0], x, w[:, 0]).mean.clone(), b[:, 0] + x.mu @ w[:, 0])
    torch.testing.assert_close(x[0].dot(w[:, 0]).var.clone(), x.v[0] @ w[:, 0].square())
    torch.testing.assert_close(torch.addcmul(x, x.mu, x.v, value=2).var.clone(), x.v)
    torch.testing.assert_close(x.mu.addcmul(x, x.mu, value=3).var.clone(), 9 * x.v * x.mu.square())


SCALED = pytest.param(dict(scale=0.3), marks=pytest.mark.needs_torch('2.1', 'the scale of attention'))


@pytest.mark.parametrize('options', [{}, dict(is_causal=True), SCALED, 'bool', 'float'])
def test_attention(options):
    torch.manual_seed(0)
    mask = torch.rand(5, 5) < 0.7
    mask.fill_diagonal_(True)
    given = {'bool': dict(attn_mask=mask), 'float': dict(attn_mask=torch.randn(5, 5))}
    options = options if isinstance(options, dict) else given[options]
    means = [torch.randn(2, 5, 8) for _ in range(3)]
    q, k, v = (Gaussian(m, torch.full_like(m, 0.01)) for m in means)
    exact = F.scaled_dot_product_attention(*(Gaussian(m, torch.zeros_like(m)) for m in means), **options)
    plain = F.scaled_dot_product_attention(*means, **options)
    torch.testing.assert_close(exact.mean.clone(), plain, rtol=0, atol=1e-3)
    out = F.scaled_dot_product_attention(q, k, v, **options)
    n = 4000
    draws = [(m + 0.1 * torch.randn(n, *m.shape)).flatten(0, 1) for m in means]
    sample = F.scaled_dot_product_attention(*draws, **options).unflatten(0, (n, 2))
    ratio = (out.var / sample.var(0)).sqrt()
    assert 0.95 < ratio.median() < 1.05 and ratio.min() > 0.6 and ratio.max() < 1.6  # the weights add up to 1
    assert (out.mean - sample.mean(0)).abs().max() < 0.02
    with pytest.raises(NoMomentRule, match='Gaussian attn_mask'):
        F.scaled_dot_product_attention(q, k, v, attn_mask=q)


@pytest.mark.parametrize('options', [{}, dict(batch_first=True), dict(bias=False), dict(kdim=6, vdim=5)])
def test_multi_head_attention_of_torch(options):
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(8, 2, **options).eval()
    sizes = (8, options.get('kdim', 8), options.get('vdim', 8))
    means = [torch.randn(5, 5, size) for size in sizes]
    hidden = torch.zeros(5, 5, dtype=torch.bool)
    hidden[0, 1:] = True
    for masks in ({}, dict(attn_mask=hidden), dict(key_padding_mask=hidden), dict(need_weights=False)):
        expected, weights = layer(*means, **masks)
        exact, shown = layer(*(Gaussian(m, torch.zeros_like(m)) for m in means), **masks)
        torch.testing.assert_close(exact.mean.clone(), expected, rtol=0, atol=1e-3)
        assert not exact.var.any() and (shown is None) == (weights is None)
        if shown is not None:
            torch.testing.assert_close(shown.mean.clone(), weights, rtol=0, atol=1e-3)
        noisy, _ = layer(*(Gaussian(m, torch.full_like(m, 0.01)) for m in means), **masks)
        assert (noisy.var > 0).all()
    alone, _ = layer(*(Gaussian(m[:, 0], torch.ones_like(m[:, 0])) for m in means))
    assert alone.shape == (5, 8)
    with pytest.raises(NoMomentRule, match='add_zero_attn'):
        x = Gaussian(torch.randn(5, 5, 8), torch.ones(5, 5, 8))
        nn.MultiheadAttention(8, 2, add_zero_attn=True)(x, x, x)


@pytest.mark.parametrize('function', [lambda x: F.normalize(x, dim=1), lambda x: F.normalize(x, dim=-1)])
def test_unit_vectors(function):
    torch.manual_seed(0)
    mean = torch.randn(4, 64, 64)
    out = function(Gaussian(mean, torch.full_like(mean, 0.1)))
    sample = torch.stack([function(mean + 0.1**0.5 * torch.randn_like(mean)) for _ in range(300)])
    ratio = (out.var / sample.var(0)).sqrt()
    assert 0.97 < ratio.median() < 1.03  # neglected: 1 / 64
    assert torch.allclose(function(Gaussian(mean, torch.zeros_like(mean))).mean, function(mean), atol=1e-6)
    with pytest.raises(NoMomentRule, match='p=2 only, not for p=1'):
        F.normalize(Gaussian(mean, mean.square()), 1.0)


@pytest.mark.needs_torch('2.4', 'torch.nn.functional.rms_norm')
def test_rms_norm():
    layer, mean = nn.RMSNorm(64), torch.randn(8, 64)
    nn.init.uniform_(layer.weight)
    exact = layer(Gaussian(mean, torch.zeros(8, 64)))
    torch.testing.assert_close(exact.mean.clone(), layer(mean))
    scaled = layer(Gaussian(10 * mean, torch.full((8, 64), 10.0)))
    torch.testing.assert_close(scaled.var.clone(), layer(Gaussian(mean, torch.full((8, 64), 0.1))).var.clone())
    assert scaled.var.any()
