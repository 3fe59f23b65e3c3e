import copy
import io

import e2cnn.nn as enn
import pytest
import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule, build_conv_layer
from mmengine.registry import MODELS as ROOT

import mmrotate_plugin  # noqa: F401
from mmrotate_plugin.equivariant import (
    build_enn_divide_feature,
    build_enn_trivial_feature,
    ennConv,
    ennTrivialConv,
    group_order,
)
from mmrotate_plugin.equivariant._e2cnn import e2cnn_on_numpy_2
from mmrotate_plugin.equivariant.basis import steerable_basis
from mmrotate_plugin.testing import relative_error

EQUAL = 1e-6  # relative, float32: 8 units in the last place


def e2cnn_conv(layer, **options):
    """e2cnn's layer of the same kind, with the coefficients of `layer`."""
    make_in = build_enn_trivial_feature if layer.trivial_input else build_enn_divide_feature
    with e2cnn_on_numpy_2():
        reference = enn.R2Conv(
            make_in(layer.in_channels, layer.group),
            build_enn_divide_feature(layer.out_channels, layer.group),
            layer.kernel_size[0],
            stride=layer.stride[0],
            padding=layer.padding[0],
            dilation=layer.dilation[0],
            groups=layer.groups,
            bias=layer.bias is not None,
            padding_mode=layer.padding_mode,
            maximum_offset=layer.maximum_offset,
            **{'frequencies_cutoff': lambda r: 3 * r, **options},
        )
    with torch.no_grad():
        reference.weights.copy_(layer.weight.flatten())
        if layer.bias is not None:
            layer.bias.normal_()
            reference.bias.copy_(layer.bias)
    return reference.train()


CASES = [
    dict(group='C8', kernel_size=1),
    dict(group='C8', kernel_size=3, padding=1, bias=False),
    dict(group='C8', kernel_size=5, padding=2, stride=2),
    dict(group='C8', kernel_size=7, padding=3),
    dict(group='C8', kernel_size=3, padding=2, dilation=2),
    dict(group='C8', kernel_size=3, padding=1, groups=2),
    dict(group='C8', kernel_size=3, padding=1, padding_mode='reflect'),
    dict(group='C8', kernel_size=3, padding=2, padding_mode='circular'),
    dict(group='C4', kernel_size=3, padding=1, padding_mode='replicate'),
    dict(group='C16', kernel_size=3),
    dict(group='D4', kernel_size=3, stride=2),
    dict(group='D4', kernel_size=5),
    dict(group='D8', kernel_size=3),
    dict(group='C6', kernel_size=3),
    dict(group='C3', kernel_size=5),
]


@pytest.mark.parametrize('case', CASES, ids=str)
def test_regular_conv_equals_e2cnn(case):
    order = group_order(case['group'])
    layer = ennConv(2 * order, 4 * order, **case)
    reference = e2cnn_conv(layer, initialize=False)
    expected_filter, expected_bias = reference.expand_parameters()
    x = torch.randn(2, 2 * order, 9, 9)
    expected = reference(enn.GeometricTensor(x, reference.in_type)).tensor

    assert relative_error(layer.expand(), expected_filter) < EQUAL
    assert relative_error(layer(x), expected) < EQUAL
    if layer.bias is not None:
        assert relative_error(layer.expand_bias(), expected_bias) < EQUAL


@pytest.mark.parametrize(('group', 'kernel_size'), [('C4', 3), ('C8', 3), ('C8', 5), ('D4', 3)])
@pytest.mark.parametrize('cutoff', [1.0, 2.0, None, (lambda r: r + 1)], ids=['1r', '2r', 'e2cnn', 'function'])
@pytest.mark.parametrize('offset', [None, 0, 1])
def test_band_limit_and_offset_mean_what_they_do_in_e2cnn(group, cutoff, offset, kernel_size):
    order = group_order(group)
    layer = ennConv(order, 2 * order, kernel_size, group=group, frequencies_cutoff=cutoff, maximum_offset=offset)
    theirs = e2cnn_conv(layer, initialize=False, frequencies_cutoff=cutoff)
    assert relative_error(layer.expand(), theirs.expand_parameters()[0]) < EQUAL
    redets = ennConv(order, 2 * order, kernel_size, group=group)
    assert layer.weight.numel() < redets.weight.numel()  # each of these leaves some kernels out


def test_one_limit_per_ring_the_last_of_which_serves_the_rest():
    by_ring = ennConv(16, 16, 5, frequencies_cutoff=(0, 1, 3))
    theirs = e2cnn_conv(by_ring, initialize=False, frequencies_cutoff=lambda r: {0: 0, 1: 1, 2: 3}[r])
    assert relative_error(by_ring.expand(), theirs.expand_parameters()[0]) < EQUAL
    assert ennConv(16, 16, 7, frequencies_cutoff=(0, 1, 3)).band_limits == (0, 1, 3, 3)
    assert ennConv(16, 16, 1, frequencies_cutoff=(0, 1, 3)).band_limits == (0,)


@pytest.mark.parametrize('cutoff', [-1.0, 'e2cnn', (0, -1), (), float('nan'), True, lambda r: -r])
def test_band_limit_that_is_none_is_refused(cutoff):
    with pytest.raises(ValueError, match='gives no band limit: use a number such as 3.0'):
        ennConv(16, 16, 3, frequencies_cutoff=cutoff)


def test_negative_offset_is_refused():
    with pytest.raises(ValueError, match='maximum_offset=-1 is negative'):
        ennConv(16, 16, 3, maximum_offset=-1)


def turned_filter_error(layer):
    """How far the filter's response to a plane wave is from following the wave by 22.5 degrees, in C16's sense.

    Without offsets, the response of orientation r to a wave of direction a depends on a - r alone (for channels that
    are band-limited), so the responses to waves 22.5 degrees apart are interpolations of one another.
    """
    weight = layer.expand().double().view(-1, 8, layer.in_channels, 7, 7)
    y, x = torch.meshgrid(-(torch.arange(7.0) - 3), torch.arange(7.0) - 3, indexing='ij')

    def responses(degrees):
        a = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
        wave = torch.exp(1.5j * (a.cos() * x + a.sin() * y))
        return torch.fft.fft((weight.sum(2) * wave).sum((2, 3)), dim=1)  # over orientations

    k = torch.fft.fftfreq(8) * 8
    kept = k.abs() < 4
    turned = responses(10.0) * torch.exp(-1j * k * torch.pi / 8)
    return relative_error(torch.view_as_real(responses(32.5)[:, kept]), torch.view_as_real(turned[:, kept]))


def test_without_offsets_filters_turn_between_the_groups_angles():
    torch.manual_seed(0)
    right = turned_filter_error(ennTrivialConv(3, 64, 7, bias=False, frequencies_cutoff=1.0, maximum_offset=0))
    wrong = turned_filter_error(ennTrivialConv(3, 64, 7, bias=False))  # up to frequency 9, aliased on 8 orientations
    assert right < 0.1 < 0.3 < wrong


@pytest.mark.parametrize('group', ['C4', 'C8', 'C16', 'D4', 'D8'])
@pytest.mark.parametrize('kernel_size', [3, 5, 7])
def test_trivial_conv_equals_e2cnn(group, kernel_size):
    layer = ennTrivialConv(3, 2 * group_order(group), kernel_size, padding=1, group=group)
    reference = e2cnn_conv(layer, initialize=False)
    x = torch.randn(2, 3, 11, 11)
    expected = reference(enn.GeometricTensor(x, reference.in_type)).tensor
    assert relative_error(layer.expand(), reference.expand_parameters()[0]) < EQUAL
    assert relative_error(layer(x), expected) < EQUAL


def test_one_element_basis_that_e2cnn_cannot_build_on_recent_torch():
    layer = ennTrivialConv(3, 16, 1, group='C8')  # 1x1 from the image: one kernel, the same for every orientation
    assert layer.weight.shape == (2, 3, 1)
    filters = layer.expand().view(2, 8, 3)
    assert torch.equal(filters, filters[:, :1].expand_as(filters))


@pytest.mark.parametrize('group', ['C4', 'C8', 'D4'])
@pytest.mark.parametrize('kernel_size', [1, 3, 5])
@pytest.mark.parametrize('groups', [1, 2])
def test_initial_standard_deviation_is_e2cnns(group, kernel_size, groups):
    from e2cnn.nn.init import _generalized_he_init_variances as e2cnn_std

    order = group_order(group)
    layer = ennConv(4 * order, 2 * order, kernel_size, groups=groups, group=group)
    expected = e2cnn_std(e2cnn_conv(layer, initialize=False).basisexpansion).view_as(layer.weight)
    assert torch.allclose(layer.basis.he_std.float() / (4 // groups) ** 0.5, expected[0, 0], rtol=1e-6)
    assert torch.equal(expected, expected[:1, :1].expand_as(expected))


def test_coefficients_are_drawn_with_that_deviation():
    torch.manual_seed(0)
    layer = ennConv(256, 256, 3)
    n = layer.weight.shape[0] * layer.weight.shape[1]
    ratio = layer.weight.flatten(0, 1).std(0) / (layer.basis.he_std.float() / 32**0.5)
    assert ((ratio - 1).abs() < 5 / (2 * n) ** 0.5).all()  # five standard errors of a sample standard deviation
    assert layer.bias.abs().max() == 0


def test_readme_example_of_the_stem_has_960_coefficients():
    assert ennTrivialConv(3, 64, 7, group='C8', bias=False).weight.numel() == 960  # 3 inputs x 8 fields x 40 kernels


def test_basis_is_shared_and_computed_once():
    a, b = ennConv(16, 16, 3), ennConv(32, 8, 3)
    assert a.basis is b.basis
    assert a.basis is not ennConv(16, 16, 3, dilation=2).basis
    assert a.basis.samples_like(a.weight) is b.basis.samples_like(b.weight)
    assert not [*a.buffers()]


def test_basis_made_on_the_meta_device_serves_real_layers():
    steerable_basis.cache_clear()
    with torch.device('meta'):
        assert ennConv(16, 16, 3).weight.is_meta
    assert ennConv(16, 16, 3)(torch.randn(1, 16, 5, 5)).isfinite().all()


def test_double_precision_is_exact():
    layer = ennConv(16, 16, 3, padding=1).double()
    x = torch.randn(1, 16, 9, 9, dtype=torch.float64)
    out, turned = layer(x), layer(cycle(x.rot90(1, (-2, -1))))
    assert relative_error(turned, cycle(out.rot90(1, (-2, -1)))) < 1e-13


def cycle(x):
    b, c, h, w = x.shape
    return x.view(b, -1, 8, h, w).roll(2, dims=2).reshape(b, c, h, w)


def test_a_free_filter_would_fail_that_check():
    x, w = torch.randn(1, 16, 9, 9), torch.randn(16, 16, 3, 3)
    out = F.conv2d(x, w, padding=1)
    turned = F.conv2d(cycle(x.rot90(1, (-2, -1))), w, padding=1)
    assert relative_error(turned, cycle(out.rot90(1, (-2, -1)))) > 0.5


CHANGES = {
    'optimizer step': lambda m: torch.optim.SGD(m.parameters(), lr=1.0).step(),
    'fused optimizer step': lambda m: torch.optim.AdamW(m.parameters(), lr=1.0, foreach=True).step(),
    'load_state_dict': lambda m: m.load_state_dict({k: v + 1 for k, v in m.state_dict().items()}),
    'in place': lambda m: m.weight.mul_(2),
    'through .data, which no version counter sees': lambda m: m.weight.data.mul_(2),
    'through a numpy view': lambda m: m.weight.detach().numpy().__imul__(2),
    'new storage': lambda m: setattr(m.weight, 'data', m.weight.data * 2),
    'new parameter': lambda m: setattr(m, 'weight', torch.nn.Parameter(m.weight * 2)),
    '.double()': lambda m: m.double(),
    'reset_parameters': lambda m: m.reset_parameters(),
}


@pytest.mark.parametrize('change', CHANGES.values(), ids=CHANGES)
def test_kept_filter_is_never_stale(change):
    layer = ennConv(16, 16, 3)
    layer(torch.randn(1, 16, 5, 5)).sum().backward()
    layer.eval()
    with torch.no_grad():
        before = layer.filter()
        assert layer.filter() is before, 'expanded once'
        change(layer)
        after = layer.filter()
    assert torch.equal(after, layer.expand())
    assert after.dtype != before.dtype or not torch.equal(after, before)


def test_filter_kept_in_inference_mode_serves_training():
    frozen = ennConv(16, 16, 3).requires_grad_(False)
    with torch.inference_mode():
        frozen(torch.randn(1, 16, 5, 5))
    x = torch.randn(1, 16, 5, 5, requires_grad=True)
    frozen(x).sum().backward()
    assert x.grad.abs().sum() > 0


def test_eval_mode_gives_the_same_gradients():
    layer = ennConv(16, 16, 3)
    x = torch.randn(1, 16, 5, 5)
    grads = []
    for mode in (True, False):
        layer.train(mode).zero_grad()
        layer(x).square().sum().backward()
        grads.append(layer.weight.grad.clone())
    assert torch.equal(*grads)


def test_gradient_is_that_of_finite_differences():
    layer = ennConv(4, 8, 3, group='C4').double()
    x = torch.randn(1, 4, 5, 5, dtype=torch.float64, requires_grad=True)
    params = (layer.weight.detach().clone().requires_grad_(), torch.randn(2, dtype=torch.float64, requires_grad=True))

    def f(x, weight, bias):
        return torch.func.functional_call(layer, {'weight': weight, 'bias': bias}, (x,))

    assert torch.autograd.gradcheck(f, (x, *params))


def test_state_holds_coefficients_only_in_either_mode():
    layer = ennConv(16, 16, 3)
    keys = list(layer.state_dict())
    with torch.no_grad():
        layer.eval()(torch.randn(1, 16, 5, 5))
    assert list(layer.state_dict()) == keys == ['weight', 'bias']
    file = io.BytesIO()
    torch.save(layer, file)
    assert file.tell() < 4 * sum(p.numel() for p in layer.parameters()) + 8000
    assert copy.deepcopy(layer)._kept == {}


@pytest.mark.parametrize('mode', ['train', 'eval'])
def test_loads_the_keys_of_e2cnn(mode):
    layer, other = ennConv(16, 16, 3), ennConv(16, 16, 3)
    reference = e2cnn_conv(layer, initialize=False)
    state = getattr(reference, mode)().state_dict()
    assert any('sampled_basis' in key for key in state)
    assert 'filter' in state or mode == 'train'
    other.load_state_dict(state)
    assert torch.equal(other.weight, layer.weight)
    assert torch.equal(other.bias, layer.bias)


def test_state_of_another_group_is_refused():
    state = {'weights': torch.zeros(4 * 4 * 32), 'bias': torch.zeros(4)}  # 16 channels of C4
    with pytest.raises(RuntimeError, match='size mismatch for weight'):
        ennConv(16, 16, 3, group='C8').load_state_dict(state)


def test_autocast_does_not_round_the_filter():
    layer = ennConv(16, 16, 3)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert layer.expand().dtype == torch.float32
        assert layer(torch.randn(1, 16, 5, 5)).dtype == torch.bfloat16


def test_mmcv_builds_it_and_keeps_its_initialisation():
    cfg = dict(type='ennConv', group='C4')
    layer = build_conv_layer(cfg, 16, 32, 3, stride=2, padding=1, bias=False)
    assert isinstance(layer, ennConv) and layer.group == 'C4' and layer.bias is None
    assert isinstance(ROOT.build(dict(type='mmrotate_plugin.ennTrivialConv', in_channels=3, out_channels=16,
                                      kernel_size=3)), ennTrivialConv)  # fmt: skip

    module = ConvModule(16, 32, 3, padding=1, conv_cfg=cfg, norm_cfg=dict(type='ennBN', group='C4'))
    std = module.conv.weight.std((0, 1))
    assert ((std / module.conv.basis.he_std.float() * 2) < 1.7).all(), 'Kaiming would be far larger'
    assert module(torch.randn(2, 16, 5, 5)).shape == (2, 32, 5, 5)
    reflect = ConvModule(16, 32, 3, padding=1, conv_cfg=cfg, padding_mode='reflect')
    assert reflect(torch.randn(2, 16, 5, 5)).shape == (2, 32, 5, 5)


BAD = [
    (dict(in_channels=12), 'in_channels=12.*order 8.*8 or 16'),
    (dict(out_channels=3), 'out_channels=3.*order 8; 8 would do'),
    (dict(out_channels=0), 'out_channels=0'),
    (dict(group='E8'), "group='E8'.*'C8'"),
    (dict(group='C1'), "group='C1'"),
    (dict(group=8), 'group=8'),
    (dict(kernel_size=4), 'kernel_size=4.*odd'),
    (dict(kernel_size=(3, 5)), r'kernel_size=\(3, 5\)'),
    (dict(stride=(1, 2)), r'stride=\(1, 2\)'),
    (dict(padding=-1), 'padding=-1'),
    (dict(dilation=0), 'dilation=0'),
    (dict(groups=3), 'groups=3 does not divide'),
    (dict(padding_mode='mirror'), "padding_mode='mirror'.*reflect"),
]


@pytest.mark.parametrize('bad, message', BAD, ids=[m for _, m in BAD])
def test_bad_arguments_are_named(bad, message):
    with pytest.raises(ValueError, match=message):
        ennConv(**{**dict(in_channels=16, out_channels=16, kernel_size=3), **bad})


def test_geometric_tensor_is_refused_with_advice():
    x = enn.GeometricTensor(torch.zeros(1, 16, 5, 5), build_enn_divide_feature(16))
    with pytest.raises(TypeError, match=r'mmrotate_plugin\.ReResNet'):
        ennConv(16, 16, 3)(x)


def test_basis_satisfies_its_constraint_at_quarter_turns():
    samples = steerable_basis('C8', 5).samples  # kappa(gx) = rho(g) kappa(x) rho(g)^-1, g a quarter turn
    turned = samples.rot90(1, (-2, -1))
    assert torch.allclose(turned.roll((2, 2), dims=(1, 2)), samples, atol=1e-12)
    assert not torch.allclose(turned, samples, atol=0.1)
