import copy
import inspect
import pickle
import re

import pytest
import torch
from mmcv.cnn import ConvModule
from mmdet.models import FPN
from mmdet.models import ResNet as MMDetResNet
from mmengine.model import revert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmrotate_plugin.equivariant import (
    FieldNorm,
    ennAvgPool,
    ennBN,
    ennConv,
    ennGN,
    ennGroupPool,
    ennInterpolate,
    ennMaxPool,
    ennReLU,
    ennSyncBN,
    ennTrivialConv,
    export,
    group_order,
)
from mmrotate_plugin.models import ReFPN, ReResNet, ResNet
from mmrotate_plugin.testing import randomize_norms_, relative_error

# Folding rounds each filter once more, by half a unit: over 53 convolutions in a row that is far below
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
CHANNELS = [16, 32, 64, 128]
OLD_TORCH = torch.__version__.startswith('2.0.')


def make(depth=18, group='C8', base_channels=16, **options):
    net = ReResNet(depth, group, base_channels=base_channels, zero_init_residual=False, **options)
    return randomize_norms_(net).eval()


def norms(module):
    return [m for m in module.modules() if isinstance(m, _BatchNorm)]


def equivariant_layers(module):
    kinds = (ennConv, ennTrivialConv, FieldNorm, ennReLU, ennMaxPool, ennAvgPool, ennInterpolate)
    return [m for m in module.modules() if isinstance(m, kinds)]


@torch.no_grad()
def difference(actual, expected, x):
    outs, references = actual(x), expected(x)
    if isinstance(outs, torch.Tensor):
        outs, references = [outs], [references]
    assert [o.dtype for o in outs] == [r.dtype for r in references]
    return max(relative_error(o, r) for o, r in zip(outs, references, strict=True))


@pytest.mark.parametrize('dtype', TOLERANCE, ids=str)
@pytest.mark.parametrize(
    'options',
    [
        dict(group='C4'),
        dict(group='C16', base_channels=32),
        dict(group='D4'),
        dict(depth=50),
        dict(depth=50, deep_stem=True, avg_down=True),
        dict(norm_cfg=dict(type='SyncBN')),
        dict(norm_cfg=dict(type='GN', num_groups=2)),
        dict(with_cp=True, frozen_stages=1, norm_eval=True),
    ],
    ids=str,
)
def test_backbone_is_the_same_function(options, dtype):
    net = make(**options).to(dtype)
    x = torch.randn(1, 3, 65, 65, dtype=dtype)
    unfolded, folded = export(net, fold_norms=False), export(net)
    for plain in (unfolded, folded):
        assert not equivariant_layers(plain)
        assert difference(plain, net, x) < TOLERANCE[dtype]
    assert len(norms(unfolded)) == len(norms(net)) and not norms(folded)

    # the bound can fail: another network of the same filters but other norms is far from it
    assert difference(randomize_norms_(copy.deepcopy(net), seed=1), net, x) > 0.01


@pytest.mark.parametrize('statistic', ['running_mean', 'running_var'])
def test_folding_reads_the_running_statistics(statistic):
    net = make()
    forgetful = copy.deepcopy(net)
    for norm in norms(forgetful):
        getattr(norm, statistic).fill_(float(statistic == 'running_var'))
    assert difference(export(forgetful), net, torch.randn(1, 3, 33, 33)) > 0.01


@pytest.mark.parametrize(
    'options',
    [
        dict(),
        dict(num_outs=5, start_level=1, add_extra_convs=True, norm_cfg=dict(type='BN'), activation='relu'),
        dict(norm_cfg=dict(type='GN', num_groups=2), no_norm_on_lateral=True, group_pool='max'),
        dict(norm_cfg=dict(type='SyncBN'), group_pool='mean'),
    ],
    ids=str,
)
@pytest.mark.parametrize('group', ['C8', 'D4'])
def test_backbone_with_neck_is_the_same_function(options, group):
    neck = ReFPN(CHANNELS, 16, **{'num_outs': 4, **options}, group=group)
    net = randomize_norms_(nn.Sequential(make(group=group), neck)).eval()
    for parameter in neck.parameters():
        nn.init.normal_(parameter, std=0.3)  # biases too: they start at zero
    plain = export(net)
    assert not equivariant_layers(plain) and not norms(plain)
    assert difference(plain, net, torch.randn(1, 3, 65, 65)) < 1e-5


@pytest.mark.parametrize(
    'options', [dict(depth=18), dict(depth=50, deep_stem=True), dict(norm_cfg=dict(type='GN', num_groups=2))], ids=str
)
def test_unfolded_backbone_loads_into_the_one_of_mmdet(options):
    net = make(**options)
    plain = export(net, fold_norms=False)
    reference = MMDetResNet(**{'depth': 18, **options}, base_channels=16, stem_channels=16)
    assert list(plain.state_dict()) == list(ResNet(**{'depth': 18, **options}, base_channels=16).state_dict())
    reference.eval()  # returns nothing there
    reference.load_state_dict(plain.state_dict(), strict=True)
    assert difference(reference, net, torch.randn(1, 3, 65, 65)) < 1e-5


def test_unfolded_neck_loads_into_the_one_of_mmdet():
    options = dict(num_outs=5, norm_cfg=dict(type='BN'))
    net = randomize_norms_(ReFPN(CHANNELS, 16, add_extra_convs=True, **options)).eval()
    reference = FPN(CHANNELS, 16, add_extra_convs='on_input', **options).eval()
    reference.load_state_dict(export(net, fold_norms=False).state_dict(), strict=True)
    maps = [torch.randn(1, c, 32 // 2**i, 32 // 2**i) for i, c in enumerate(CHANNELS)]  # even: both repeat pixels
    assert difference(reference, net, maps) < 1e-5


def test_costs_what_a_plain_folded_resnet_costs():
    def layers(net):
        return [(n, type(m), str(m)) for n, m in net.named_modules() if not list(m.children())]

    ours, plain = export(make(50)), export(ResNet(50, base_channels=16))
    assert layers(ours) == layers(plain)
    assert {n: p.shape for n, p in ours.named_parameters()} == {n: p.shape for n, p in plain.named_parameters()}
    assert layers(ours) != layers(export(make(50), fold_norms=False)), 'norms cost something'


@pytest.mark.parametrize('resnet', [ResNet, MMDetResNet], ids=lambda c: c.__module__)
def test_plain_networks_fold_too(resnet):
    net = randomize_norms_(resnet(50, base_channels=16, stem_channels=16, deep_stem=True, avg_down=True))
    net.eval()  # mmdet's returns nothing
    folded = export(net)
    assert not norms(folded) and difference(folded, net, torch.randn(1, 3, 65, 65)) < 1e-5


@pytest.mark.parametrize('build', [make, lambda: ResNet(18, base_channels=16)], ids=['ReResNet', 'ResNet'])
def test_the_original_is_left_alone_and_shares_nothing(build):
    net = build().train()
    modes = [m.training for m in net.modules()]
    before = copy.deepcopy(net.state_dict())
    x = torch.randn(1, 3, 33, 33)
    for fold_norms in (True, False):
        plain = export(net, fold_norms=fold_norms)
        assert not any(m.training for m in plain.modules())
        ours = {t.untyped_storage().data_ptr() for t in net.state_dict(keep_vars=True).values()}
        assert not any(t.untyped_storage().data_ptr() in ours for t in plain.state_dict(keep_vars=True).values())
        for tensor in plain.state_dict().values():
            tensor.zero_()
        assert plain(x)[0].abs().max() == 0
    assert [m.training for m in net.modules()] == modes
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert len(norms(net)) == 20


def test_a_copy_made_in_inference_mode_can_learn():
    with torch.inference_mode():
        plain = export(make(), fold_norms=False)
    plain.train()(torch.randn(2, 3, 33, 33))[-1].square().sum().backward()
    assert plain.conv1.weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    'layer, kind',
    [
        (ennConv(16, 32, 3, stride=2, padding=1, groups=2), nn.Conv2d),
        (ennConv(16, 8, 3, padding=2, dilation=2, padding_mode='reflect', group='D4'), nn.Conv2d),
        (ennConv(16, 8, 5, padding=1, bias=False, padding_mode='circular', group='C4'), nn.Conv2d),
        (ennTrivialConv(16, 16, 7, padding=3, padding_mode='replicate', group='C16'), nn.Conv2d),
        (ennBN(16, eps=1e-2, momentum=None, group='D4'), nn.BatchNorm2d),
        (ennBN(16, affine=False), nn.BatchNorm2d),
        (ennSyncBN(16), nn.BatchNorm2d),
        (nn.SyncBatchNorm.convert_sync_batchnorm(ennBN(16)), nn.BatchNorm2d),
        (revert_sync_batchnorm(ennSyncBN(16)), nn.BatchNorm2d),
        (ennGN(16, 2, eps=1e-2, group='C4'), nn.GroupNorm),
        (ennGN(16, 1, affine=False), nn.GroupNorm),
        (ennReLU(), nn.ReLU),
        (ennMaxPool(3, 3, 1, dilation=2, ceil_mode=True), nn.MaxPool2d),
        (ennAvgPool(4, 2, 1, ceil_mode=True, count_include_pad=False), nn.AvgPool2d),
        (ennAvgPool(3, divisor_override=5), nn.AvgPool2d),
        (ennInterpolate(2, align_corners=True), nn.Upsample),
        (ennInterpolate(size=(5, 7), mode='nearest-exact'), nn.Upsample),
        (ennInterpolate(1.5, mode='area'), nn.Upsample),
        (ennGroupPool(16), ennGroupPool),
    ],
    ids=str,
)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_every_layer_has_a_plain_counterpart(layer, kind, dtype):
    layer = randomize_norms_(copy.deepcopy(layer)).to(dtype)
    if isinstance(layer, (ennConv, ennTrivialConv)) and layer.bias is not None:
        nn.init.normal_(layer.bias)
    if dtype == torch.bfloat16 and re.search('reflect|replicate|nearest-exact', str(layer)) and OLD_TORCH:
        pytest.skip('that padding or interpolation in bfloat16 on CPUs came with torch 2.1')
    plain = export(layer)
    assert type(plain) is kind and not plain.training
    assert difference(plain, layer.eval(), torch.randn(2, 16, 11, 11, dtype=dtype)) < 1e-6
    assert {k: (v.dtype, v.device) for k, v in plain.state_dict().items() if k != 'num_batches_tracked'} == {
        k.removeprefix('norm.'): (dtype, v.device) for k, v in layer.state_dict().items() if 'num_batches' not in k
    }


def test_statistics_that_change_later_are_kept_apart():
    """An unfolded copy goes on where the original was: momentum, counter and frozen parameters are taken along."""
    norm = ennBN(16, momentum=None)
    norm(torch.randn(4, 16, 5, 5))
    norm.norm.weight.requires_grad = False
    plain = export(norm)
    assert plain.momentum is None and plain.num_batches_tracked == 1
    assert not plain.weight.requires_grad and plain.bias.requires_grad
    assert not export(ennConv(8, 8, 3).requires_grad_(False)).weight.requires_grad


def test_layers_in_containers_of_torch_need_nothing_of_this_package():
    net = nn.Sequential(
        ennTrivialConv(3, 16, 3), ennBN(16), ennReLU(), ennMaxPool(2), ennConv(16, 8, 3), ennGN(8, 1), ennInterpolate(2)
    )
    plain = export(randomize_norms_(net).eval())
    assert difference(plain, net, torch.randn(1, 3, 17, 17)) < 1e-5
    assert isinstance(plain[1], nn.Identity) and isinstance(plain[5], nn.GroupNorm)
    assert b'mmrotate_plugin' in pickle.dumps(net) and b'mmrotate_plugin' not in pickle.dumps(plain)


class Twice(nn.Module):
    """The same modules in two places, and one of them in a list, which is no place of modules for torch."""

    def __init__(self):
        super().__init__()
        self.first = self.second = nn.Sequential(ennConv(8, 8, 3, padding=1), ennBN(8))
        self.others = [self.first[0]]

    def forward(self, x):
        return self.second(self.first(x))


def test_a_module_used_twice_stays_one_module():
    net = randomize_norms_(Twice()).eval()
    unfolded, folded = export(net, fold_norms=False), export(net)
    for plain in (unfolded, folded):
        assert plain.first is plain.second and plain.others[0] is plain.first[0]
        assert type(plain.others[0]) is nn.Conv2d
        assert difference(plain, net, torch.randn(1, 8, 9, 9)) < 1e-6
    assert len(norms(unfolded)) == 1 and not norms(folded)


class _Kept(nn.Module):
    """A convolution and a norm whose names suggest that one follows the other."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)


class PreActivation(_Kept):
    def forward(self, x):
        return self.conv1(self.bn1(x))


class ReadTwice(_Kept):
    def forward(self, x):
        y = self.conv1(x)
        return y + self.bn1(y)


class ConvolvedTwice(_Kept):
    def forward(self, x):
        return self.bn1(self.conv1(self.conv1(x)))


class NormedTwice(_Kept):
    def forward(self, x):
        return self.bn1(self.bn1(self.conv1(x)))


class TwoNames(_Kept):
    def __init__(self):
        super().__init__()
        self.norm = self.bn1

    def forward(self, x):
        return self.norm(self.conv1(x))


class Untraceable(_Kept):
    def forward(self, x):
        return self.bn1(self.conv1(x)) if x.mean() < 1 else x


class SharedConvolution(nn.Module):
    """One convolution for two levels, with a norm each, as in RTMDet's head."""

    def __init__(self):
        super().__init__()
        self.levels = nn.ModuleList(ConvModule(8, 8, 3, padding=1, norm_cfg=dict(type='BN')) for _ in range(2))
        self.levels[1].conv = self.levels[0].conv

    def forward(self, x):
        return self.levels[0](x) + self.levels[1](x)


class Standardised(nn.Conv2d):
    def forward(self, x):
        return self._conv_forward(x, self.weight / self.weight.std(), self.bias)


class OwnForward(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))
        self.forward = self.backwards

    def backwards(self, x):
        return self[0](self[1](x))


def hooked():
    net = nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))
    net[0].register_forward_hook(lambda _, __, out: out.relu())
    return net


def patched():
    net = nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8))
    net[0].forward = lambda x: x.relu()
    return net


KEPT = [PreActivation, ReadTwice, ConvolvedTwice, NormedTwice, TwoNames, Untraceable, SharedConvolution, OwnForward,
        hooked, patched,
        lambda: nn.Sequential(Standardised(8, 8, 3), nn.BatchNorm2d(8)),
        lambda: nn.Sequential(nn.utils.spectral_norm(nn.Conv2d(8, 8, 3)), nn.BatchNorm2d(8)),
        pytest.param(
            lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 3)), nn.BatchNorm2d(8)),
            marks=pytest.mark.needs_torch('2.1', 'weight_norm as a parametrization'),
        ),
        lambda: ConvModule(8, 8, 3, norm_cfg=dict(type='BN'), order=('norm', 'conv', 'act')),
        lambda: ConvModule(8, 8, 3, norm_cfg=dict(type='BN'), order=('conv', 'act', 'norm'))]  # fmt: skip


@pytest.mark.parametrize('build', KEPT, ids=lambda b: b.__name__)
def test_a_norm_that_cannot_be_folded_stays_and_is_named(build):
    net = randomize_norms_(build()).eval()
    names = [name for name, m in net.named_modules() if isinstance(m, _BatchNorm)]
    with pytest.warns(UserWarning, match=f'{len(names)} batch norms? .*{", ".join(names)}'):
        plain = export(net)
    assert len(norms(plain)) == len(names)
    assert difference(plain, net, torch.randn(1, 8, 9, 9)) < 1e-6


@pytest.mark.parametrize(
    'conv_cfg, norm_cfg',
    [(None, dict(type='BN')), (None, dict(type='SyncBN')), (dict(type='ennConv'), dict(type='ennBN'))],
    ids=str,
)
@pytest.mark.parametrize(
    'options', [dict(bias=True), dict(efficient_conv_bn_eval=True), dict(padding_mode='reflect')], ids=str
)
def test_conv_modules_fold(conv_cfg, norm_cfg, options):
    if not options.keys() <= inspect.signature(ConvModule).parameters.keys():
        pytest.skip('efficient_conv_bn_eval came with mmcv 2.1')
    net = randomize_norms_(ConvModule(16, 16, 3, padding=1, conv_cfg=conv_cfg, norm_cfg=norm_cfg, **options)).eval()
    if net.conv.bias is not None:
        nn.init.normal_(net.conv.bias)
    plain = export(nn.Sequential(net))[0]
    assert not norms(plain) and isinstance(plain.norm, nn.Identity)
    assert difference(plain, net, torch.randn(1, 16, 9, 9)) < 1e-6


def test_norms_without_affine_parameters_fold():
    net = randomize_norms_(nn.Sequential(ennConv(8, 8, 3), ennBN(8, affine=False))).eval()
    assert difference(export(net), net, torch.randn(1, 8, 9, 9)) < 1e-6


@pytest.mark.parametrize(
    'dtype',
    [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.needs_torch('2.1', 'float16 on CPUs'))],
    ids=str,
)
def test_low_precision_is_rounded_once(dtype):
    net = randomize_norms_(nn.Sequential(ennConv(8, 8, 3), ennBN(8))).eval().to(dtype)
    plain = export(net)
    assert all(p.dtype == dtype for p in plain.parameters())
    # a rounded filter and bias on one side, a map rounded between convolution and norm on the other
    assert difference(plain, net, torch.randn(1, 8, 9, 9, dtype=dtype)) < 3 * torch.finfo(dtype).eps


def test_what_has_no_plain_counterpart_is_named():
    with pytest.raises(ValueError, match=r'cannot export 0\.1: without running statistics.*track_running_stats=True'):
        export(nn.Sequential(nn.Sequential(ennConv(8, 8, 3), ennBN(8, track_running_stats=False))))
    with pytest.raises(TypeError, match='cannot export the layer: a FieldNorm of InstanceNorm2d'):
        export(FieldNorm(16, nn.InstanceNorm2d(16 // group_order('C8')), 'C8'))
