"""Norms against running samples, hand computation and torch's own norms; dropout against samples."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmrotate_plugin.adf import Gaussian, NoMomentRule
from mmrotate_plugin.adf.functional.normalization import analytic_dropout


def gaussian(*shape: int, dtype=torch.float64) -> Gaussian:
    return Gaussian(torch.randn(*shape, dtype=dtype) * 2 + 1, torch.rand(*shape, dtype=dtype) + 0.1)


def randomized(norm: nn.Module) -> nn.Module:
    for name, values in (*norm.named_parameters(), *norm.named_buffers()):
        if values.is_floating_point():
            values.data.uniform_(0.5, 4) if 'var' in name else values.data.normal_()
    return norm


def relative_error(actual, expected) -> float:
    return float(((actual - expected).norm() / expected.norm()).detach())


def mixture(x: Gaussian, n: int = 2000):
    """Samples of every value, (n, *shape): their statistics are what a norm of the values would see."""
    return x.mean + x.std * torch.randn(n, *x.shape, dtype=x.dtype)


@pytest.mark.parametrize('affine', [True, False])
def test_batch_norm_in_eval_mode_divides_by_the_running_variance(affine):
    norm = randomized(nn.BatchNorm2d(3, affine=affine, eps=0.1)).double().eval()
    x = gaussian(2, 3, 4, 5)
    out = norm(x)
    weight = norm.weight if affine else torch.ones(3, dtype=torch.float64)
    expected = x.var * (weight**2 / (norm.running_var + 0.1))[:, None, None]
    assert torch.equal(out.mean, norm(x.mean))
    assert relative_error(out.var, expected) < 1e-12
    assert relative_error(x.var * (weight**2)[:, None, None], expected) > 0.1  # the published rule


def test_batch_norm_of_the_issue():
    norm = nn.BatchNorm2d(1, eps=0).eval()
    norm.running_var.fill_(4)
    assert norm(Gaussian(torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), 0.09))).var.item() == pytest.approx(0.0225)


def test_torch_batch_norm_is_the_same():
    x, p = gaussian(2, 3, 4), [torch.rand(3, dtype=torch.float64) + 0.5 for _ in range(4)]
    expected = F.batch_norm(x, p[2], p[3], p[0], p[1])
    out = torch.batch_norm(x, *p, False, 0.1, 1e-5, True)
    assert torch.equal(out.mean, expected.mean) and torch.equal(out.var, expected.var)


def test_sync_batch_norm_in_eval_mode_and_in_one_process():
    x = gaussian(4, 3, 5, 5)
    plain = randomized(nn.BatchNorm2d(3)).double()
    sync = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(plain))
    for mode in (False, True):
        out, expected = sync.train(mode)(x), plain.train(mode)(x)
        assert torch.equal(out.mean, expected.mean) and torch.equal(out.var, expected.var)
        assert torch.equal(sync.running_var, plain.running_var)


@pytest.mark.parametrize('shape', [(8, 3), (4, 3, 6), (4, 3, 5, 6), (2, 3, 4, 3, 3)])
def test_batch_norm_in_training_uses_the_variance_of_the_mixture(shape):
    x = gaussian(*shape)
    norm = randomized({2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[len(shape)](3))
    norm = norm.double().train()
    samples = mixture(x).flatten(0, 1)  # a batch of all samples has total variance
    reference = copy.deepcopy(norm)
    normed = reference(samples).unflatten(0, (-1, shape[0]))
    out = norm(x)
    # standard errors: 2000 samples of n values, so a relative 1 / sqrt(2000) of each variance
    assert relative_error(out.mean, normed.mean(0)) < 5 / 2000**0.5
    assert relative_error(out.var, normed.var(0)) < 5 * (2 / 2000) ** 0.5
    # Var(m) alone is no such norm
    assert relative_error(F.batch_norm(x.mean, None, None, norm.weight, norm.bias, True), normed.mean(0)) > 0.02


@pytest.mark.parametrize('momentum', [0.1, 0.5, None])
def test_running_statistics_learn_the_total_variance(momentum):
    norm = nn.BatchNorm2d(2, momentum=momentum).double()
    x = gaussian(3, 2, 4, 4)
    y = gaussian(3, 2, 4, 4)
    n = 3 * 4 * 4
    mean, var = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    for step, value in enumerate((x, y), 1):
        norm(value)
        rate = 1 / step if momentum is None else momentum
        m, v = (values.transpose(0, 1).flatten(1) for values in (value.mean, value.var))
        total = ((m - m.mean(1, keepdim=True)) ** 2).mean(1) + v.mean(1)
        mean = (1 - rate) * mean + rate * m.mean(1)
        var = (1 - rate) * var + rate * total * n / (n - 1)
    assert norm.num_batches_tracked == 2
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, var)
    assert not norm.running_var.requires_grad


def test_without_variance_training_is_torchs():
    norm = randomized(nn.BatchNorm2d(4)).train()
    reference = copy.deepcopy(norm)
    x = torch.randn(4, 4, 6, 6) * 3 + 5
    out = norm(Gaussian(x, torch.zeros_like(x)))
    torch.testing.assert_close(out.mean, reference(x), rtol=1e-5, atol=1e-5)
    assert not out.var.any()
    torch.testing.assert_close(norm.running_mean, reference.running_mean)
    torch.testing.assert_close(norm.running_var, reference.running_var)
    bare = nn.BatchNorm2d(4, affine=False, track_running_stats=False).eval()  # batch statistics in eval mode too
    torch.testing.assert_close(bare(Gaussian(x, torch.zeros_like(x))).mean, bare(x), rtol=1e-5, atol=1e-5)


NORMS = {
    'batch': lambda x: F.batch_norm(x, None, None, training=True, eps=1e-9),
    'instance': lambda x: F.instance_norm(x, eps=1e-9),
    'group': lambda x: F.group_norm(x, 2, eps=1e-9),
    'layer': lambda x: F.layer_norm(x, (4, 5, 5), eps=1e-9),
    'last': lambda x: F.layer_norm(x, (5,), eps=1e-9),
}


@pytest.mark.parametrize('name', NORMS)
def test_scaling_the_input_changes_nothing(name):
    x = gaussian(3, 4, 5, 5, dtype=torch.float32)
    out, scaled = NORMS[name](x), NORMS[name](x * 3)
    assert relative_error(scaled.mean, out.mean) < 1e-5
    assert relative_error(scaled.var, out.var) < 1e-5
    odd = NORMS[name](Gaussian(x.mean * 3, x.var))  # the control: another ratio of the two variances
    assert relative_error(odd.var, out.var) > 0.1


@pytest.mark.parametrize('name', NORMS)
def test_normalised_values_have_unit_total_variance(name):
    out = NORMS[name](gaussian(3, 4, 6, 5) if name == 'last' else gaussian(3, 4, 5, 5))
    dims = {'batch': (0, 2, 3), 'instance': (2, 3), 'layer': (1, 2, 3), 'last': (3,)}.get(name)
    mean, var = (v.unflatten(1, (2, 2)) if name == 'group' else v for v in (out.mean, out.var))
    total = mean.var(dims or (2, 3, 4), correction=0) + var.mean(dims or (2, 3, 4))
    torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-6, atol=0)


MODULES = {
    'batch': nn.BatchNorm2d(4),
    'instance': nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
    'group': nn.GroupNorm(2, 4),
    'layer': nn.LayerNorm((4, 5, 5)),
    'last': nn.LayerNorm(5),
}


@pytest.mark.parametrize('name', MODULES)
def test_without_variance_every_norm_is_torchs(name):
    norm = randomized(copy.deepcopy(MODULES[name]))
    reference = copy.deepcopy(norm)
    x = torch.randn(3, 4, 5, 5) * 2 + 1
    for mode in (True, False):
        out, plain = norm.train(mode)(Gaussian(x, torch.zeros_like(x))), reference.train(mode)(x)
        torch.testing.assert_close(out.mean, plain, rtol=1e-5, atol=1e-5)
        assert not out.var.any()
    for buffer, expected in zip(norm.buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(buffer, expected)


@pytest.mark.parametrize('name', MODULES)
def test_norm_of_a_gaussian_matches_samples_of_many_values(name):
    """Statistics over n values are constants up to 1 / sqrt(n): with n = 2,560 at least, below 5 %."""
    shape = (2, 4, 160, 32) if name != 'last' else (2, 4, 2, 2560)
    norm = randomized({'layer': nn.LayerNorm(shape[1:]), 'last': nn.LayerNorm(2560)}.get(name, MODULES[name])).double()
    x = gaussian(*shape)
    samples = torch.stack([norm(x.mean + x.std * torch.randn_like(x.mean)) for _ in range(200)])
    out = norm(x)
    # 200 samples: a variance is uncertain by 10 %, its average over the map by far less than that
    assert relative_error(out.mean, samples.mean(0)) < 0.1
    assert abs(float((samples.var(0) / out.var).mean().detach()) - 1) < 0.01


@pytest.mark.parametrize('name', MODULES)
def test_gradients(name):
    norm = randomized(copy.deepcopy(MODULES[name])).double().train()

    def moments(mean, var, *parameters):
        given = dict(zip(dict(norm.named_parameters()), parameters, strict=True))
        buffers = {k: v.clone() for k, v in norm.named_buffers()}
        out = torch.func.functional_call(norm, {**given, **buffers}, Gaussian(mean, var))
        return out.mean, out.var

    x = gaussian(2, 4, 5, 5)
    inputs = [v.detach().clone().requires_grad_() for v in (x.mean, x.var, *norm.parameters())]
    assert torch.autograd.gradcheck(moments, inputs, fast_mode=True)
    norm.eval()
    assert torch.autograd.gradcheck(moments, inputs, fast_mode=True)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('var', [0.0, 1e-45, 1e-30, 1e30])
@pytest.mark.parametrize('name', MODULES)
def test_no_variance_gives_nan(name, var, dtype):
    norm = copy.deepcopy(MODULES[name]).to(dtype)
    for mean in (torch.randn(2, 4, 5, 5) * 1e3, torch.zeros(2, 4, 5, 5)):
        x = Gaussian(mean.to(dtype).requires_grad_(), torch.full_like(mean, var, dtype=dtype).requires_grad_())
        for mode in (True, False):
            out = norm.train(mode)(x)
            assert out.dtype == out.var.dtype == dtype
            (out.mean.float() * torch.randn_like(mean) + out.var.float() / max(var, 1)).sum().backward()
            for values in (out.mean, out.var, x.mean.grad, x.var.grad):
                assert values.isfinite().all()
            assert (out.var >= 0).all()


def test_half_values_with_float32_parameters():
    """What mixed precision does: the norm's parameters stay in float32."""
    norm, x = randomized(nn.BatchNorm2d(4)), gaussian(2, 4, 5, 5, dtype=torch.float32)
    for mode in (True, False):
        expected, out = copy.deepcopy(norm).train(mode)(x), copy.deepcopy(norm).train(mode)(x.bfloat16())
        assert out.dtype == out.var.dtype == torch.bfloat16
        torch.testing.assert_close(out.var.float(), expected.var, rtol=2**-5, atol=1e-3)


def test_norms_refuse_what_they_cannot_do():
    x = gaussian(1, 3)
    with pytest.raises(ValueError, match=r'two values per channel, but the shape is \(1, 3\)'):
        F.batch_norm(x, None, None, training=True)
    with pytest.raises(ValueError, match='eps=0 must be positive'):
        F.batch_norm(gaussian(2, 3), None, None, training=True, eps=0)
    with pytest.raises(ValueError, match=r'two values per channel and sample, but the shape is \(1, 3, 1\)'):
        F.instance_norm(gaussian(1, 3, 1))
    with pytest.raises(ValueError, match='num_groups=2 does not divide the 3 channels'):
        F.group_norm(x, 2)
    with pytest.raises(ValueError, match=r'normalized_shape=\(4,\) does not end the shape \(1, 3\)'):
        F.layer_norm(x, (4,))
    for image in (x, x.mean):
        for norm in (lambda w: F.group_norm(image, 1, w), lambda w: F.layer_norm(image, (3,), w)):  # noqa: B023
            with pytest.raises(NoMomentRule, match="_norm' has no moment rule for a Gaussian weight"):
                norm(gaussian(3))
        with pytest.raises(NoMomentRule, match="'batch_norm' has no moment rule for a Gaussian running_var"):
            F.batch_norm(image, None, gaussian(3))


DROPOUTS = [F.dropout, F.dropout1d, F.dropout2d, F.dropout3d]


@pytest.mark.parametrize('dropout', DROPOUTS)
@pytest.mark.parametrize('inplace', [False, True])
def test_dropout_draws_the_mask_of_the_plain_tensor(dropout, inplace):
    shape = (4, 50, *[3] * {F.dropout: 2, F.dropout1d: 1, F.dropout2d: 2, F.dropout3d: 3}[dropout])
    x = gaussian(*shape)
    torch.manual_seed(1)
    out = dropout(x, 0.3, True, inplace)
    torch.manual_seed(1)
    mask = dropout(torch.ones(shape, dtype=torch.float64), 0.3, True)
    assert set(mask.unique().tolist()) == {0, 1 / 0.7}
    torch.testing.assert_close(out.mean, x.mean * mask)
    torch.testing.assert_close(out.var, x.var * mask**2)
    assert dropout(x, 0.3, False) is x and not dropout(x, 1.0, True).var.any()
    with pytest.raises(ValueError, match='1.5'):
        dropout(x, 1.5, True)


def test_dropout_modules_and_the_functions_below_them():
    x = gaussian(2, 8, 4, 4)
    for module, function in ((nn.Dropout(0.4), torch.dropout), (nn.Dropout2d(0.4), torch.feature_dropout)):
        torch.manual_seed(2)
        out = module(x)
        torch.manual_seed(2)
        assert torch.equal(out.var, function(x, 0.4, True).var)
        assert module.eval()(x) is x
    dropped = (nn.Dropout2d(0.4)(x).mean == 0).flatten(2)
    assert torch.equal(dropped.all(2), dropped.any(2))


def test_analytic_dropout_matches_samples():
    n, p = 200_000, 0.3
    x = gaussian(3)
    samples = F.dropout(x.mean + x.std * torch.randn(n, 3, dtype=torch.float64), p, True)
    centred = samples - samples.mean(0)
    v, m4 = centred.square().mean(0), centred.pow(4).mean(0)
    out = analytic_dropout(x, p)
    assert ((out.mean - samples.mean(0)).abs() < 5 * (v / n).sqrt()).all()
    assert ((out.var - v).abs() < 5 * ((m4 - v.square()) / n).sqrt()).all()
    assert (out.var / x.var > 1).all() and torch.equal(analytic_dropout(x, 0.0).var, x.var)
    # as Monte Carlo over sampled masks says: mean of variances plus variance of means
    runs = [F.dropout(Gaussian(x.mean.expand(n, 3), x.var.expand(n, 3)), p, True)]
    total = runs[0].var.mean(0) + runs[0].mean.var(0)
    torch.testing.assert_close(out.var, total, rtol=0.03, atol=0)
    for wrong in (-0.1, 1.0):
        with pytest.raises(ValueError, match=f'p={wrong} must be'):
            analytic_dropout(x, wrong)
