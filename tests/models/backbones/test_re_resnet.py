import copy
import io

import pytest
import torch
from mmdet.models import FPN
from mmengine.registry import MODELS as ROOT
from torch import nn

from mmrotate_plugin.equivariant import ennAvgPool, ennConv, ennTrivialConv, group_order
from mmrotate_plugin.equivariant.basis import steerable_basis
from mmrotate_plugin.models import ReResNet, ResNet
from mmrotate_plugin.testing import randomize_norms_


def relative_error(actual, expected):
    return ((actual - expected).norm() / expected.norm()).item()


def act_on_fields(x, group, quarter_turns, flip=False):
    """Oracle that uses torch alone.

    C_N: turn the grid and cycle each block of N orientations. D_N: element (m, r) is a reflection m about the vertical
    axis, then a rotation r; (m, r)(n, s) = (m + n, r + (-1)^m s), reflections in the second half of a block.
    """
    n, dihedral = int(group[1:]), group[0] == 'D'
    b, c, h, w = x.shape
    x = (x.flip(-1) if flip else x).rot90(quarter_turns, (-2, -1))
    h, w = x.shape[-2:]
    x = x.reshape(b, -1, 2 if dihedral else 1, n, h, w)
    if flip:
        x = x.flip(2)  # rotations become reflections and the other way round, with their angle reversed
        x = x[:, :, :, torch.arange(n).neg() % n]
    return x.roll(quarter_turns * n // 4, dims=3).reshape(b, c, h, w)


ELEMENTS = [('C4', 1, False), ('C8', 1, False), ('C8', 2, False), ('C8', 3, False), ('C16', 1, False),
            ('D4', 1, False), ('D4', 0, True), ('D4', 3, True), ('D8', 1, False), ('D8', 2, True)]  # fmt: skip


def check(net, size=65, tolerance=1e-5, dtype=torch.float32, *, group, quarter_turns, flip):
    x = torch.randn(2, 3, size, size, dtype=dtype)
    with torch.no_grad():
        outs = net(x)
        turned = net((x.flip(-1) if flip else x).rot90(quarter_turns, (-2, -1)))
    for out, actual in zip(outs, turned, strict=True):
        expected = act_on_fields(out, group, quarter_turns, flip)
        assert relative_error(actual, expected) < tolerance
        assert relative_error(out, expected) > 0.01  # constant features would pass the line above


@pytest.mark.parametrize('group, quarter_turns, flip', ELEMENTS)
@pytest.mark.parametrize('depth', [18, 50])
def test_commutes_with_the_group_in_eval_mode(depth, group, quarter_turns, flip):
    net = ReResNet(depth, group, base_channels=2 * group_order(group), zero_init_residual=False).eval()
    randomize_norms_(net)  # identity norms would hide an error per orientation
    check(net, group=group, quarter_turns=quarter_turns, flip=flip)


@pytest.mark.parametrize('group, quarter_turns, flip', [('C8', 1, False), ('D4', 3, True)])
def test_commutes_in_train_mode(group, quarter_turns, flip):
    element = dict(group=group, quarter_turns=quarter_turns, flip=flip)
    check(ReResNet(50, group, base_channels=32).train(), **element)
    # random branches amplify float32's round-off a hundredfold in train mode (a perturbation of 1e-7 of the input
    # does the same), so the law itself is checked in float64
    net = ReResNet(50, group, base_channels=32, zero_init_residual=False).train().double()
    check(randomize_norms_(net), tolerance=1e-12, dtype=torch.float64, **element)


@pytest.mark.parametrize(
    'options',
    [
        dict(depth=50, deep_stem=True),
        dict(depth=50, avg_down=True),
        dict(depth=50, style='caffe'),
        dict(depth=18, norm_cfg=dict(type='GN', num_groups=2)),
        dict(depth=18, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)),
        dict(depth=18, conv_cfg=dict(type='ennConv', padding_mode='reflect')),
        dict(depth=18, act_cfg=dict(type='GELU')),
    ],
    ids=str,
)
def test_options_keep_the_symmetry(options):
    net = randomize_norms_(ReResNet(base_channels=32, zero_init_residual=False, **options)).eval()
    check(net, size=129 if 'conv_cfg' in options else 65, group='C8', quarter_turns=1, flip=False)


def test_a_plain_resnet_and_an_even_size_fail_that_check():
    element = dict(group='C8', quarter_turns=1, flip=False)
    plain = randomize_norms_(ResNet(18, base_channels=16, zero_init_residual=False)).eval()
    with pytest.raises(AssertionError):
        check(plain, tolerance=0.3, **element)
    with pytest.raises(AssertionError):
        check(ReResNet(18, base_channels=16).eval(), size=64, tolerance=0.3, **element)


def test_plain_tensors_of_the_expected_shapes():
    net = ReResNet(50, base_channels=16, out_indices=(1, 3)).eval()
    outs = net(torch.randn(1, 3, 65, 97))
    assert [tuple(o.shape) for o in outs] == [(1, 128, 9, 13), (1, 512, 3, 4)]
    assert all(type(o) is torch.Tensor for o in outs)


def test_mmdets_neck_follows_and_becomes_equivariant_by_config():
    backbone = ReResNet(18, base_channels=16, zero_init_residual=False).eval()
    channels = [16, 32, 64, 128]
    plain = FPN(channels, 16, num_outs=4)
    assert len(plain(backbone(torch.randn(1, 3, 65, 65)))) == 4

    neck = FPN(channels, 16, num_outs=4, conv_cfg=dict(type='ennConv'), norm_cfg=dict(type='ennBN'),
               upsample_cfg=dict(mode='bilinear', align_corners=True))  # fmt: skip
    neck.init_weights()
    net = randomize_norms_(nn.Sequential(backbone, neck)).eval()
    check(net, group='C8', quarter_turns=1, flip=False)
    with pytest.raises(AssertionError):
        check(nn.Sequential(backbone, plain), tolerance=0.1, group='C8', quarter_turns=1, flip=False)


def test_options_reach_the_layers():
    net = ReResNet(50, 'C4', deep_stem=True, avg_down=True, base_channels=16, norm_eval=True, frozen_stages=1,
                   norm_cfg=dict(type='SyncBN', eps=1e-3, momentum=0.2, requires_grad=False))  # fmt: skip
    net.train()
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert all(type(m) is nn.SyncBatchNorm and m.eps == 1e-3 and m.momentum == 0.2 for m in norms)
    assert not any(p.requires_grad for m in norms for p in m.parameters()) and not any(m.training for m in norms)
    convs = [m for m in net.modules() if isinstance(m, (ennConv, ennTrivialConv))]
    assert all(m.group == 'C4' for m in convs) and sum(isinstance(m, ennTrivialConv) for m in convs) == 1
    assert len([m for m in net.stem if isinstance(m, (ennConv, ennTrivialConv))]) == 3
    assert isinstance(net.layer2[0].downsample[0], ennAvgPool)
    assert not any(p.requires_grad for p in net.stem.parameters()) and not net.layer1[0].conv1.weight.requires_grad


def test_zero_init_residual_is_really_zero():
    net = ReResNet(50, base_channels=16).eval()
    net.init_weights()
    x = torch.rand(1, 64, 5, 5)
    assert torch.equal(net.layer1[1](x), x)
    open_net = ReResNet(50, base_channels=16, zero_init_residual=False).eval()
    assert not torch.equal(open_net.layer1[1](x), x)


def test_init_weights_keeps_he_initialisation():
    net = ReResNet(18)
    net.init_weights()
    conv = net.layer3[1].conv2
    ratio = conv.weight.std((0, 1)) / (conv.basis.he_std.float() / conv.in_fields**0.5)
    assert ((ratio - 1).abs() < 5 / (2 * 32 * 32) ** 0.5).all()


def test_every_parameter_gets_a_gradient():
    net = ReResNet(18, base_channels=16, zero_init_residual=False)
    sum(o.square().mean() for o in net(torch.randn(2, 3, 65, 65))).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_resnet50_computes_three_bases_once_and_saves_small():
    steerable_basis.cache_clear()
    net = ReResNet(50)
    assert steerable_basis.cache_info().misses == 3  # 7x7 from the image, 1x1, 3x3; e2cnn's class makes one a layer
    ReResNet(50)
    assert steerable_basis.cache_info().misses == 3
    assert sum(p.numel() for p in net.parameters()) == 2_781_104
    sizes, keys = [], []
    for mode in (True, False):
        net.train(mode)
        with torch.no_grad():
            net(torch.randn(1, 3, 65, 65))
        file = io.BytesIO()
        torch.save(net.state_dict(), file)
        sizes.append(file.tell())
        keys.append(list(net.state_dict()))
    assert keys[0] == keys[1] and max(sizes) < 12e6


def test_print_reads_well():
    text = str(ReResNet(18, base_channels=16))
    assert 'ennTrivialConv(3, 16, group=C8, fields=(3 trivial -> 2 regular), kernel_size=(7, 7)' in text
    assert 'ennBN(' in text and 'GeometricTensor' not in text


@pytest.mark.parametrize('scope', ['mmengine', 'mmdet', 'mmrotate'])
def test_scoped_name_works_from_every_scope(scope):
    cfg = dict(type='mmrotate_plugin.ReResNet', depth=18, base_channels=16, _scope_=scope)
    assert type(ROOT.build(cfg)) is ReResNet


BAD = [
    (dict(base_channels=36), "base_channels=36.*group 'C8'.*order 8; 32 or 40"),
    (dict(stem_channels=12), 'stem_channels=12.*order 8'),
    (dict(base_channels=8, deep_stem=True), r'half of the stem_channels \(deep_stem\)=4'),
    (dict(group='C7.5'), "group='C7.5'"),
    (dict(group='SO2'), "group='SO2'.*'D8'"),
    (dict(norm_cfg=dict(type='LN')), "norm_cfg type 'LN'.*BN, SyncBN, GN"),
    (dict(norm_cfg=dict(type='GN', num_groups=32)), 'num_groups=32 does not divide the 8 fields'),
    (dict(norm_cfg=dict(type='ennBN', group='C4')), "norm_cfg has group 'C4'.*'C8'"),
    (dict(conv_cfg=dict(type='ennConv', group='D4')), "conv_cfg has group 'D4'.*'C8'"),
    (dict(conv_cfg=dict(type='DCN')), "conv_cfg type 'DCN' is not equivariant"),
    (dict(out_indices=(4,)), r'out_indices=\(4,\).*num_stages=4'),
]


@pytest.mark.parametrize('bad, message', BAD, ids=[m for _, m in BAD])
def test_bad_arguments_are_named(bad, message):
    with pytest.raises(ValueError, match=message):
        ReResNet(18, **bad)


@pytest.mark.needs_torch('2.1', 'torch.compile for Python 3.11')
@pytest.mark.parametrize('mode', ['train', 'eval', 'no_grad'])
def test_compiles_without_a_graph_break(mode):
    torch._dynamo.reset()
    # one stage, wide enough for the Fourier path, which is left while compiling
    options = dict(num_stages=1, strides=(1,), dilations=(1,), out_indices=(0,), zero_init_residual=False)
    net = ReResNet(50, base_channels=256, **options).double().train(mode == 'train')
    reference = copy.deepcopy(net)
    compiled = torch.compile(net, backend='eager', fullgraph=True)  # fullgraph: a break is an error
    x = torch.randn(2, 3, 33, 33, dtype=torch.float64)
    with torch.set_grad_enabled(mode != 'no_grad'):
        (actual,), (expected,) = compiled(x), reference(x)
    assert relative_error(actual, expected) < 1e-12
    if mode != 'no_grad':
        actual.square().sum().backward()
        expected.square().sum().backward()
        for parameter, other in zip(net.parameters(), reference.parameters(), strict=True):
            assert relative_error(parameter.grad, other.grad) < 1e-9
