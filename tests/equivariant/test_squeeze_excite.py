import copy
import pickle

import pytest
import torch
from torch import nn

from mmrotate_plugin.adf import Gaussian
from mmrotate_plugin.equivariant import ennSqueezeExcite, export, group_order
from mmrotate_plugin.registry import MODELS
from mmrotate_plugin.testing import act, act_on_regular, exact_elements, relative_error, rotate


def make(group='C8', fields=6, **options):
    layer = ennSqueezeExcite(fields * group_order(group), 2, group=group, **options)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer


def regular(group='C8', size=7, fields=6):
    return torch.randn(2, fields * group_order(group), size, size) + torch.randn(2, fields * group_order(group), 1, 1)


@pytest.mark.parametrize('group', ['C4', 'C8', 'D4', 'D8'])
def test_commutes_with_the_group(group):
    layer, x = make(group), regular(group)
    out = layer(x)
    for turns, flip in exact_elements(group):
        expected = act_on_regular(out, group, turns, flip)
        assert relative_error(layer(act_on_regular(x, group, turns, flip)), expected) < 1e-6
        assert relative_error(out, expected) > 0.1


def test_a_gate_for_each_orientation_fails_that_check():
    fc = nn.Linear(48, 48)

    def layer(x):
        return x * torch.sigmoid(5 * fc(x.mean((2, 3))))[..., None, None]

    x = regular()
    assert relative_error(layer(act_on_regular(x, 'C8', 1)), act_on_regular(layer(x), 'C8', 1)) > 0.1


def test_any_angle_changes_the_gates_as_little_as_the_mean():
    layer, x = make(), regular(size=33)
    disc = torch.hypot(*torch.meshgrid(*[torch.linspace(-1, 1, 33)] * 2, indexing='ij')) < 0.8
    x = nn.functional.avg_pool2d(x * disc, 5, 1, 2)
    turned = act(x, 'C8', 45)
    assert relative_error(layer(turned), act(layer(x), 'C8', 45)) < 0.01
    assert relative_error(layer(turned), rotate(layer(x), 45)) > 0.1


def test_gates_are_those_of_the_paper():
    layer, x = make(), regular()
    means = x.view(2, 6, 8 * 49).mean(2)
    gates = (layer.fc2.weight @ (layer.fc1.weight @ means.T + layer.fc1.bias[:, None]).clamp_min(0)).T + layer.fc2.bias
    expected = x.view(2, 6, -1) / (1 + torch.exp(-gates))[..., None]
    assert relative_error(layer(x), expected.view_as(x)) < 1e-6
    assert layer.fc1.weight.shape == (3, 6) and ennSqueezeExcite(16).fc1.weight.shape == (1, 2)


def test_torch_uses_it_as_any_layer():
    layer, x = make(), regular()
    small = make('C4', 2).double()
    given = torch.randn(1, 8, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(small, given)
    with torch.autocast('cpu', torch.bfloat16):
        assert relative_error(layer(x).float(), layer(x)) < 0.02
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), export(layer)):
        assert torch.equal(twin(x), layer(x))
    assert list(layer.state_dict()) == ['fc1.weight', 'fc1.bias', 'fc2.weight', 'fc2.bias']
    assert layer(x[:0]).shape == (0, 48, 7, 7) and make(dtype=torch.float64)(x.double()).dtype == torch.float64
    built = MODELS.build(dict(type='ennSqueezeExcite', num_features=32, ratio=2, group='C16'))
    assert built.fields == 2 and 'ratio=2' in repr(built)


@pytest.mark.needs_torch('2.1', 'torch.compile for Python 3.11')
def test_compiled():
    torch._dynamo.reset()
    layer, x = make(), regular()
    assert relative_error(torch.compile(layer, backend='eager', fullgraph=True)(x), layer(x)) < 1e-6


def test_moments_match_samples():
    """The gate is a mean over many values, so it hardly varies: nearly a constant times a Gaussian."""
    layer, mean = make(), regular()[:1]
    std = 0.1 + 0.3 * torch.rand(mean.shape)
    noise = torch.randn(4000, *mean.shape[1:], generator=torch.Generator().manual_seed(0))
    sample = layer(mean + std * noise)
    out = layer(Gaussian(mean, std.square()))
    assert relative_error(out.mean, sample.mean(0, keepdim=True)) < 0.01
    # the standard deviation of 4000 samples is right to 1.1 %; the gate and the field are taken as independent
    assert relative_error(out.std, sample.std(0, keepdim=True)) < 0.03


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match='num_features=20.*order 8'):
        ennSqueezeExcite(20)
    for ratio in (0, 2.0):
        with pytest.raises(ValueError, match=f'ratio={ratio} must be an integer >= 1'):
            ennSqueezeExcite(16, ratio)
