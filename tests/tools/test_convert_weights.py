"""Whole checkpoint files, both ways, and what the tool refuses."""

import pytest
import torch
from e2cnn import gspaces
from e2cnn import nn as enn
from torch import nn

from mmrotate_plugin.equivariant._e2cnn import e2cnn_on_numpy_2
from mmrotate_plugin.models import ReFPN, ReResNet
from mmrotate_plugin.models.utils.weight_check import MisfitError
from mmrotate_plugin.models.utils.weight_conversion import ConversionError, group_of, to_mmrotate, to_plugin
from mmrotate_plugin.testing import randomize_norms_


@pytest.fixture
def convert(tool):
    return tool('convert_weights')


def detector(depth=18, group='C8', **options):
    backbone = ReResNet(depth, group, base_channels=16, **options)
    channels = [16 * backbone.block.expansion * 2**i for i in range(4)]
    net = nn.ModuleDict({
        'backbone': backbone,
        'neck': ReFPN(channels, 16, 5, add_extra_convs=True, group=group),
        'rpn_head': nn.Conv2d(16, 3, 1),
    })  # fmt: skip
    return randomize_norms_(net)


def save(path, state, **more):
    torch.save({'state_dict': state, 'meta': {'classes': ['plane']}, **more}, path)
    return str(path)


def same(a, b):
    return list(a) == list(b) and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize('options', [
    dict(), dict(depth=50, deep_stem=True, avg_down=True, group='C4'), dict(depth=50, group='D4'), dict(in_channels=1),
], ids=str)  # fmt: skip
def test_there_and_back_keeps_every_weight(convert, options, tmp_path, capsys):
    net = detector(**options)
    start, there, back = (str(tmp_path / name) for name in ('start.pth', 'there/there.pth', 'back.pth'))
    save(start, net.state_dict(), optimizer={'lr': 1}, message_hub={})
    assert convert([start, there, '--to', 'mmrotate']) == 0
    text = capsys.readouterr().out
    assert 'left out: message_hub, optimizer' in text
    assert ('written for C8 and cannot take it' in text) == ('group' in options)
    file = torch.load(there)
    assert set(file) == {'state_dict', 'meta'} and file['meta'] == {'classes': ['plane']}
    state, order = file['state_dict'], {'C4': 4}.get(options.get('group'), 8)
    stem = 'backbone.stem.0' if 'deep_stem' in options else 'backbone.conv1'
    assert state[f'{stem}.weights'].dim() == 1 and state['neck.lateral_convs.0.conv.weights'].dim() == 1
    assert state[f'backbone.layer1.0.bn1.batch_norm_[{order}].running_var'].numel() == 16 // order
    assert not any(key.endswith('.norm.weight') for key in state) and 'rpn_head.weight' in state

    assert convert([there, back, '--to', 'plugin']) == 0
    assert same(torch.load(back)['state_dict'], net.state_dict())
    detector(**options).load_state_dict(torch.load(back)['state_dict'])
    if options.get('group') == 'D4':  # which C8 could take, were the group not noted in the file
        for path in (there, back):
            with pytest.raises(MisfitError, match='group D4.*group C8'):
                detector(depth=50).load_state_dict(torch.load(path)['state_dict'])


@pytest.mark.parametrize('mode', ['train', 'eval'])
def test_files_of_mmrotates_classes_shrink_to_ours(convert, mode, tmp_path):
    from mmrotate.models.backbones.re_resnet import ReResNet as TheirReResNet
    from mmrotate.models.necks.re_fpn import ReFPN as TheirReFPN

    backbone = TheirReResNet(18, base_channels=16, stem_channels=16)
    theirs = nn.ModuleDict({'backbone': backbone, 'neck': TheirReFPN([16, 32, 64, 128], 16, 5, add_extra_convs=True)})
    getattr(randomize_norms_(theirs), mode)()
    assert convert([save(tmp_path / 'in.pth', theirs.state_dict()), str(tmp_path / 'out.pth'), '--to', 'plugin']) == 0
    state = torch.load(tmp_path / 'out.pth')['state_dict']
    loaded, converted = detector(), detector()
    loaded.load_state_dict(theirs.state_dict(), strict=False)
    result = converted.load_state_dict(state, strict=False)
    assert result.missing_keys == ['rpn_head.weight', 'rpn_head.bias'] and not result.unexpected_keys
    for part in ('backbone', 'neck'):
        assert same(converted[part].state_dict(), loaded[part].state_dict())


def test_dilated_networks_convert_by_their_sampled_kernels():
    """A kernel of another dilation has another number of elements, which only the sampled kernels tell."""
    net = ReResNet(18, base_channels=16, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2))
    state = to_mmrotate(net.state_dict())
    basis = net.layer4[0].conv1.basis.samples.flatten(3)
    assert len(basis) != 64
    name = "layer4.{}.conv1._basisexpansion.block_expansion_('regular', 'regular').sampled_basis"
    assert same(to_plugin({**state, **{name.format(i): basis for i in (0, 1)}}), net.state_dict())
    with pytest.raises(ConversionError, match="'layer4.0.conv1' has 14080 coefficients.*dilat"):
        to_plugin(state)


def test_the_group_is_told_by_e2cnns_names():
    gspace = gspaces.FlipRot2dOnR2(4)
    image, fields = enn.FieldType(gspace, [gspace.trivial_repr] * 3), enn.FieldType(gspace, [gspace.regular_repr] * 2)
    with e2cnn_on_numpy_2():
        stem = enn.R2Conv(image, fields, 7, sigma=None, frequencies_cutoff=lambda r: 3 * r, bias=False)
    state = {f'conv1.{key}': value for key, value in stem.state_dict().items()}
    norm = {f'bn1.{key}': value for key, value in enn.InnerBatchNorm(fields).state_dict().items()}
    converted = to_plugin({**state, **norm})
    assert group_of({**state, **norm}) == group_of(converted) == 'D4'
    assert group_of(norm) == 'C8', 'the usual one of that order'
    assert converted['conv1.weight'].shape == (2, 3, 40) and converted['bn1.norm.weight'].shape == (2,)
    assert not any('basis' in key or 'indices' in key for key in converted)


def test_heads_of_the_original_redet_are_left_out(convert, tmp_path, capsys):
    state = to_mmrotate(detector().state_dict())
    heads = {'bbox_head.fc_cls.weight': torch.ones(16, 4), 'rbbox_head.fc_reg.weight': torch.ones(80, 4)}
    path = save(tmp_path / 'redet.pth', {**state, **heads})
    assert convert([path, str(tmp_path / 'out.pth'), '--to', 'plugin']) == 0
    assert "left out: 2 weights of ReDet's bbox_head and rbbox_head" in capsys.readouterr().out
    converted = torch.load(tmp_path / 'out.pth')['state_dict']
    assert same(converted, detector().state_dict() | to_plugin(state))


def test_help_says_what_each_direction_leaves_out(convert, capsys):
    with pytest.raises(SystemExit) as stop:
        convert(['--help'])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert 'strict=False' in text and 'background' in text


def refused(convert, capsys, *args):
    assert convert(list(map(str, args))) == 2
    captured = capsys.readouterr()
    assert captured.out == '' and captured.err.count('\n') == 1
    return captured.err


def test_wrong_input_is_named(convert, tmp_path, capsys, monkeypatch):
    ours = save(tmp_path / 'ours.pth', detector().state_dict())
    theirs = save(tmp_path / 'theirs.pth', to_mmrotate(detector().state_dict()))
    plain = save(tmp_path / 'plain.pth', {'backbone.conv1.weight': torch.ones(64, 3, 7, 7)})
    gn = save(tmp_path / 'gn.pth', ReResNet(18, base_channels=16, norm_cfg=dict(type='GN', num_groups=2)).state_dict())
    odd = save(tmp_path / 'odd.pth', {**to_mmrotate(detector().state_dict()), 'backbone.conv1.weights': torch.ones(7)})
    foreign = {'body.weights': torch.ones(8), 'body_norm.batch_norm_[8].weight': torch.ones(1)}
    foreign = save(tmp_path / 'foreign.pth', foreign)
    out = tmp_path / 'out.pth'
    assert 'has the keys of plugin already' in refused(convert, capsys, ours, out, '--to', 'plugin')
    assert 'has the keys of mmrotate already' in refused(convert, capsys, theirs, out, '--to', 'mmrotate')
    assert 'no weights of ReResNet or ReFPN' in refused(convert, capsys, plain, out, '--to', 'plugin')
    assert 'gn1 is a group norm' in refused(convert, capsys, gn, out, '--to', 'mmrotate')
    assert "'backbone.conv1' has 7 coefficients" in refused(convert, capsys, odd, out, '--to', 'plugin')
    assert "'body' is no convolution of" in refused(convert, capsys, foreign, out, '--to', 'plugin')
    assert "no.pth' does not exist" in refused(convert, capsys, tmp_path / 'no.pth', out, '--to', 'plugin')
    assert 'is a folder' in refused(convert, capsys, ours, tmp_path, '--to', 'mmrotate')
    assert not out.exists()

    before = (tmp_path / 'ours.pth').read_bytes()
    monkeypatch.chdir(tmp_path)
    assert "OUT './ours.pth' is IN" in refused(convert, capsys, ours, './ours.pth', '--to', 'mmrotate')
    assert (tmp_path / 'ours.pth').read_bytes() == before
    (tmp_path / 'file').write_text('')
    assert "OUT 'file/out.pth' cannot be written" in refused(convert, capsys, ours, 'file/out.pth', '--to', 'mmrotate')
