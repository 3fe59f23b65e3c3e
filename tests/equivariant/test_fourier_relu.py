import copy
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule, build_activation_layer
from torch import nn

from mmrotate_plugin.equivariant import ennConv, ennFourierReLU, export, group_order
from mmrotate_plugin.equivariant.fields import parse_group
from mmrotate_plugin.equivariant.fourier_relu import FUNCTIONS, fourier_pointwise, interpolation
from mmrotate_plugin.kernels import available, use_compiled_loops
from mmrotate_plugin.models.layers import equivariant_act_cfg
from mmrotate_plugin.testing import act_on_regular, exact_elements, relative_error

GROUPS = ['C3', 'C4', 'C5', 'C8', 'C16', 'D3', 'D4', 'D8']


def fields(group, size=5, batch=2, dtype=torch.float64):
    return torch.randn(batch, 2 * group_order(group), size, size, dtype=dtype)


def permuted(x, group, element):
    """Act with any element of the group on the orientations alone, by e2cnn's own matrix."""
    matrix = torch.tensor(parse_group(group).fibergroup.representations['regular'](element), dtype=x.dtype)
    b, c, h, w = x.shape
    return torch.einsum('pq,bfqhw->bfphw', matrix, x.view(b, -1, len(matrix), h, w)).reshape(x.shape)


def sampled(waves, n, shift=0.0):
    """Sample sum_k a_k cos(k t) + b_k sin(k t) at n angles, turned by `shift` steps."""
    t = (torch.arange(n, dtype=torch.float64) - shift) * 2 * math.pi / n
    return sum(a * torch.cos(k * t) + b * torch.sin(k * t) for k, (a, b) in enumerate(waves))


@pytest.mark.parametrize('group', GROUPS)
@pytest.mark.parametrize('function', ['relu', 'silu'])
def test_commutes_with_every_element_of_the_group(group, function):
    layer, x = ennFourierReLU(group=group, function=function), fields(group)
    out = layer(x)
    for element in parse_group(group).fibergroup.elements:
        expected = permuted(out, group, element)
        assert relative_error(layer(permuted(x, group, element)), expected) < 1e-14
    for turns, flip in exact_elements(group):
        assert relative_error(layer(act_on_regular(x, group, turns, flip)), act_on_regular(out, group, turns, flip)) < (
            1e-14
        )


def test_channels_in_another_order_fail_that_check():
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    layer, x = ennFourierReLU(group='C16'), fields('C16', batch=1)
    shuffled = torch.cat([order, 16 + order])
    out = layer(x[:, shuffled])
    assert relative_error(layer(permuted(x, 'C16', 4)[:, shuffled]), permuted(out, 'C16', 4)) > 0.1


def turned_by(n, steps):
    """Matrix that turns a function of frequencies below n / 2, by torch's own Fourier transform."""
    k = torch.arange(n // 2 + 1, dtype=torch.float64)
    spectrum = torch.fft.rfft(torch.eye(n, dtype=torch.float64)) * torch.exp(-2j * math.pi * k * steps / n)
    if n % 2 == 0:
        spectrum[:, -1] = 0
    return torch.fft.irfft(spectrum, n).T


@pytest.mark.parametrize('n', [8, 16])
def test_commutes_with_turnsfourier_pointwise(n):
    """Half a step is a step of the finer sampling, so exact; a quarter is the worst case. No permutation is either."""
    generator = torch.Generator().manual_seed(0)
    waves = torch.randn(200, (n + 1) // 2, 2, dtype=torch.float64, generator=generator)

    def error(layer, steps):
        x, turned = (torch.stack([sampled(w, n, s) for w in waves]).view(1, -1, 1, 1) for s in (0, steps))
        out, out_turned = (layer(v).view(-1, n) for v in (x, turned))
        return relative_error(out_turned, out @ turned_by(n, steps).T)

    assert error(ennFourierReLU(group=f'C{n}'), 0.5) < 1e-14 < 0.3 < error(nn.ReLU(), 0.5)
    between = [error(ennFourierReLU(group=f'C{n}', oversampling=s), 0.25) for s in (1, 2, 4)]
    assert between[2] < between[1] / 2 < between[0] / 4
    assert between[1] < 0.1 < 0.2 < error(nn.ReLU(), 0.25)
    assert error(ennFourierReLU(group=f'C{n}', function='silu'), 0.25) < between[1], 'smooth functions alias less'


def reference(x, n, oversampling, function=torch.relu):
    """The same layer by torch's Fourier transforms, ring by ring."""
    rings = x.reshape(x.shape[0], -1, n, *x.shape[2:])

    def resample(values, size):
        spectrum = torch.fft.rfft(values, dim=2)[:, :, : (n + 1) // 2]
        return torch.fft.irfft(spectrum, size, dim=2) * (size / values.shape[2])

    return resample(function(resample(rings, n * oversampling)), n).reshape(x.shape)


@pytest.mark.parametrize('group', GROUPS)
@pytest.mark.parametrize('oversampling', [2, 3])
@pytest.mark.parametrize('function', FUNCTIONS)
def test_equals_a_fourier_transform_there_and_back(group, oversampling, function):
    x = fields(group)
    layer = ennFourierReLU(group=group, oversampling=oversampling, function=function)
    expected = reference(x, int(group[1:]), oversampling, FUNCTIONS[function])
    assert relative_error(layer(x), expected) < 1e-13
    assert relative_error(FUNCTIONS[function](x), expected) > 0.01


@pytest.mark.parametrize('shape', [(2, 16, 5, 7), (0, 16, 5, 5), (1, 64, 130, 127), (3, 32, 1, 1)])
@pytest.mark.parametrize('inplace', [False, True])
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('compiled', [False, True])
def test_blocks_equal_plain_operations_with_gradients(shape, inplace, memory_format, compiled, request):
    before = use_compiled_loops(compiled)
    request.addfinalizer(lambda: use_compiled_loops(before))
    layer = ennFourierReLU(inplace, group='C8')
    x = torch.randn(shape).contiguous(memory_format=memory_format)
    y, z = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected = fourier_pointwise(y, interpolation(8, 2).like(y), F.relu)
    given = z * 1
    out = layer(given)
    assert (out.data_ptr() == given.data_ptr()) == inplace or not out.numel()
    assert torch.allclose(out, expected, atol=1e-5)
    grad = torch.randn(shape)
    found, right = torch.autograd.grad(out, z, grad)[0], torch.autograd.grad(expected, y, grad)[0]
    assert torch.allclose(found, right, atol=1e-5)
    with torch.no_grad():
        assert torch.allclose(layer(x.clone()), expected, atol=1e-5)


@pytest.mark.parametrize('group', ['C3', 'C8', 'D4'])
@pytest.mark.parametrize('function', ['relu', 'silu'])
def test_gradients(group, function):
    layer, x = ennFourierReLU(group=group, function=function), fields(group, 2, 1).requires_grad_()
    assert torch.autograd.gradcheck(layer, x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(layer, x)


@pytest.mark.needs_torch('2.1', 'the test for tensors of the older vmap')
def test_batches_of_gradients():
    layer, x = ennFourierReLU(group='C8'), fields('C8', 2, 1).requires_grad_()
    assert torch.autograd.gradcheck(layer, x, check_batched_grad=True)


@pytest.mark.parametrize('compiled, share', [(False, 1 / 2), (True, 1 / 8)])
def test_the_backward_pass_keeps_a_part_of_the_inputs_memory(compiled, share, request):
    before = use_compiled_loops(compiled)
    request.addfinalizer(lambda: use_compiled_loops(before))
    if compiled and not available():
        pytest.skip('no C compiler was there at the installation')
    kept = []

    def pack(x):
        kept.append(x.numel() * x.element_size())
        return x

    x = torch.randn(2, 16, 9, 9, requires_grad=True)
    up = 16 * 8 * 4
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        ennFourierReLU(group='C8')(x)
        ours = sum(kept) - up
        kept.clear()
        fourier_pointwise(x, interpolation(8, 2).like(x), F.relu)
    assert ours == x.numel() * 4 * share < sum(kept) / 3


def test_functional_transforms():
    layer, x = ennFourierReLU(group='C8'), fields('C8', 2)
    out = layer(x)
    assert relative_error(torch.func.vmap(lambda v: layer(v[None])[0])(x), out) < 1e-14
    assert relative_error(torch.func.jvp(layer, (x,), (x,))[1], out) < 1e-14, 'ReLU is homogeneous'
    jacobian = torch.func.jacrev(lambda v: layer(v[None])[0])(x[0])
    assert relative_error(torch.func.jacfwd(lambda v: layer(v[None])[0])(x[0]), jacobian) < 1e-14
    assert relative_error(torch.autograd.functional.jacobian(lambda v: layer(v[None])[0], x[0]), jacobian) < 1e-14


HALVES = [
    (torch.bfloat16, 0.02),
    pytest.param(torch.float16, 0.003, marks=pytest.mark.needs_torch('2.1', 'float16 on CPUs')),
]


@pytest.mark.parametrize('dtype, tolerance', HALVES)
def test_half_precision_and_autocast(dtype, tolerance):
    layer, x = ennFourierReLU(group='C8'), fields('C8', dtype=torch.float32)
    expected = layer(x)
    assert relative_error(layer(x.to(dtype)).float(), expected) < tolerance
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(layer(x), expected), 'as ReLU, it keeps the type that comes'
    y = x.to(dtype).requires_grad_()
    layer(y).sum().backward()
    assert y.grad.dtype == dtype and y.grad.isfinite().all()


@pytest.mark.needs_torch('2.1', 'torch.compile for Python 3.11')
@pytest.mark.parametrize('function', ['relu', 'silu'])
def test_compiled(function):
    torch._dynamo.reset()
    layer, x = ennFourierReLU(group='C8', function=function), fields('C8').requires_grad_()
    compiled = torch.compile(layer, backend='aot_eager', fullgraph=True)
    out, expected = compiled(x), layer(x)
    assert relative_error(out, expected) < 1e-14
    grads = [torch.autograd.grad(y.square().sum(), x)[0] for y in (out, expected)]
    assert relative_error(*grads) < 1e-14


def test_traced_and_made_plain():
    layer, x = ennFourierReLU(group='C8'), fields('C8', dtype=torch.float32)
    trace = torch.jit.trace(layer, x)
    larger = fields('C8', 7, 3, torch.float32)
    assert relative_error(trace(larger), layer(larger)) < 1e-6
    plain = export(nn.Sequential(ennConv(16, 16, 3), layer).eval())
    assert [type(m) for m in plain] == [nn.Conv2d, ennFourierReLU]


@pytest.mark.needs_torch('2.1', 'torch.export')
def test_exported_by_torch():
    layer, x = ennFourierReLU(group='C8'), fields('C8', dtype=torch.float32)
    assert relative_error(torch.export.export(layer, (x,)).module()(x), layer(x)) < 1e-6


def test_state_and_copies():
    layer, x = ennFourierReLU(True, group='D4', oversampling=3, function='elu'), fields('D4')
    assert not layer.state_dict() and 'inplace=True' in repr(layer) and "function='elu'" in repr(layer)
    assert len(pickle.dumps(layer)) < 2000
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x), layer(x))


def test_mmcv_builds_it():
    cfg = dict(type='ennFourierReLU', group='C4')
    assert build_activation_layer(cfg).group == 'C4'
    module = ConvModule(16, 16, 3, padding=1, conv_cfg=dict(type='ennConv', group='C4'), act_cfg=cfg, inplace=True)
    assert module.activate.inplace and module(torch.randn(1, 16, 5, 5)).shape == (1, 16, 5, 5)


def test_act_cfg_gets_the_group():
    cfg = dict(type='mmrotate_plugin.ennFourierReLU', oversampling=3)
    found = equivariant_act_cfg(cfg, 'C4')
    assert found == dict(type='ennFourierReLU', oversampling=3, group='C4') and 'group' not in cfg
    assert equivariant_act_cfg(dict(type='GELU'), 'C4') == dict(type='GELU')
    with pytest.raises(ValueError, match="act_cfg has group 'C8', but the network has group 'C4'"):
        equivariant_act_cfg(dict(type='ennFourierReLU', group='C8'), 'C4')


def test_bad_arguments_are_named():
    for bad, message in [
        (dict(group='C2'), "group='C2' has no angular frequency.*'C4'"),
        (dict(group='D2'), "group='D2'.*'D8'"),
        (dict(group='E8'), "group='E8'"),
        (dict(oversampling=1.5), 'oversampling=1.5 must be an integer'),
        (dict(oversampling=0), 'oversampling=0'),
        (dict(function='sine'), "function='sine' is unknown.*relu"),
    ]:
        with pytest.raises(ValueError, match=message):
            ennFourierReLU(**bad)
    with pytest.raises(ValueError, match="channels=12 does not hold whole regular fields of group 'C8'"):
        ennFourierReLU(group='C8')(torch.zeros(1, 12, 3, 3))
