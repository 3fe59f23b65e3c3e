import e2cnn.nn as enn
import pytest
import torch
from mmcv.cnn import build_norm_layer
from torch import nn

import mmrotate_plugin  # noqa: F401
from mmrotate_plugin.equivariant import build_enn_divide_feature, build_enn_norm_layer, ennBN, ennGN, ennSyncBN
from mmrotate_plugin.testing import act_on_regular, randomize_norms_, relative_error


@pytest.mark.parametrize('group, channels', [('C8', 24), ('C4', 24), ('D4', 24), ('C16', 32)])
@pytest.mark.parametrize('momentum', [0.1, None])
def test_batch_norm_equals_e2cnn_in_both_modes(group, channels, momentum):
    ours = randomize_norms_(ennBN(channels, momentum=momentum, group=group))
    reference = enn.InnerBatchNorm(build_enn_divide_feature(channels, group), momentum=momentum)
    state = {f'batch_norm_[{ours.num_features // ours.fields}].{k}': v for k, v in ours.norm.state_dict().items()}
    reference.load_state_dict(state, strict=False)

    for mode in (True, True, False):
        ours.train(mode), reference.train(mode)
        x = torch.randn(3, channels, 5, 7) * 2 + 1
        expected = reference(enn.GeometricTensor(x, reference.in_type)).tensor
        assert relative_error(ours(x), expected) < 1e-6
    (inner,) = [m for m in reference.modules() if isinstance(m, nn.BatchNorm3d)]
    assert relative_error(ours.norm.running_mean, inner.running_mean) < 1e-6
    assert relative_error(ours.norm.running_var, inner.running_var) < 1e-6
    assert ours.norm.num_batches_tracked == inner.num_batches_tracked == 2


def test_loads_the_keys_of_e2cnn_and_names_another_group():
    reference = enn.InnerBatchNorm(build_enn_divide_feature(16, 'C8'))
    nn.init.normal_(getattr(reference, 'batch_norm_[8]').weight)
    ours = ennBN(16, group='C8')
    ours.load_state_dict(reference.state_dict())
    assert torch.equal(ours.weight, getattr(reference, 'batch_norm_[8]').weight)
    with pytest.raises(RuntimeError, match=r"batch_norm_\[8\].* 8 orientations.*'C4' has 4"):
        ennBN(16, group='C4').load_state_dict(reference.state_dict())


@pytest.mark.parametrize('make', [ennBN, lambda c, group: ennGN(c, 3, group=group)], ids=['BN', 'GN'])
@pytest.mark.parametrize('group', ['C8', 'D4'])
def test_commutes_with_the_group(make, group):
    norm = randomize_norms_(make(48, group=group))
    x = torch.randn(2, 48, 5, 5)
    expected = act_on_regular(norm(x), group, 1)
    assert relative_error(norm(act_on_regular(x, group, 1)), expected) < 1e-6
    plain = randomize_norms_(nn.BatchNorm2d(48))  # one number per orientation breaks it
    assert relative_error(plain(act_on_regular(x, group, 1)), act_on_regular(plain(x), group, 1)) > 0.1


def test_group_norm_is_that_of_whole_fields():
    x = torch.randn(2, 48, 5, 5, dtype=torch.float64)
    blocks = x.view(2, 3, -1)
    expected = (blocks - blocks.mean(2, keepdim=True)) / (blocks.var(2, unbiased=False, keepdim=True) + 1e-5).sqrt()
    assert torch.allclose(ennGN(48, 3, group='C8').double()(x), expected.view_as(x))


def test_sync_batch_norm_conversion_keeps_the_fields():
    norm = randomize_norms_(ennBN(16))
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(norm)
    assert isinstance(converted.norm, nn.SyncBatchNorm)
    assert torch.equal(converted.weight, norm.weight) and converted.norm.num_features == 2
    x = torch.randn(2, 16, 3, 3)
    assert torch.equal(converted.eval()(x), norm.eval()(x))
    assert isinstance(ennSyncBN(16).norm, nn.SyncBatchNorm)


@pytest.mark.parametrize(
    'cfg, kind, name',
    [
        (dict(type='ennBN', eps=1e-3, momentum=0.01), nn.BatchNorm2d, 'bn1'),
        (dict(type='ennSyncBN', eps=1e-3, momentum=0.01), nn.SyncBatchNorm, 'bn1'),
        (dict(type='ennGN', num_groups=2, eps=1e-3), nn.GroupNorm, 'gn1'),
    ],
)
def test_mmcv_builds_it(cfg, kind, name):
    built_name, norm = build_norm_layer(dict(cfg, requires_grad=False, group='C4'), 16, postfix=1)
    assert built_name == name and isinstance(norm.norm, kind) and norm.fields == 4
    assert norm.norm.eps == 1e-3 and getattr(norm.norm, 'momentum', 0.01) == 0.01
    assert not any(p.requires_grad for p in norm.parameters())
    options = {k: v for k, v in cfg.items() if k != 'type'}
    ours_name, ours = build_enn_norm_layer(16, 1, type=cfg['type'][3:], requires_grad=False, group='C4', **options)
    assert ours_name == name and type(ours) is type(norm)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match='num_features=12.*order 8'):
        ennBN(12)
    with pytest.raises(ValueError, match='num_groups=5 does not divide the 6 fields'):
        ennGN(48, 5)
    with pytest.raises(ValueError, match="type='LN'.*BN, SyncBN, GN"):
        build_enn_norm_layer(16, type='LN')
