"""State dicts of mmrotate's ReResNet and ReFPN load as they are, and give the same maps; others are refused."""

import re

import pytest
import torch
from e2cnn import gspaces
from e2cnn import nn as enn
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import load_checkpoint, load_state_dict, save_checkpoint
from torch import nn

from mmrotate_plugin.apis.checkpoint import load_weights
from mmrotate_plugin.equivariant._e2cnn import e2cnn_on_numpy_2
from mmrotate_plugin.models import ReFPN, ReResNet, ResNet
from mmrotate_plugin.models.utils.weight_check import MisfitError
from mmrotate_plugin.models.utils.weight_conversion import to_mmrotate
from mmrotate_plugin.testing import randomize_norms_, relative_error
from mmrotate_plugin.utils.errors import UsageError

CHANNELS = [16, 32, 64, 128]
NARROW = dict(base_channels=16)
DERIVED = re.compile(r'.*(\._basisexpansion\..*|\.indices_\d+|\.filter|\.expanded_bias|\.bias_expansion)')


class Detector(nn.Module):
    def __init__(self, backbone, neck):
        super().__init__()
        self.backbone, self.neck, self.head = backbone, neck, nn.Conv2d(16, 2, 1)

    def forward(self, x):
        return [self.head(level) for level in self.neck(self.backbone(x))]


def their_detector():
    from mmrotate.models.backbones.re_resnet import ReResNet as TheirReResNet
    from mmrotate.models.necks.re_fpn import ReFPN as TheirReFPN

    backbone = TheirReResNet(18, stem_channels=16, out_indices=(0, 1, 2, 3), **NARROW)
    return randomize_norms_(Detector(backbone, TheirReFPN(CHANNELS, 16, 5)))


def our_detector(**options):
    return Detector(ReResNet(18, **NARROW, **options), ReFPN(CHANNELS, 16, 5, **options))


@pytest.fixture(scope='module')
def theirs():
    """Their detector in eval mode, and its state dicts: filters are in that of eval mode, bases in both."""
    torch.manual_seed(1)
    net = their_detector()
    states = {mode: {k: v.clone() for k, v in getattr(net, mode)().state_dict().items()} for mode in ('train', 'eval')}
    assert any(key.endswith('.filter') for key in states['eval'])
    return net, states


@pytest.fixture
def logged(monkeypatch):
    """What mmengine prints about a load."""
    lines = []
    monkeypatch.setattr(mmengine_checkpoint, 'print_log', lambda text, *_, **__: lines.append(text))
    return lines


def same_maps(actual, expected, x=None):
    x = torch.randn(1, 3, 128, 128) if x is None else x
    with torch.no_grad():
        pairs = zip(actual(x), expected(x), strict=True)
    assert max(relative_error(*(getattr(y, 'tensor', y) for y in pair)) for pair in pairs) < 1e-5


def save(path, state, **meta):
    torch.save({'state_dict': state, 'meta': meta}, path)
    return str(path)


def part(state, prefix):
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


@pytest.mark.parametrize('mode', ['train', 'eval'])
def test_load_from_takes_a_detector_of_mmrotates_classes(theirs, mode, tmp_path, logged):
    net = our_detector()
    before = net.backbone.conv1.weight.clone()
    load_checkpoint(net, save(tmp_path / 'redet.pth', theirs[1][mode]), strict=False)  # what mmengine's Runner calls
    assert not torch.equal(net.backbone.conv1.weight, before)
    same_maps(net.eval(), theirs[0])
    assert not any(word in line for line in logged for word in ('unexpected', 'missing', 'mismatch')), logged
    our_detector().load_state_dict(theirs[1][mode])  # strict


@pytest.mark.parametrize('mode', ['train', 'eval'])
@pytest.mark.parametrize('kind', ['state dict', 'classifier', 'detector'])
def test_pretrained_takes_a_file_of_mmrotates_backbone(theirs, mode, kind, tmp_path, logged):
    state, path = theirs[1][mode], tmp_path / 'backbone.pth'
    init_cfg = dict(type='Pretrained', checkpoint=str(path))
    backbone = part(state, 'backbone.')
    if kind == 'state dict':
        torch.save(backbone, path)
    elif kind == 'classifier':  # as re_resnet50_c8_batch256-*.pth: the backbone has no prefix, the head remains
        save(path, {**backbone, 'head.fc.weight': torch.ones(2, 2), 'head.fc.bias': torch.ones(2)})
    else:
        save(path, state)
        init_cfg['prefix'] = 'backbone.'
    net = ReResNet(18, **NARROW, init_cfg=init_cfg)
    net.init_weights()
    same_maps(net.eval(), theirs[0].backbone)
    complaints = [line for line in logged if 'unexpected' in line or 'missing' in line]
    assert len(complaints) == (kind == 'classifier'), logged
    assert all('state_dict: head.fc.weight, head.fc.bias\n' in line for line in complaints)


@pytest.mark.parametrize('part_of, advice', [('detector', "prefix='backbone.'"), ('other', r'\(fc.weight, \.\.\.\)$')])
def test_pretrained_from_a_file_without_any_weight_of_the_network_is_an_error(theirs, part_of, advice, tmp_path):
    state = theirs[1]['train'] if part_of == 'detector' else {'fc.weight': torch.ones(1)}
    path = save(tmp_path / 'file.pth', state)
    with pytest.raises(MisfitError, match=f'no weights of ReResNet.*{advice}'):
        ReResNet(18, **NARROW, init_cfg=dict(type='Pretrained', checkpoint=path)).init_weights()
    with pytest.raises(MisfitError, match='no weights of ReFPN'):
        ReFPN(CHANNELS, 16, 5, init_cfg=dict(type='Pretrained', checkpoint=path)).init_weights()
    load_state_dict(ReResNet(18, **NARROW), state)  # elsewhere, that is a part without a backbone


def test_our_state_loads_into_mmrotates_classes(theirs):
    ours = randomize_norms_(our_detector(), seed=2)
    with pytest.raises(AssertionError):
        same_maps(ours.eval(), theirs[0])
    net = their_detector().train()  # e2cnn expands its filters on the switch to eval mode, so weights come before
    result = net.load_state_dict(to_mmrotate(ours.state_dict()), strict=False)
    assert not result.unexpected_keys
    assert all(DERIVED.fullmatch(key) for key in result.missing_keys)
    same_maps(net.eval(), ours.eval())


def test_resnet50_of_mmrotate_and_ours_exchange_weights(monkeypatch):
    from mmrotate.models.backbones.re_resnet import ReResNet as TheirReResNet

    # e2cnn takes half a minute for the variances of its initialisation; any random weights of that size will do
    monkeypatch.setattr(
        enn.init, 'generalized_he_init', lambda weights, _: weights.normal_(std=weights.numel() ** -0.25)
    )
    theirs = randomize_norms_(TheirReResNet(50, out_indices=(0, 1, 2, 3)))
    ours = ReResNet(50)
    x = torch.randn(1, 3, 65, 65)
    ours.load_state_dict(theirs.state_dict())
    theirs.eval()  # returns None
    same_maps(ours.eval(), theirs, x)

    other = randomize_norms_(ReResNet(50, zero_init_residual=False), seed=1).eval()
    theirs.train()
    result = theirs.load_state_dict(to_mmrotate(other.state_dict()), strict=False)
    assert not result.unexpected_keys and all(DERIVED.fullmatch(key) for key in result.missing_keys)
    theirs.eval()
    same_maps(other, theirs, x)
    with torch.no_grad():
        assert relative_error(other(x)[-1], ours(x)[-1]) > 0.1


OWN = 'ReResNet-18, group C8, base_channels=16'
OTHERS = [
    (dict(depth=34), 'ReResNet-34, group C8, base_channels=16'),
    (dict(depth=50), 'ReResNet-50, group C8, base_channels=16'),
    (dict(group='C4'), 'ReResNet-18, group C4, base_channels=16'),
    (dict(group='C16'), 'ReResNet-18, group C16, base_channels=16'),
    (dict(group='D4'), 'ReResNet-18, group D4, base_channels=16'),
    (dict(group='D8'), 'ReResNet-18, group D8, base_channels=16'),
    (dict(base_channels=32), 'ReResNet-18, group C8, base_channels=32'),
    (dict(depth=50, group='C4', base_channels=32), 'ReResNet-50, group C4, base_channels=32'),
    (dict(group='C4', num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(1,)), 'ReResNet-18, group C4'),
]


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
@pytest.mark.parametrize('options, name', OTHERS, ids=str)
def test_a_checkpoint_of_another_network_is_refused_with_both_named(options, name, prefix, tmp_path):
    other = ReResNet(**{'depth': 18, **NARROW, **options})
    net = ReResNet(18, **NARROW)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    whole = net if not prefix else nn.ModuleDict({'backbone': net})
    path = str(tmp_path / 'other.pth')
    save_checkpoint({'state_dict': (other if not prefix else nn.ModuleDict({'backbone': other})).state_dict()}, path)
    message = f'^{prefix[:-1]}.*checkpoint is of a {name}.*model is a {OWN}'
    with pytest.raises(MisfitError, match=message):
        load_checkpoint(whole, path, strict=False)
    with pytest.raises(UsageError, match=f"checkpoint 'x.pth'.*of a {name}.*model is a {OWN}"):
        load_weights(whole, {'state_dict': torch.load(path)['state_dict'], 'meta': {}}, 'x.pth')
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key]), 'a part was loaded'


@pytest.mark.parametrize('options, name', OTHERS, ids=str)
def test_so_is_one_with_e2cnns_keys(options, name):
    """Flat coefficients, without the group's name; orders come from the norms, and D4 looks like C8."""
    state = dict(to_mmrotate(ReResNet(**{'depth': 18, **NARROW, **options}).state_dict()))
    net = ReResNet(18, **NARROW)
    if options.get('group') == 'D4':
        load_state_dict(net, state)
        return
    if options.get('group') == 'D8':
        name = 'ReResNet-18, group C16 or D8'
    name = name.replace('C16,', 'C16 or D8,').replace('C4', 'C4 or D2').replace('C8', 'C8( or D4)?')
    with pytest.raises(MisfitError, match=f'checkpoint is of a {name}.*model is a {OWN}'):
        load_state_dict(net, state)


def e2cnn_state(gspace):
    """What e2cnn saves of a 3x3 convolution between two regular fields."""
    fields = enn.FieldType(gspace, [gspace.regular_repr] * 2)
    with e2cnn_on_numpy_2():
        conv = enn.R2Conv(fields, fields, 3, sigma=None, frequencies_cutoff=lambda r: 3 * r, bias=False)
    return {f'layer1.0.conv1.{key}': value for key, value in conv.state_dict().items()}


def test_sampled_kernels_tell_groups_of_one_order_apart():
    rotations, reflections = e2cnn_state(gspaces.Rot2dOnR2(8)), e2cnn_state(gspaces.FlipRot2dOnR2(4))
    shapes = [{key: value.shape for key, value in state.items()} for state in (rotations, reflections)]
    assert shapes[0] == shapes[1]
    c8, d4 = ReResNet(18, **NARROW), ReResNet(18, 'D4', **NARROW)
    load_state_dict(c8, rotations)
    assert torch.equal(c8.layer1[0].conv1.weight.flatten(), rotations['layer1.0.conv1.weights'])
    load_state_dict(d4, reflections)
    with pytest.raises(MisfitError, match='of a ReResNet-18, group D4.*model is a ReResNet-18, group C8'):
        load_state_dict(c8, reflections)
    with pytest.raises(MisfitError, match='of a ReResNet-18, group C8.*model is a ReResNet-18, group D4'):
        load_state_dict(d4, rotations)

    (key,) = (key for key in rotations if key.endswith('sampled_basis'))
    with pytest.raises(MisfitError, match='sampled kernels are not those of group C8'):
        load_state_dict(c8, {**rotations, key: rotations[key].flip(0)})


@pytest.mark.parametrize('options, name', [(dict(group='C4'), 'group C4, out_channels=16'),
                                           (dict(group='D4'), 'group D4, out_channels=16'),
                                           (dict(group='C16'), 'group C16, out_channels=16'),
                                           (dict(out_channels=32), 'group C8, out_channels=32')])  # fmt: skip
def test_a_neck_of_another_group_or_width_is_refused(options, name):
    net = nn.ModuleDict({'neck': ReFPN(CHANNELS, 16, 5)})
    other = nn.ModuleDict({'neck': ReFPN(**{'in_channels': CHANNELS, 'out_channels': 16, 'num_outs': 5, **options})})
    message = 'neck: the checkpoint is of a ReFPN of {}.*model is a ReFPN of group C8, out_channels=16'
    with pytest.raises(MisfitError, match=message.format(name)):
        load_state_dict(net, other.state_dict())
    if options.get('group') != 'D4':  # flat and without the group's name, it cannot be told from C8
        name = name.replace('C4', 'C4 or D2').replace('C16', 'C16 or D8').replace('C8', 'C8 or D4')
        with pytest.raises(MisfitError, match=message.format(name)):
            load_state_dict(net, dict(to_mmrotate(other.state_dict())))


def test_a_plain_resnet_is_refused():
    with pytest.raises(MisfitError, match=r'conv1.weight of shape \(64, 3, 7, 7\).*plain ResNet.*ReResNet of group C8'):
        load_state_dict(ReResNet(18), ResNet(18).state_dict())


def test_parts_still_load(theirs, logged):
    state = part(theirs[1]['train'], 'backbone.')
    three = ReResNet(18, **NARROW, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(2,))
    load_state_dict(three, state)
    assert torch.equal(three.layer3[0].conv1.weight.flatten(), state['layer3.0.conv1.weights'])

    net = ReResNet(18, **NARROW)
    load_state_dict(net, {key: value for key, value in state.items() if key.startswith('layer4.1.')})
    assert torch.equal(net.layer4[1].conv1.weight.flatten(), state['layer4.1.conv1.weights'])
    load_state_dict(nn.ModuleDict({'backbone': net, 'fc': nn.Linear(2, 2)}), {'fc.weight': torch.ones(2, 2)})
    load_state_dict(net, {**state, 'fc.weight': torch.ones(1)})
    same_maps(net.eval(), theirs[0].backbone)
    del logged[:]
    load_state_dict(ReResNet(18, in_channels=1, **NARROW), state)  # an image of another kind is no other network
    assert 'size mismatch for conv1.weight' in logged[0]


def test_a_checkpoint_names_its_group_and_keeps_its_keys():
    for net, group in ((ReResNet(18, 'D4', **NARROW), 'D4'), (ReFPN(CHANNELS, 16, 5), 'C8')):
        state = net.state_dict()
        assert state._metadata['']['group'] == group
        assert all(isinstance(value, torch.Tensor) for value in state.values())
