"""The compiled ReLU between orientations against products of matrices by torch, and in double precision."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from mmrotate_plugin.equivariant import ennFourierReLU
from mmrotate_plugin.equivariant.fourier_relu import fourier_pointwise, interpolation
from mmrotate_plugin.kernels import angular_relu, available, use_compiled_loops

pytestmark = pytest.mark.skipif(not available(), reason='no C compiler was there at the installation')
ROUND_OFF = 4e-6  # some 40 products of values up to 5 in float32


class Calls(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += str(func) == 'mmrotate_plugin.angular_relu.default'
        return func(*args, **(kwargs or {}))


def with_gradient(layer, x, grad):
    x = x.clone().requires_grad_()
    out = layer(x * 1)
    return out, torch.autograd.grad(out, x, grad)[0]


@pytest.mark.parametrize('group', ['C8', 'C16', 'D8'])
@pytest.mark.parametrize('inplace', [False, True])
@pytest.mark.parametrize('shape', [(2, 7, 9), (1, 32, 3), (3, 1, 1), (1, 0, 5), (0, 4, 4)])
def test_value_and_gradient_are_those_of_torch(group, inplace, shape):
    batch, height, width = shape
    layer = ennFourierReLU(inplace, group=group)
    x, grad = torch.randn(2, batch, 32, height, width)
    double = x.double().requires_grad_()
    expected = fourier_pointwise(double, interpolation(layer.rotations, 2).like(double), F.relu)
    wanted = torch.autograd.grad(expected, double, grad.double())[0]
    with Calls() as seen:
        out, found = with_gradient(layer, x, grad)
    assert seen.count == 2
    assert torch.allclose(out.double(), expected, atol=ROUND_OFF)
    assert torch.allclose(found.double(), wanted, atol=ROUND_OFF)
    assert not out.numel() or (out - F.relu(x)).abs().max() > 0.1  # another function would be seen
    with torch.no_grad(), Calls() as seen:
        assert torch.allclose(layer(x.clone()), out, atol=ROUND_OFF)
    assert seen.count == 1


def test_a_gate_of_bits_serves_where_the_loop_is_off():
    layer, x, grad = ennFourierReLU(group='C8'), *torch.randn(2, 2, 16, 5, 6)
    leaf = x.clone().requires_grad_()
    out = layer(leaf)
    use_compiled_loops(False)
    found = torch.autograd.grad(out, leaf, grad, retain_graph=True)[0]
    assert torch.allclose(found, with_gradient(layer, x, grad)[1], atol=ROUND_OFF)
    many = torch.autograd.grad(out, leaf, torch.stack([grad, -grad]), is_grads_batched=True)[0]
    assert torch.allclose(many, torch.stack([found, -found]), atol=ROUND_OFF)


@pytest.mark.parametrize(
    'layer, change',
    [
        (ennFourierReLU(group='C8', oversampling=3), lambda x: x),
        (ennFourierReLU(group='C8', function='silu'), lambda x: x),
        (ennFourierReLU(group='C4'), lambda x: x),
        (ennFourierReLU(group='C8'), lambda x: x.double()),
        (ennFourierReLU(group='C8'), lambda x: x.bfloat16()),
    ],
)
def test_what_it_does_not_take_goes_by_torch(layer, change):
    with torch.no_grad(), Calls() as seen:
        layer(change(torch.randn(1, 16, 4, 4)))
    assert seen.count == 0


def test_other_layouts_give_the_same():
    layer, x = ennFourierReLU(group='C8'), torch.randn(2, 16, 6, 8)
    for y in (x.contiguous(memory_format=torch.channels_last), x.transpose(2, 3).contiguous().transpose(2, 3)):
        assert torch.allclose(layer(y), layer(x), atol=ROUND_OFF)


def test_not_a_number_stays_one():
    x = torch.ones(1, 8, 1, 3)
    x[0, 2, 0, 1] = float('nan')
    out = ennFourierReLU(group='C8')(x)
    assert out[..., 1].isnan().all() and not out[..., ::2].isnan().any()


def test_threads_share_a_map_without_a_difference():
    layer, x, before, found = ennFourierReLU(group='C8'), torch.randn(2, 24, 70, 71), torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(layer(x))
    finally:
        torch.set_num_threads(before)
    assert found[0].equal(found[1])


def test_an_unknown_number_of_orientations_is_refused():
    x = torch.zeros(1, 12, 4)
    with pytest.raises(ValueError, match=r'\(8, 16\) orientations, not 12'):
        angular_relu.angular_relu(x, torch.zeros(12), out=x)
