"""1x1 convolutions of D_N over irreducible representations are those of the expanded filters."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmrotate_plugin.equivariant import conv as conv_module
from mmrotate_plugin.equivariant import ennConv, export
from mmrotate_plugin.equivariant.basis import steerable_basis
from mmrotate_plugin.equivariant.dihedral import dihedral_conv, gains, irrep_blocks, products, split
from mmrotate_plugin.equivariant.fields import group_order, parse_group
from mmrotate_plugin.testing import relative_error

GROUPS = ['D2', 'D3', 'D4', 'D8']


def random_layer(group, fields_in, fields_out, *, bias=True):
    """Return coefficients, basis, bias and the dense filter, summed kernel by kernel."""
    basis = steerable_basis(group, 1)
    weight = torch.randn(fields_out, fields_in, len(basis), dtype=torch.float64)
    kernels = basis.samples[..., 0, 0]
    n = group_order(group)
    dense = torch.zeros(fields_out, n, fields_in, n, dtype=torch.float64)
    for i in range(fields_out):
        for j in range(fields_in):
            dense[i, :, j] = sum(w * kernel for w, kernel in zip(weight[i, j], kernels, strict=True))
    return weight, basis, torch.randn(fields_out).double() if bias else None, dense.view(fields_out * n, -1, 1, 1)


def test_multiplications_are_the_cubes_of_the_dimensions():
    assert [products(group) for group in (*GROUPS, 'D16')] == [4, 10, 12, 28, 60]
    for group in GROUPS:
        _, ones, twos = split(group)
        assert ones + 4 * twos == group_order(group) == len(steerable_basis(group, 1))


@pytest.mark.parametrize('group', GROUPS)
def test_the_basis_splits_the_regular_representation(group):
    matrix, ones, _ = split(group)
    q = matrix.values
    n = len(q)
    assert abs(q @ q.T - torch.eye(n).numpy()).max() < 1e-15 * n
    assert abs(q[0] - n**-0.5).max() < 1e-15 * n
    gspace = parse_group(group)
    for element in gspace.testing_elements:
        turned = q @ gspace.regular_repr(element) @ q.T
        for i in range(n):  # a coefficient mixes with that of the other dimension of its copy
            partners = {i} if i < ones else {i, ones + ((i - ones) // 4) * 4 + ((i - ones) + 2) % 4}
            assert abs(turned[i, [j for j in range(n) if j not in partners]]).max(initial=0) < 1e-14


@pytest.mark.parametrize('group', GROUPS)
def test_is_the_convolution_with_the_expanded_filter(group):
    weight, basis, bias, dense = random_layer(group, 2, 3)
    n = group_order(group)
    x = torch.randn(2, 2 * n, 3, 4, dtype=torch.float64)
    blocks = irrep_blocks(weight, basis, group)
    expected = F.conv2d(x, dense, bias.repeat_interleave(n))
    assert relative_error(dihedral_conv(x, *blocks, bias, group=group), expected) < 1e-14
    assert relative_error(dihedral_conv(x, *blocks, group=group), F.conv2d(x, dense)) < 1e-14
    last = x.to(memory_format=torch.channels_last)
    assert relative_error(dihedral_conv(last, *blocks, bias, group=group), expected) < 1e-14
    batched = torch.func.vmap(lambda one: dihedral_conv(one, *blocks, bias, group=group))(torch.stack([x, 2 * x]))
    assert relative_error(batched[0], expected) < 1e-14
    x.requires_grad_()
    assert relative_error(dihedral_conv(x, *blocks, bias, group=group), expected) < 1e-14
    wrong = blocks._replace(one=-blocks.one)
    assert relative_error(dihedral_conv(x, *wrong, bias, group=group), expected) > 0.01, 'the comparison can fail'


@pytest.mark.parametrize('group', ['D2', 'D3'])
def test_gradients(group):
    weight, basis, _, _ = random_layer(group, 1, 2)
    x = torch.randn(2, group_order(group), 1, 2, dtype=torch.float64)
    inputs = [t.detach().requires_grad_() for t in (x, *irrep_blocks(weight, basis, group))]

    def run(*tensors):
        return dihedral_conv(*tensors, group=group)

    if not inputs[2].numel():
        inputs[2].requires_grad_(False)
    assert torch.autograd.gradcheck(run, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(run, inputs)


@pytest.fixture
def taken(monkeypatch):
    """How often the path was taken."""
    calls = []

    def counted(*args, **options):
        calls.append(args)
        return dihedral_conv(*args, **options)

    monkeypatch.setattr(conv_module, 'dihedral_conv', counted)
    return calls


# round-off of sums of n products in two orders is at most 2 n eps of the sum of their sizes; as errors are independent,
# their size relative to the result is of the order of sqrt(n) eps: here n = 640 and three such sums follow each other
@pytest.mark.parametrize('dtype, tolerance', [(torch.float32, 3 * 640**0.5 * 2**-24), (torch.float64, 1e-14)])
@pytest.mark.parametrize('group', ['D4', 'D8'])
@pytest.mark.parametrize('options', [{}, dict(bias=False, stride=2)])
def test_layer_is_the_same_by_either_path(group, options, dtype, tolerance, taken):
    layer = ennConv(640, 640, 1, group=group, **options).to(dtype)
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    x, other = torch.randn(2, 640, 5, 7, dtype=dtype), copy.deepcopy(layer)
    other.fourier = False
    gradients = []
    for each in (layer, other):
        y = each(x.requires_grad_())
        gradients.append((y, *torch.autograd.grad(y.square().sum(), (x, *each.parameters()))))
    assert len(taken) == 1
    for actual, expected in zip(*gradients, strict=True):
        assert relative_error(actual, expected) < tolerance
    with torch.no_grad():
        assert relative_error(layer(x), other(x)) < tolerance
        layer.weight.data *= 2
        assert relative_error(layer(x), 2 * other(x) if layer.bias is None else copy_with(other, layer)(x)) < tolerance
    assert len(taken) == 3


def copy_with(other, layer):
    other.load_state_dict(layer.state_dict())
    return other


def test_where_it_is_not_taken(taken):
    layer = ennConv(640, 640, 1, group='D8')
    x = torch.randn(1, 640, 3, 3)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    torch.jit.trace(layer.eval(), x, check_trace=False)
    ennConv(64, 64, 1, group='D8')(x[:, :64])
    ennConv(640, 640, 1, group='D8', groups=2)(x)
    ennConv(640, 640, 3, group='D8')(x)
    assert taken == []
    exported = export(layer, fourier=True)
    assert type(exported) is nn.Conv2d and relative_error(exported(x), layer(x)) < 1e-5
    assert len(taken) == 1


def test_layers_can_be_copied_and_functions_differentiate_them():
    layer = ennConv(640, 640, 1, group='D8')
    x = torch.randn(1, 640, 2, 2)
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(layer)(x), layer(x))
    parameters = dict(layer.named_parameters())
    called = torch.func.grad(lambda p: torch.func.functional_call(layer, p, (x,)).square().sum())(parameters)
    layer(x).square().sum().backward()
    assert relative_error(called['weight'], layer.weight.grad) < 1e-5


def test_wide_layers_gain():
    for group, widths in (('D4', (64, 128, 256)), ('D8', (64, 128, 256))):  # ResNet-50, stages 1 to 3
        order = group_order(group)
        for training in (False, True):
            stages = [gains(group, 4 * width // order, width // order, training=training) for width in widths]
            assert stages == [False, True, True], (group, training)
