import pytest
import torch
from torch import nn

from mmrotate_plugin.models import ReFPN, ReResNet
from mmrotate_plugin.models.necks.re_fpn import upsample_to
from mmrotate_plugin.testing import equivariance_error, randomize_norms_, relative_error

CHANNELS = [16, 32, 64, 128]


def maps(size=65):
    sizes = [(size + 2**k - 1) // 2**k for k in range(4)]
    return [torch.randn(1, c, s, s) for c, s in zip(CHANNELS, sizes, strict=True)]


@pytest.mark.parametrize(
    'options',
    [
        dict(num_outs=4),
        dict(num_outs=5, start_level=1, add_extra_convs=True, norm_cfg=dict(type='BN'), activation='relu'),
        dict(num_outs=6, add_extra_convs=True, extra_convs_on_inputs=False, relu_before_extra_convs=True),
        dict(num_outs=5, no_norm_on_lateral=True, norm_cfg=dict(type='GN', num_groups=2)),
    ],
    ids=str,
)
@pytest.mark.parametrize('group', ['C8', 'D4'])
def test_backbone_and_neck_commute_with_the_group(options, group):
    backbone = ReResNet(18, group, base_channels=16, zero_init_residual=False)
    net = nn.Sequential(backbone, ReFPN(CHANNELS, 16, group=group, **options))
    randomize_norms_(net).eval()
    elements = [(1, False), (2, False)] + ([(0, True)] if group == 'D4' else [])
    for quarter_turns, flip in elements:
        x = torch.randn(1, 3, 257, 257)
        result = equivariance_error(net, x, group, quarter_turns=quarter_turns, flip=flip)
        assert len(result.error) == options['num_outs']
        assert max(result.error) < 1e-5
        assert min(result.change) > 0.01


@pytest.mark.parametrize('group', ['C8', 'D4'])
@pytest.mark.parametrize('mode', ['max', 'mean'])
def test_pooled_outputs_turn_with_the_image_and_change_in_no_other_way(group, mode):
    backbone = ReResNet(18, group, base_channels=16, zero_init_residual=False)
    neck = ReFPN(CHANNELS, 16, 4, group=group, group_pool=mode)
    net = randomize_norms_(nn.Sequential(backbone, neck)).eval()
    x = torch.randn(1, 3, 65, 65)
    with torch.no_grad():
        outs, turned = net(x), net(x.rot90(1, (-2, -1)))
        neck.pool = nn.Identity()
        unpooled, unpooled_turned = net(x), net(x.rot90(1, (-2, -1)))
    for out, actual in zip(outs, turned, strict=True):
        assert out.shape[1] == 2
        assert relative_error(actual, out.rot90(1, (-2, -1))) < 1e-5
        assert relative_error(out, out.rot90(1, (-2, -1))) > 0.01
    assert relative_error(unpooled_turned[0], unpooled[0].rot90(1, (-2, -1))) > 0.1, 'orientations would be permuted'


def test_even_sizes_fail_that_check():
    net = nn.Sequential(ReResNet(18, base_channels=16), ReFPN(CHANNELS, 16, 4)).eval()
    assert max(equivariance_error(net, torch.randn(1, 3, 128, 128), 'C8').error) > 0.1


def test_levels():
    neck = ReFPN(CHANNELS, 16, num_outs=5, start_level=1)
    assert [tuple(o.shape[1:]) for o in neck(maps())] == [(16, s, s) for s in (33, 17, 9, 5, 3)]
    assert len(neck.lateral_convs) == 3 and len(neck.fpn_convs) == 3
    some = ReFPN(CHANNELS, 16, num_outs=2, start_level=1, end_level=3)
    assert [o.shape[-1] for o in some(maps())] == [33, 17]
    assert len(some.lateral_convs) == 2


def test_each_option_does_what_it_says():
    inputs = maps()
    on_inputs = ReFPN(CHANNELS, 16, num_outs=5, add_extra_convs=True)
    assert on_inputs.fpn_convs[-1].in_channels == 128
    on_outputs = ReFPN(CHANNELS, 16, num_outs=6, add_extra_convs=True, extra_convs_on_inputs=False)
    assert on_outputs.fpn_convs[-1].in_channels == 16
    before = on_outputs(inputs)
    on_outputs.relu_before_extra_convs = True
    after = on_outputs(inputs)
    assert torch.equal(before[4], after[4]) and not torch.equal(before[5], after[5])
    normed = ReFPN(CHANNELS, 16, num_outs=4, norm_cfg=dict(type='BN'))
    bare = ReFPN(CHANNELS, 16, num_outs=4, norm_cfg=dict(type='BN'), no_norm_on_lateral=True)
    assert normed.lateral_convs[0].with_norm and not bare.lateral_convs[0].with_norm and bare.fpn_convs[0].with_norm
    assert normed.lateral_convs[0].conv.bias is None and bare.lateral_convs[0].conv.bias is not None
    assert min(o.min() for o in ReFPN(CHANNELS, 16, 4, activation='relu')(inputs)) == 0


@pytest.mark.parametrize('coarse, fine', [(9, 17), (17, 33), (65, 129), (8, 16), (5, 10), (1, 2), (1, 3)])
def test_upsampling_is_symmetric(coarse, fine):
    x = torch.randn(1, 2, coarse, coarse)
    up = upsample_to(x, (fine, fine))
    assert up.shape[-2:] == (fine, fine)
    assert torch.allclose(upsample_to(x.rot90(1, (-2, -1)), (fine, fine)), up.rot90(1, (-2, -1)), atol=1e-5)
    if fine == 2 * coarse - 1:
        assert torch.allclose(up[..., ::2, ::2], x, atol=1e-5), 'values return to the pixels that they came from'


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r'in_channels\[1\]=20.*order 8'):
        ReFPN([16, 20], 16, 2)
    with pytest.raises(ValueError, match='out_channels=20'):
        ReFPN(CHANNELS, 20, 4)
    with pytest.raises(ValueError, match='num_outs=2 .*at least 4'):
        ReFPN(CHANNELS, 16, 2)
    with pytest.raises(ValueError, match='num_outs=3 .*exactly 2'):
        ReFPN(CHANNELS, 16, 3, start_level=1, end_level=3)
    with pytest.raises(ValueError, match='start_level=4'):
        ReFPN(CHANNELS, 16, 4, start_level=4)
    with pytest.raises(ValueError, match="group_pool='median'.*max, mean"):
        ReFPN(CHANNELS, 16, 4, group_pool='median')
    with pytest.raises(ValueError, match="activation='gelu'"):
        ReFPN(CHANNELS, 16, 4, activation='gelu')
    with pytest.raises(ValueError, match='got 3 input levels'):
        ReFPN(CHANNELS, 16, 4)(maps()[:3])
