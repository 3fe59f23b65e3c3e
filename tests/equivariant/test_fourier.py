import copy
import pickle
from importlib import import_module

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmrotate_plugin.equivariant import FourierConv2d, ennBN, ennConv, export
from mmrotate_plugin.equivariant import conv as conv_module
from mmrotate_plugin.equivariant.fourier import circulant_conv, pays, spectrum
from mmrotate_plugin.models import ReResNet
from mmrotate_plugin.testing import randomize_norms_, relative_error


def dense(columns):
    """(F_out, F_in, N) first columns to the filter of an ordinary convolution, entry by entry."""
    fields_out, fields_in, n = columns.shape
    filter = columns.new_zeros(fields_out, n, fields_in, n)
    for row in range(n):
        for column in range(n):
            filter[:, row, :, column] = columns[:, :, (row - column) % n]
    return filter.view(fields_out * n, fields_in * n, 1, 1)


@pytest.mark.parametrize('n', [2, 3, 4, 5, 8, 16])
def test_is_the_convolution_with_circulant_blocks(n):
    columns = torch.randn(3, 2, n, dtype=torch.float64)
    x, bias = torch.randn(2, 2 * n, 3, 4, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    expected = F.conv2d(x, dense(columns))
    with_bias = expected + bias.repeat_interleave(n).view(1, -1, 1, 1)
    coefficients = spectrum(columns)
    multiplications = n + 2 * len(coefficients.cross)
    assert multiplications == {2: 2, 3: 5, 4: 6, 5: 9, 8: 14, 16: 30}[n]
    assert relative_error(circulant_conv(x, *coefficients), expected) < 1e-14
    assert relative_error(circulant_conv(x, *coefficients, bias), with_bias) < 1e-14
    x.requires_grad_()
    assert relative_error(circulant_conv(x, *coefficients, bias), with_bias) < 1e-14
    assert relative_error(circulant_conv(x.to(memory_format=torch.channels_last), *coefficients), expected) < 1e-14


@pytest.mark.parametrize('n', [3, 8])
def test_gradients(n):
    inputs = (torch.randn(2, 2 * n, 2, 3, dtype=torch.float64), *spectrum(torch.randn(3, 2, n, dtype=torch.float64)))
    inputs = [t.requires_grad_() for t in inputs]
    assert torch.autograd.gradcheck(circulant_conv, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(circulant_conv, inputs)


@pytest.fixture
def taken(monkeypatch):
    """How often the Fourier path was taken."""
    calls = []

    def counted(*args):
        calls.append(args)
        return circulant_conv(*args)

    monkeypatch.setattr(conv_module, 'circulant_conv', counted)
    return calls


def ordinary(layer):
    other = copy.deepcopy(layer)
    other.fourier = False
    return other


@pytest.mark.parametrize('group, width', [('C8', 400), ('C4', 400), ('C16', 800), ('C6', 360)])
@pytest.mark.parametrize('options', [{}, dict(bias=False), dict(stride=2), dict(dilation=3)])
@pytest.mark.parametrize('dtype, tolerance', [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_layer_is_the_same_by_either_path(group, width, options, dtype, tolerance, taken):
    layer = ennConv(width, width, 1, group=group, **options).to(dtype)
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    x, other = torch.randn(2, width, 5, 7, dtype=dtype), ordinary(layer)
    gradients = []
    for each in (layer, other):
        y = each(x.requires_grad_())
        gradients.append((y, *torch.autograd.grad(y.square().sum(), (x, *each.parameters()))))
    assert len(taken) == 1
    for actual, expected in zip(*gradients, strict=True):
        assert relative_error(actual, expected) < 3 * tolerance
    with torch.no_grad():
        assert relative_error(layer(x), other(x)) < tolerance
        assert relative_error(layer(x), other(x)) < tolerance, 'from what was kept'
        layer.weight.data *= 2
        assert relative_error(layer(x), ordinary(layer)(x)) < tolerance, 'and not when it is stale'
    assert len(taken) == 4


def test_where_it_is_not_taken(taken):
    def run(group='C8', width=400, x=None, kernel_size=1, **options):
        layer = ennConv(width, width, kernel_size, group=group, **options)
        return layer(torch.randn(1, width, 3, 3) if x is None else x.expand(1, width, 3, 3))

    run(kernel_size=3)
    run(groups=2)
    run(padding=1)
    run(width=32)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        run()
    run(x=nn.Parameter(torch.zeros(1)).as_subclass(type('Subclass', (torch.Tensor,), {})))
    assert taken == []
    run(width=176)
    assert taken == [], 'too narrow to gain with gradients'
    with torch.no_grad():
        run(width=176)
    assert len(taken) == 1


def test_the_switch(monkeypatch, taken):
    monkeypatch.setattr(ennConv, 'fourier', False)
    ennConv(400, 400, 1)(torch.randn(1, 400, 3, 3))
    assert taken == []


def test_wide_layers_pay():
    for order, widths in ((8, (32, 64, 128)), (16, (16, 32, 64)), (4, (64, 128, 256))):  # ResNet-50, stages 1 to 3
        stages = [pays(width, width // 4, order) for width in widths]
        learning = [pays(width, width // 4, order, training=True) for width in widths]
        assert stages == [False, True, True]
        assert learning == [False, order != 4, True]


@pytest.mark.parametrize('group', ['C4', 'C8'])
@pytest.mark.parametrize('fold_norms', [True, False])
def test_export(group, fold_norms, monkeypatch):
    # the function hides its module of the same name
    monkeypatch.setattr(import_module('mmrotate_plugin.equivariant.export'), 'pays', lambda *_: True)
    net = ReResNet(50, group=group, base_channels=16).eval()
    randomize_norms_(net)
    x = torch.randn(1, 3, 65, 65)
    plain = export(net, fold_norms=fold_norms, fourier=True)
    made = [m for m in plain.modules() if isinstance(m, FourierConv2d)]
    assert len(made) == 2 * 16 + 4, 'two in each of 16 blocks, four shortcuts'
    with torch.no_grad():
        for actual, expected in zip(plain(x), net(x), strict=True):
            assert relative_error(actual, expected) < 1e-5
    assert all(not m.training for m in plain.modules())
    again = pickle.loads(pickle.dumps(plain))
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(again(x), plain(x), strict=True))
        wrong = export(net, fold_norms=fold_norms, fourier=True)
        next(m for m in wrong.modules() if isinstance(m, FourierConv2d)).cross.neg_()
        assert relative_error(wrong(x)[0], plain(x)[0]) > 1e-3, 'the comparison can fail'


def test_export_of_a_layer_and_of_a_sequence():
    layer = ennConv(400, 400, 1, stride=2)
    nn.init.normal_(layer.bias)
    net = nn.Sequential(layer, ennBN(400)).eval()
    randomize_norms_(net)
    x = torch.randn(2, 400, 5, 5)
    with torch.no_grad():
        alone = export(layer, fourier=True)
        assert type(alone) is FourierConv2d and relative_error(alone(x), layer(x)) < 1e-6
        folded = export(net, fourier=True)
        assert type(folded[0]) is FourierConv2d and relative_error(folded(x), net(x)) < 1e-5
    assert type(export(layer)) is nn.Conv2d
