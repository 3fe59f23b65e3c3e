"""What makes a backbone and a pyramid equivariant between quarter turns, part by part and as a preset."""

import math

import pytest
import torch
from torch import nn

from mmrotate_plugin.equivariant import ennBlurPool, ennFourierReLU
from mmrotate_plugin.models import ReFPN, ReResNet
from mmrotate_plugin.models.utils import switch_check
from mmrotate_plugin.models.utils.weight_check import MisfitError
from mmrotate_plugin.testing import act_on_regular, equivariance_error, randomize_norms_, relative_error, rotate

SMALL = dict(depth=18, base_channels=16, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(0, 1, 2))
PARTS = {
    'band limit': dict(conv_cfg=dict(frequencies_cutoff=2.0, maximum_offset=0)),
    'activation': dict(act_cfg=dict(type='ennFourierReLU')),
    'strides': dict(antialiased=True),
    'blur': dict(act_blur=0.5),
    'preset': dict(any_angle=True),
}
ONE_BY_ONE = {key: value for part in list(PARTS.values())[:4] for key, value in part.items()}


def network(group='C8', **options):
    options = {**SMALL, 'base_channels': 16 if group[0] == 'C' else 32, 'zero_init_residual': False, **options}
    return randomize_norms_(ReResNet(group=group, **options)).eval()


@pytest.mark.parametrize('group', ['C8', 'D8'])
@pytest.mark.parametrize('part', PARTS)
def test_every_part_keeps_the_exact_elements_of_the_group(part, group):
    net = network(group, **PARTS[part])
    for quarter_turns, flip in [(1, False), (2, False)] + ([(3, True)] if group == 'D8' else []):
        result = equivariance_error(net, torch.randn(1, 3, 65, 65), group, quarter_turns=quarter_turns, flip=flip)
        assert max(result.error) < 1e-5
        assert min(result.change) > 0.01


def test_preset_is_its_parts_switched_on_one_by_one():
    torch.manual_seed(0)
    preset = network(any_angle=True)
    torch.manual_seed(0)
    parts = network(**ONE_BY_ONE)
    x = torch.randn(1, 3, 65, 65)
    for a, b in zip(preset(x), parts(x), strict=True):
        assert torch.equal(a, b)
    assert isinstance(preset.maxpool, ennBlurPool) and isinstance(preset.relu, ennFourierReLU)
    assert preset.layer2[0].conv1.stride == (1, 1) and preset.layer2[0].pool.stride == 2


def test_keys_of_a_checkpoint_are_the_same_with_and_without():
    keys = set(network().state_dict())
    assert keys == set(network(any_angle=True).state_dict())
    neck = dict(in_channels=[16, 32], out_channels=16, num_outs=4, add_extra_convs=True)
    assert set(ReFPN(**neck).state_dict()) == set(ReFPN(**neck, any_angle=True).state_dict())


def test_weights_trained_between_other_blurs_and_activations_load_with_a_warning(monkeypatch):
    heard = []
    monkeypatch.setattr(switch_check, 'print_log', lambda text, **_: heard.append(text))
    trained = nn.ModuleDict({'backbone': network(**PARTS['blur'])}).state_dict()
    nn.ModuleDict({'backbone': network(**PARTS['blur'])}).load_state_dict(trained)
    assert heard == []
    nn.ModuleDict({'backbone': network(act_cfg=dict(type='ennFourierReLU'))}).load_state_dict(trained)
    (text,) = heard
    assert "backbone: the checkpoint was trained with activation='ReLU' instead of 'FourierReLU'" in text
    assert 'act_blur=0.5 instead of 0.0' in text and 'antialiased' not in text


def test_weights_without_a_note_are_not_judged(monkeypatch):
    heard = []
    monkeypatch.setattr(switch_check, 'print_log', lambda text, **_: heard.append(text))
    trained = dict(network(**PARTS['blur']).state_dict())  # a plain dict has lost the metadata
    network(antialiased=True).load_state_dict(trained)
    assert heard == []


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_weights_of_another_band_limit_are_refused_not_left_out(prefix):
    state = {f'{prefix}{key}': value for key, value in network().state_dict().items()}
    net = network(any_angle=True)
    net = nn.ModuleDict({'backbone': net}) if prefix else net
    for strict in (True, False):
        with pytest.raises(MisfitError, match='conv1: the checkpoint has 40 kernels .*the model 24: .*any_angle'):
            net.load_state_dict(state, strict=strict)
    neck = dict(in_channels=[16, 32], out_channels=16, num_outs=2)
    with pytest.raises(MisfitError, match='fpn_convs.0.conv: .* 64 kernels .*the model 38'):
        ReFPN(**neck, any_angle=True).load_state_dict(ReFPN(**neck).state_dict())
    network(conv_cfg=dict(maximum_offset=None)).load_state_dict(network().state_dict())  # the same kernels


def waves(size, degrees, directions=24, shortest=9.0):
    """An image of plane waves, drawn at an angle: nothing is resampled."""
    g = torch.Generator().manual_seed(7)
    angle = torch.rand(directions, generator=g) * 2 * math.pi + math.radians(degrees)
    k = 2 * math.pi / (shortest + 30 * torch.rand(directions, generator=g))
    phase = torch.rand(directions, 3, generator=g) * 2 * math.pi
    y, x = torch.meshgrid(-(torch.arange(size) - size // 2.0), torch.arange(size) - size // 2.0, indexing='ij')
    along = k[:, None, None] * (angle.cos()[:, None, None] * x + angle.sin()[:, None, None] * y)
    return torch.cos(along[:, None] + phase[..., None, None]).sum(0)[None] / directions**0.5


def turn_orientations(x, degrees, n=8):
    """Shift the orientations of fields by any angle, as functions of frequencies below N/2."""
    b, c, h, w = x.shape
    k = (torch.fft.fftfreq(n) * n).view(1, 1, n, 1, 1)
    spectrum = torch.fft.fft(x.reshape(b, c // n, n, h, w), dim=2) * (k.abs() < n / 2)
    return torch.fft.ifft(spectrum * torch.exp(-1j * k * math.radians(degrees)), dim=2).real.reshape(b, c, h, w)


def angle_errors(net, degrees, size=129):
    """Error of each map at an angle within a disc; means do not count. Turning the map by itself adds .05 to .1."""
    with torch.no_grad():
        upright, turned = net(waves(size, 0.0)), net(waves(size, degrees))
    errors = []
    for a, b in zip(upright, turned, strict=True):
        side = torch.linspace(-1, 1, a.shape[-1])
        disc = side[:, None] ** 2 + side**2 < 0.75**2
        expected = rotate(turn_orientations(a, degrees), degrees)[..., disc]
        actual = turn_orientations(b, 0.0)[..., disc]
        expected, actual = (x - x.mean(-1, keepdim=True) for x in (expected, actual))
        errors.append(relative_error(actual, expected))
    return errors


@pytest.mark.parametrize('degrees', [45.0, 22.5])
def test_preset_holds_between_quarter_turns_where_redets_recipe_does_not(degrees):
    errors = {}
    for any_angle in (True, False):
        stages = []
        for seed in (0, 1, 2):
            torch.manual_seed(seed)
            net = ReResNet(group='C8', **{**SMALL, 'base_channels': 32}, zero_init_residual=False, any_angle=any_angle)
            net.train()(waves(129, 0.0))
            for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
                norm.momentum = 1.0
            net(waves(129, 0.0))  # statistics of this image
            stages.append(angle_errors(net.eval(), degrees))
        errors[any_angle] = [sum(stage) / len(stage) for stage in zip(*stages, strict=True)]
    assert max(a / b for a, b in zip(errors[True], errors[False], strict=True)) < 0.7
    assert errors[True][0] < 0.25 < 0.5 < errors[False][0]


def test_turning_orientations_by_the_groups_angle_is_its_own_action():
    x = turn_orientations(torch.randn(1, 16, 9, 9), 0.0)
    assert relative_error(rotate(turn_orientations(x, 90.0), 90.0), act_on_regular(x, 'C8', 1)) < 1e-5


@pytest.mark.parametrize(
    'options',
    [
        dict(conv_cfg=dict(frequencies_cutoff=3.0)),
        dict(conv_cfg=dict(maximum_offset=1)),
        dict(act_cfg=dict(type='ReLU')),
        dict(antialiased=False),
        dict(act_blur=0.0),
    ],
    ids=str,
)
def test_what_contradicts_the_preset_is_refused(options):
    with pytest.raises(ValueError, match='any_angle=True sets .* but .*: leave it out, or leave any_angle out'):
        network(any_angle=True, **options)


def test_what_agrees_with_the_preset_passes():
    options = {**ONE_BY_ONE, 'conv_cfg': dict(type='ennConv', frequencies_cutoff=2.0, padding_mode='reflect')}
    assert network(any_angle=True, **options).layer1[0].conv1.padding_mode == 'reflect'


@pytest.mark.parametrize('act_blur', [-1.0, float('nan')])
def test_blur_that_is_none_is_refused(act_blur):
    with pytest.raises(ValueError, match='must be a finite number of pixels'):
        network(act_blur=act_blur)


@pytest.mark.parametrize('group', ['C8', 'D8'])
@pytest.mark.parametrize('switch', ['antialiased', 'any_angle'])
def test_pyramid_with_extra_levels_keeps_the_exact_elements(group, switch):
    order = {'C8': 8, 'D8': 16}[group]
    backbone = network(group, any_angle=True)
    for options in (
        dict(add_extra_convs=True, extra_convs_on_inputs=False, relu_before_extra_convs=True, activation='relu'),
        dict(add_extra_convs=False),
    ):
        neck = ReFPN([2 * order, 4 * order, 8 * order], order, 5, group=group, **options, **{switch: True})
        net = randomize_norms_(nn.Sequential(backbone, neck)).eval()
        for quarter_turns, flip in [(1, False)] + ([(0, True)] if group == 'D8' else []):
            result = equivariance_error(net, torch.randn(1, 3, 129, 129), group, quarter_turns=quarter_turns, flip=flip)
            assert len(result.error) == 5 and max(result.error) < 1e-5
            assert min(result.change) > 1e-3  # of a coarse map of noise; a hundred times the tolerance
