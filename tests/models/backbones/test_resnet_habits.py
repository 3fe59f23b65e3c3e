"""What users and tools of mmdet expect of its ResNet."""

import inspect

import pytest
import torch
from mmdet.models.backbones import ResNet as MMDetResNet
from torch.nn.modules.batchnorm import _BatchNorm

from mmrotate_plugin.models import ADFResNet, ReResNet, ResNet

NETWORKS = [ResNet, ADFResNet, ReResNet]


@pytest.mark.parametrize('network', NETWORKS)
@pytest.mark.parametrize('depth', [18, 50])
def test_has_the_attributes_of_mmdets(network, depth):
    options = dict(depth=depth, stem_channels=8, base_channels=16, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1),
                   out_indices=(0, 2), frozen_stages=1)  # fmt: skip
    ours, theirs = network(**options), MMDetResNet(**options)
    for name in ('depth', 'stem_channels', 'base_channels', 'num_stages', 'strides', 'dilations', 'out_indices',
                 'style', 'deep_stem', 'avg_down', 'frozen_stages', 'with_cp', 'dcn', 'stage_with_dcn', 'plugins',
                 'stage_blocks', 'res_layers', 'feat_dim', 'zero_init_residual', 'norm1_name'):  # fmt: skip
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.norm1 is getattr(ours, ours.norm1_name) and ours.norm1.num_features == 8
    assert set(ours.arch_settings) == set(theirs.arch_settings) and isinstance(ours.layer1[0], ours.block)
    for own, block in zip(ours.layer2, theirs.layer2, strict=True):
        for name in ('inplanes', 'planes', 'stride', 'dilation', 'style', 'with_cp', 'expansion'):
            assert getattr(own, name, None) == getattr(block, name, getattr(own, name)), name
        for i in range(1, 3 + (depth == 50)):
            norm = getattr(own, f'norm{i}')
            assert norm is getattr(own, getattr(block, f'norm{i}_name'))
            assert norm.num_features == getattr(block, f'norm{i}').num_features


def test_arguments_stand_where_mmdet_has_them():
    theirs = list(inspect.signature(MMDetResNet.__init__).parameters)
    ours = inspect.signature(ResNet.__init__).parameters
    assert list(ours)[: len(theirs)] == theirs
    assert ours['norm_eval'].default is inspect.signature(MMDetResNet.__init__).parameters['norm_eval'].default is True


@pytest.mark.parametrize('network', NETWORKS)
def test_what_asks_for_no_extension_passes_and_others_are_errors(network):
    small = dict(depth=18, base_channels=16, num_stages=1, strides=(1,), dilations=(1,), out_indices=(0,))
    network(**small, dcn=None, stage_with_dcn=(False,) * 4, plugins=None, pretrained=None)
    network(**small, dcn=None, stage_with_dcn=(True,))  # of a base config, whose dcn was taken back
    for bad, message in (
        (dict(dcn=dict(type='DCN'), stage_with_dcn=(True,)), 'dcn=.*deformable'),
        (dict(plugins=[dict(cfg=dict(type='ContextBlock'), position='after_conv3')]), 'plugins=.*no plugins here'),
        (dict(pretrained='a.pth', init_cfg=dict(type='Kaiming', layer='Conv2d')), 'pretrained=.*give one'),
    ):
        with pytest.raises(ValueError, match=message):
            network(**small, **bad)
    with pytest.raises(TypeError, match='pretrained=0 must be'):
        network(**small, pretrained=0)


@pytest.mark.parametrize('network', NETWORKS)
def test_pretrained_loads(network, tmp_path):
    small = dict(depth=18, base_channels=16, num_stages=1, strides=(1,), dilations=(1,), out_indices=(0,))
    source = network(**small)
    torch.save(source.state_dict(), tmp_path / 'weights.pth')
    net = network(**small, pretrained=str(tmp_path / 'weights.pth'))
    assert net.init_cfg == dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth'))
    assert not torch.equal(net.conv1.weight, source.conv1.weight)
    net.init_weights()
    assert torch.equal(net.conv1.weight, source.conv1.weight)


@pytest.mark.parametrize('network, fixed', [(ResNet, True), (ADFResNet, True), (ReResNet, False)])
def test_batch_norms_of_trained_backbones_stay(network, fixed):
    small = dict(depth=18, base_channels=16, num_stages=1, strides=(1,), dilations=(1,), out_indices=(0,))
    for net, expected in ((network(**small), fixed), (network(**small, norm_eval=not fixed), not fixed)):
        net.train()
        assert {not m.training for m in net.modules() if isinstance(m, _BatchNorm)} == {expected}
        assert all(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize(
    'network, norm',
    [(ADFResNet, dict(type='IN')), (ReResNet, dict(type='BN', affine=False)), (ResNet, dict(type='IN'))],
)
def test_norms_without_a_scale(network, norm):
    small = dict(depth=18, base_channels=16, num_stages=1, strides=(1,), dilations=(1,), out_indices=(0,))
    net = network(**small, norm_cfg=norm)
    net.init_weights()
    assert net(torch.randn(2, 3, 17, 17))[0].isfinite().all() and net.layer1[0].last_norm.weight is None


@pytest.mark.parametrize('network', NETWORKS)
def test_an_empty_batch_trains(network):
    net = network(
        depth=50, base_channels=8, norm_eval=False, **({'group': 'C4'} if network is ReResNet else {})
    ).train()
    outs = net(torch.zeros(0, 3, 33, 33))
    assert [tuple(out.shape) for out in outs] == [(0, 32, 9, 9), (0, 64, 5, 5), (0, 128, 3, 3), (0, 256, 2, 2)]
    sum(out.sum() for out in outs).backward()
    assert all(p.grad is not None and (p.grad == 0).all() for p in net.parameters())
