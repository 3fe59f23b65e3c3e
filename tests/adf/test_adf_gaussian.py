"""The value itself: construction, dispatch, floor, methods and operators, gradients."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmrotate_plugin.adf import Gaussian, NoMomentRule, moment_rule
from mmrotate_plugin.adf.moment_rules import MOVES, RULES


def gaussian(*shape: int, min_variance: float = 0.0) -> Gaussian:
    return Gaussian(torch.randn(*shape), torch.rand(*shape), min_variance)


def test_two_tensors_make_a_gaussian():
    mean, var = torch.randn(2, 3), torch.rand(2, 3)
    x = Gaussian(mean, var)
    assert x.mu is mean and x.v is var and x.min_variance == 0
    assert torch.equal(x.mean, mean) and torch.equal(x.var, var)
    assert torch.equal(x.std, var.sqrt())
    assert x.shape == (2, 3) and x.size() == (2, 3) and x.size(1) == x.size(-1) == 3
    assert (x.dim(), x.ndim, x.numel(), len(x)) == (2, 2, 6, 2)
    assert x.dtype == torch.float32 and x.device == mean.device and not x.is_cuda
    assert repr(x) == 'Gaussian(shape=(2, 3), dtype=torch.float32, device=cpu)'
    assert 'min_variance=0.001' in repr(Gaussian(mean, var, 1e-3))


@pytest.mark.parametrize(
    'mean, var, error, text',
    [
        (torch.zeros(2), 1.0, TypeError, 'var must be a tensor of floating-point numbers, but is float'),
        ([0.0], torch.zeros(1), TypeError, 'mean must be a tensor of floating-point numbers, but is list'),
        (torch.zeros(2).long(), torch.zeros(2), TypeError, 'mean must be .* but is torch.int64'),
        (torch.zeros(2), torch.zeros(2, 1), ValueError, r'one shape, but have \(2,\) and \(2, 1\)'),
        (torch.zeros(2), torch.zeros(2).double(), ValueError, 'one dtype, but have torch.float32 and torch.float64'),
        (torch.zeros(2), torch.zeros(2, device='meta'), ValueError, 'one device, but have cpu and meta'),
    ],
)
def test_what_is_no_gaussian_is_refused(mean, var, error, text):
    with pytest.raises(error, match=text):
        Gaussian(mean, var)


@pytest.mark.parametrize('floor', [-1e-3, float('inf'), float('nan')])
def test_a_floor_is_a_finite_number_from_zero_on(floor):
    with pytest.raises(ValueError, match=f'min_variance={floor} must be'):
        Gaussian(torch.zeros(1), torch.zeros(1), floor)


@pytest.mark.parametrize(
    'function, name',
    [
        (lambda x: torch.cumsum(x, 0), 'torch.cumsum'),
        (lambda x: x.cumprod(0), 'Tensor.cumprod'),
        (lambda x: F.hardshrink(x), 'hardshrink'),
        (lambda x: F.lp_pool2d(x[None], 2, 1), 'torch.nn.functional.lp_pool2d'),
        (lambda x: torch.ones(2, 3).atan2(x), 'Tensor.atan2'),
    ],
)
def test_an_operation_without_rule_names_itself_and_the_way_out(function, name):
    with pytest.raises(NoMomentRule, match=f"{name}' has no moment rule.*moment_rule, or pass x.mean"):
        function(gaussian(2, 3))
    assert issubclass(NoMomentRule, NotImplementedError)


def test_anybody_can_register_a_rule():
    x = gaussian(3)
    with pytest.raises(NoMomentRule, match='torch.frac'):
        torch.frac(x)
    try:

        @moment_rule(torch.frac, torch.Tensor.frac)
        def frac(x):
            return Gaussian(torch.frac(x.mean), x.var)

        assert torch.equal(torch.frac(x).mean, torch.frac(x.mean))
        assert torch.equal(x.frac().mean, torch.frac(x.mean))
    finally:
        RULES.pop(torch.frac, None), RULES.pop(torch.Tensor.frac, None)


def test_the_floor_clamps_and_never_adds():
    x = Gaussian(torch.zeros(3), torch.tensor([1e-6, 1e-3, 1.0]), min_variance=1e-3)
    y = x * 1
    torch.testing.assert_close(y.var, torch.tensor([1e-3, 1e-3, 1.0]), rtol=1e-6, atol=0)
    for _ in range(10):  # adding it at every operation would make 0.011 of the second
        y = y * 1
    torch.testing.assert_close(y.var, torch.tensor([1e-3, 1e-3, 1.0]), rtol=1e-6, atol=0)
    assert y.min_variance == 1e-3
    assert (y * 1e-6).var.min() == pytest.approx(1e-3)
    free = Gaussian(x.mean, x.var) * 1e-6
    assert free.var.max() == pytest.approx(1e-12)


def test_of_two_floors_the_larger_one_holds():
    x, y = gaussian(3, min_variance=0.01), gaussian(3, min_variance=0.02)
    for out in (x + y, y + x, torch.cat([x, y]), torch.stack((y, x)), torch.add(x, other=y)):
        assert out.min_variance == 0.02 and out.var.min() >= 0.02


def test_moves_keep_the_floor_without_a_pass():
    x = gaussian(2, 3, min_variance=0.1)
    assert torch.Tensor.view in MOVES and torch.mul not in MOVES
    for out in (x.view(6), x[0], *x.chunk(2, 1), x.detach()):
        assert out.min_variance == 0.1
    assert x.view(6).var.data_ptr() == x.var.data_ptr()  # no copy: what is below the floor waits for an operation


def test_operators_with_tensors_and_numbers_on_either_side():
    x, c = gaussian(2, 3), torch.randn(2, 3)
    m, v = x.mean, x.var
    cases = [
        (x + c, m + c, v), (c + x, m + c, v), (x + 2, m + 2, v), (2 + x, m + 2, v),
        (x - c, m - c, v), (c - x, c - m, v), (x - 2, m - 2, v), (2 - x, 2 - m, v),
        (x * c, m * c, v * c**2), (c * x, m * c, v * c**2), (x * 2, m * 2, v * 4), (2 * x, m * 2, v * 4),
        (x / 2, m / 2, v / 4), (x / c, m / c, v / c**2), (-x, -m, v),
        (x**2, m**2 + v, 2 * v**2 + 4 * v * m**2),
        (x @ c.T, m @ c.T, v @ c.T**2), (c @ x.t(), c @ m.T, c**2 @ v.T),
        (x[:, 1:], m[:, 1:], v[:, 1:]),
    ]  # fmt: skip
    for out, mean, var in cases:
        assert type(out) is Gaussian
        torch.testing.assert_close(out.mean, mean)
        torch.testing.assert_close(out.var, var)
    torch.testing.assert_close(abs(x).mean, torch.abs(x).mean)
    first, second = x
    assert torch.equal(first.mean, m[0]) and torch.equal(second.var, v[1])
    total = c
    total += x
    torch.testing.assert_close(total.mean, m + c)


def test_methods_are_those_of_tensor():
    x = gaussian(2, 3)
    assert torch.equal(x.mul(2).mean, x.mean * 2)
    assert torch.equal(x.sum(dim=0).var, x.var.sum(0))
    assert torch.equal(x.flatten().mean, x.mean.flatten())
    assert torch.equal(torch.mul(input=x, other=2).mean, x.mean * 2)
    with pytest.raises(AttributeError, match="no attribute 'colour'; its tensors are .mean and .var"):
        x.colour  # noqa: B018
    with pytest.raises(TypeError, match='out='):
        torch.mul(x, 2, out=torch.empty(2, 3))


def test_copies_and_pickles():
    x = gaussian(2, 3, min_variance=0.1)
    for other in (copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert torch.equal(other.mean, x.mean) and torch.equal(other.var, x.var) and other.min_variance == 0.1


def test_gradients_flow_through_mean_and_variance():
    mean, var = torch.randn(2, 3, requires_grad=True), torch.rand(2, 3, requires_grad=True)
    x = Gaussian(mean, var)
    assert x.requires_grad and not x.detach().requires_grad
    out = (x * 3)[0]
    (out.mean.sum() + 2 * out.var.sum()).backward()
    torch.testing.assert_close(mean.grad, torch.tensor([[3.0], [0.0]]).expand(2, 3))
    torch.testing.assert_close(var.grad, torch.tensor([[18.0], [0.0]]).expand(2, 3))


def test_no_gradient_below_the_floor():
    var = torch.tensor([0.001, 1.0], requires_grad=True)
    (Gaussian(torch.zeros(2), var, min_variance=0.1) * 1).var.sum().backward()
    assert var.grad.tolist() == [0, 1]


class Block(nn.Module):
    """What a residual network does to its values, activations and pooling left out."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout2d(0.3)

    def forward(self, x):
        out = self.norm(self.conv(x))
        out += x
        first, second = self.drop(out).chunk(2, 1)
        return torch.mean(torch.cat([first * second, x[:, 1:]], 1).flatten(2), -1)


@pytest.mark.needs_torch('2.1', 'torch.compile for Python 3.11')
@pytest.mark.parametrize('floor', [0.0, 1e-3])
def test_an_unmodified_module_compiles_in_one_graph(floor):
    torch._dynamo.reset()
    module = Block().eval()
    x = gaussian(2, 4, 5, 5, min_variance=floor)

    @torch.compile(backend='eager', fullgraph=True)
    def compiled(mean, var):
        out = module(Gaussian(mean, var, floor))
        return out.mean, out.var

    mean, var = compiled(x.mean, x.var)
    out = module(x)
    assert torch.equal(mean, out.mean) and torch.equal(var, out.var)


def test_recomputed_blocks_have_the_same_gradients():
    module = Block().eval()
    grads = []
    x = gaussian(2, 4, 5, 5)
    for run in (lambda v: checkpoint(module, v, use_reentrant=False), module):
        module.zero_grad()
        out = run(x)
        (out.mean.sum() + out.var.sum()).backward()
        grads.append(module.conv.weight.grad.clone())
    assert torch.equal(*grads) and grads[0].any()
