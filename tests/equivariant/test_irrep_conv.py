import copy
import io
import math
import pickle

import e2cnn.nn as enn
import pytest
import torch
from torch import nn

from mmrotate_plugin.adf import Gaussian
from mmrotate_plugin.equivariant import build_enn_feature, ennIrrepConv, export, group_order
from mmrotate_plugin.equivariant._e2cnn import e2cnn_on_numpy_2
from mmrotate_plugin.equivariant.irrep_basis import into_image_axes, irrep_basis
from mmrotate_plugin.testing import act, act_on_irreps, act_on_regular, disc, exact_elements, relative_error, rotate

EQUAL = 1e-6  # relative, float32: 8 units in the last place
FIELDS = (0, 1, 2, 1, 0)


def make(group='C8', frequencies=FIELDS, kernel_size=3, **options):
    layer = ennIrrepConv(2 * group_order(group), frequencies, kernel_size, padding=kernel_size // 2, group=group,
                         **options)  # fmt: skip
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    return layer


def regular(group, size=9, dtype=torch.float32, batch=2):
    return torch.randn(batch, 2 * group_order(group), size, size, dtype=dtype)


@pytest.mark.parametrize('group', ['C5', 'C8', 'D5', 'D6', 'D8'])
@pytest.mark.parametrize('frequency', [0, 1, 2])
@pytest.mark.parametrize('options', [dict(), dict(kernel_size=5, frequencies_cutoff=1.0, maximum_offset=0)], ids=str)
def test_equals_e2cnn_in_the_axes_of_the_image(group, frequency, options):
    layer = make(group, (frequency,), **options)
    gspace = build_enn_feature(1, group).gspace
    number = (1, frequency) if group[0] == 'D' else (frequency,)
    field = gspace.trivial_repr if frequency == 0 else gspace.irrep(*number)
    with e2cnn_on_numpy_2():
        reference = enn.R2Conv(build_enn_feature(2, group), enn.FieldType(gspace, [field]), layer.kernel_size[0],
                               frequencies_cutoff=lambda r: layer.band_limits[int(r)],
                               maximum_offset=layer.maximum_offset, initialize=False)  # fmt: skip
    with torch.no_grad():
        reference.weights.copy_(layer.weight.flatten())
    axes = torch.tensor(into_image_axes(group, frequency)).float()
    expected = torch.einsum('po,oixy->pixy', axes, reference.expand_parameters()[0])
    assert relative_error(layer.expand(), expected) < EQUAL
    assert relative_error(axes @ axes.T, torch.eye(len(axes))) < EQUAL


@pytest.mark.parametrize('group', ['C8', 'D8', 'C12', 'D12'])
@pytest.mark.parametrize('kernel_size', [1, 3, 5])
def test_fields_turn_with_the_image(group, kernel_size):
    layer = make(group, kernel_size=kernel_size).double()
    x = regular(group, dtype=torch.float64)
    out = layer(x)
    for turns, flip in exact_elements(group):
        expected = act_on_irreps(out, FIELDS, 90 * turns, flip)
        assert relative_error(layer(act_on_regular(x, group, turns, flip)), expected) < 1e-13
        assert relative_error(out, expected) > 0.3
        if not flip:
            swapped = act_on_irreps(out, (0, 2, 1, 1, 0), 90 * turns)
            assert relative_error(swapped, expected) > 0.3, 'a field of another frequency fails the check'


def test_a_free_filter_fails_that_check():
    layer, x = nn.Conv2d(16, 8, 3, padding=1), regular('C8')
    error = relative_error(layer(act_on_regular(x, 'C8', 1)), act_on_irreps(layer(x), FIELDS, 90))
    assert error > 0.5


def test_a_vector_points_to_what_it_saw():
    """(dx, dy) in pixels, y down, and the director of a bar: no action of ours is asked."""
    layer = ennIrrepConv(8, (1, 2), 3, padding=1, group='C8')
    spot = torch.zeros(4, 8, 9, 9)
    for i, (dx, dy) in enumerate([(1, 0), (0, 1), (-1, 0), (0, -1)]):  # neighbours of the centre, alike at every angle
        spot[i, :, 4 + dy, 4 + dx] = 1
    vectors, directors = layer(spot)[:, :, 4, 4].split(2, 1)
    angles = torch.atan2(vectors[:, 1], vectors[:, 0])
    for i in range(4):
        turned = (angles[i] - angles[0] - i * math.pi / 2 + math.pi) % (2 * math.pi) - math.pi
        assert turned.abs() < 1e-5, 'a quarter further clockwise, as the spot is'
    assert relative_error(directors[1], -directors[0]) < 1e-5 and relative_error(directors[2], directors[0]) < 1e-5


@pytest.mark.parametrize('group', ['C8', 'D8'])
def test_error_at_any_angle(group):
    """A band limit that the kernel can hold; smooth fields, cycled by whole steps, between quarter turns."""
    smooth = torch.nn.functional.avg_pool2d(torch.randn(1, 2 * group_order(group), 48, 48), 8, 1)
    x = smooth * (torch.hypot(*torch.meshgrid(*[torch.linspace(-1, 1, 41)] * 2, indexing='ij')) < 0.7)
    x = torch.nn.functional.avg_pool2d(x, 5, 1)
    inside = disc((37, 37), 0.7)
    errors = {}
    for cutoff in (1.0, 3.0):
        layer = make(group, (0, 1, 2), frequencies_cutoff=cutoff, maximum_offset=0)
        nn.init.zeros_(layer.bias)
        out = layer(act(x, group, 45)) * inside
        expected = act_on_irreps(layer(x), (0, 1, 2), 45) * inside
        errors[cutoff] = relative_error(out, expected)
        still = rotate(layer(x), 45) * inside
        assert relative_error(out, still) > 0.5, 'the components do turn'
    assert errors[1.0] < 0.12


def test_initial_outputs_have_variance_one():
    torch.manual_seed(0)
    draws = [make(kernel_size=3, bias=False)(torch.randn(4, 16, 32, 32))[:, :, 4:-4, 4:-4].var((0, 2, 3))
             for _ in range(30)]  # fmt: skip
    mean = torch.stack(draws).mean(0)
    assert ((mean - 1).abs() < 5 * torch.stack(draws).std(0) / 30**0.5).all()  # five standard errors
    quiet = make(init_std=0.01)
    assert abs(quiet.weight.std().item() / 0.01 - 1) < 5 / (2 * quiet.weight.numel()) ** 0.5
    quiet.reset_parameters()
    assert quiet.weight.abs().max() < 0.06 and quiet.bias.abs().max() == 0


def test_only_invariant_fields_have_a_bias():
    layer = make()
    assert layer.bias.shape == (2,) and layer.out_channels == 8
    expected = torch.zeros(8)
    expected[0], expected[7] = layer.bias.detach()
    assert torch.equal(layer.expand_bias(), expected)
    assert make(frequencies=(1, 2)).bias is None and make(bias=False).bias is None


@pytest.mark.parametrize('group', ['C8', 'D6'])
def test_gradients(group):
    layer = make(group, (0, 2, 1)).double()
    x = regular(group, 5, torch.float64, batch=1).requires_grad_()
    names, values = zip(*layer.named_parameters(), strict=True)
    values = [v.detach().clone().requires_grad_() for v in values]

    def run(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *values))


def test_export_pickle_and_state():
    layer, x = make(stride=2), regular('C8')
    plain = export(layer)
    assert type(plain) is nn.Conv2d and relative_error(plain(x), layer(x)) < EQUAL
    assert list(layer.state_dict()) == ['weight', 'bias']
    with torch.no_grad():
        kept = layer.eval().filter()
        assert layer.filter() is kept
        layer.weight.data *= 2
        assert relative_error(layer.filter(), 2 * kept) < EQUAL
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x), layer(x)) and twin.bases[1] is layer.bases[1] is irrep_basis(
            'C8', 1, 3, (0, 3), None
        )
    file = io.BytesIO()
    torch.save(layer, file)
    assert file.tell() < 4 * layer.weight.numel() + 8000
    assert layer.double()(x.double()).dtype == torch.float64


@pytest.mark.needs_torch('2.1', 'bfloat16 convolutions that add in float32')
def test_autocast_rounds_the_convolution_not_the_filter():
    layer, x = make(), regular('C8')
    with torch.autocast('cpu', torch.bfloat16):
        assert layer.expand().dtype == torch.float32
        out = layer(x)
    assert out.dtype == torch.bfloat16 and relative_error(out, layer(x)) < 0.01  # two units of eight bits


@pytest.mark.needs_torch('2.1', 'torch.compile for Python 3.11')
def test_compiled():
    torch._dynamo.reset()
    layer, x = make(), regular('C8')
    assert relative_error(torch.compile(layer, backend='eager', fullgraph=True)(x), layer(x)) < EQUAL


def test_moments_are_those_of_a_convolution():
    layer, x = make(), regular('C8')
    out = layer(Gaussian(x, torch.full_like(x, 0.5)))
    assert relative_error(out.mean, layer(x)) < EQUAL
    expected = torch.nn.functional.conv2d(torch.full_like(x, 0.5), layer.expand().square(), padding=1)
    assert relative_error(out.var, expected) < EQUAL


BAD = [
    (dict(group='C4'), "'C4' has no field of two channels that turns 2 times.*N >= 5, such as 'C8'"),
    (dict(group='D4', in_channels=16), "'D4' has no field.*'D8'"),
    (dict(frequencies=(0, 4)), "N >= 9, such as 'C12'"),
    (dict(frequencies=(-1,)), 'frequency -1 must be an integer >= 0'),
    (dict(frequencies=(1.0,)), 'frequency 1.0'),
    (dict(frequencies=1), 'frequencies=1 must list'),
    (dict(frequencies=()), r'frequencies=\(\) must list'),
    (dict(in_channels=12), 'in_channels=12.*order 8.*8 or 16'),
    (dict(kernel_size=4), 'kernel_size=4.*odd'),
    (dict(stride=(1, 2)), r'stride=\(1, 2\)'),
    (dict(padding='full'), "padding='full'"),
    (dict(frequencies_cutoff=-3.0), 'frequencies_cutoff=-3.0'),
    (dict(maximum_offset=-1), 'maximum_offset=-1'),
    (dict(init_std=-1), 'init_std=-1'),
]


@pytest.mark.parametrize('bad, message', BAD, ids=[m for _, m in BAD])
def test_bad_arguments_are_named(bad, message):
    with pytest.raises(ValueError, match=message):
        ennIrrepConv(**{**dict(in_channels=16, frequencies=(0, 1, 2), kernel_size=3), **bad})


def test_named_padding_keeps_the_size():
    assert ennIrrepConv(16, (1,), 3, padding='same')(regular('C8')).shape == (2, 2, 9, 9)


def test_the_action_refuses_other_channels():
    with pytest.raises(ValueError, match=r'\(0, 1\) make 3 channels, but x has 4'):
        act_on_irreps(torch.zeros(1, 4, 3, 3), (0, 1), 90)
