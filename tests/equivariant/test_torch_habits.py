"""What users of torch's and mmcv's layers expect: arguments, empty batches, tools that walk through a network."""

import copy
import inspect
import io

import pytest
import torch
from mmcv.cnn import ConvModule, fuse_conv_bn, is_norm
from mmengine.model import ExponentialMovingAverage, revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from torch import nn
from torch.nn.utils import parametrizations, prune

from mmrotate_plugin.equivariant import (
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
)
from mmrotate_plugin.models import ReFPN, ReResNet
from mmrotate_plugin.testing import act_on_regular, randomize_norms_, relative_error

X = torch.randn(2, 16, 7, 7, generator=torch.Generator().manual_seed(1))
CFG = dict(conv_cfg=dict(type='ennConv'), norm_cfg=dict(type='ennBN'), act_cfg=dict(type='ennReLU'))

LAYERS = [
    (ennConv(16, 32, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)),
    (ennConv(16, 32, 1, stride=2), nn.Conv2d(16, 32, 1, stride=2)),
    (ennConv(400, 400, 1), nn.Conv2d(400, 400, 1)),  # by Fourier
    (ennTrivialConv(16, 32, 3, groups=2), nn.Conv2d(16, 32, 3, groups=2)),
    (ennBN(16), nn.BatchNorm2d(16)),
    (ennBN(16, momentum=None), nn.BatchNorm2d(16, momentum=None)),
    (ennBN(16, affine=False, track_running_stats=False), nn.BatchNorm2d(16, affine=False, track_running_stats=False)),
    (ennGN(16, 2), nn.GroupNorm(2, 16)),
    (ennMaxPool(3, 2, 1), nn.MaxPool2d(3, 2, 1)),
    (ennAvgPool(3, 2, 1), nn.AvgPool2d(3, 2, 1)),
    (ennInterpolate(2.0), nn.Upsample(scale_factor=2.0, mode='bilinear')),
    (ennGroupPool(16), nn.Conv2d(16, 2, 1)),
    (ennGroupPool(16, 'mean'), nn.Conv2d(16, 2, 1)),
]


@pytest.mark.parametrize('ours, theirs', LAYERS, ids=lambda layer: type(layer).__name__)
@pytest.mark.parametrize('train', [True, False])
def test_an_empty_batch_passes_as_through_torchs_layer(ours, theirs, train):
    shape = (0, getattr(ours, 'in_channels', 16), 5, 7)
    x, y = torch.zeros(shape, requires_grad=True), torch.zeros(shape, requires_grad=True)
    out, expected = ours.train(train)(x), theirs.train(train)(y)
    assert out.shape == expected.shape
    out.sum().backward(), expected.sum().backward()
    assert x.grad.shape == shape and all((p.grad == 0).all() for p in ours.parameters())
    with torch.no_grad():
        assert ours(x).shape == expected.shape
        theirs(y)
    for name, buffer in theirs.named_buffers():  # running statistics change as torch's do
        value = getattr(ours.norm, name)
        assert torch.allclose(value, buffer[:1].expand_as(value) if buffer.dim() else buffer, equal_nan=True)


def test_a_pyramid_of_an_empty_batch():
    neck = ReFPN([16, 32], 16, 3, norm_cfg=dict(type='BN'), group_pool='max')
    maps = [torch.zeros(0, 16, 9, 9, requires_grad=True), torch.zeros(0, 32, 5, 5)]
    outs = neck(maps)
    assert [tuple(out.shape) for out in outs] == [(0, 2, 9, 9), (0, 2, 5, 5), (0, 2, 3, 3)]
    sum(out.sum() for out in outs).backward()
    assert maps[0].grad.shape == (0, 16, 9, 9)


@pytest.mark.parametrize('ours, theirs', [(ennConv, nn.Conv2d), (ennTrivialConv, nn.Conv2d), (ennBN, nn.BatchNorm2d)])
def test_arguments_stand_where_torch_has_them(ours, theirs):
    names = [n for n in inspect.signature(theirs.__init__).parameters if n != 'bias' or theirs is nn.Conv2d]
    found = list(inspect.signature(ours.__init__).parameters)
    assert found[: len(names)] == names
    assert 'group' in found[len(names) :]


@pytest.mark.parametrize('make', [lambda **w: ennConv(16, 16, 3, **w), lambda **w: ennTrivialConv(3, 16, 3, **w),
                                  lambda **w: ennBN(16, **w), lambda **w: ennSyncBN(16, **w),
                                  lambda **w: ennGN(16, 2, **w)])  # fmt: skip
def test_device_and_dtype(make):
    assert {p.dtype for p in make(dtype=torch.float64).parameters()} == {torch.float64}
    assert {t.device.type for t in make(device='meta').state_dict().values()} == {'meta'}
    assert {(p.dtype, p.device.type) for p in make(device='cpu').parameters()} == {(torch.float32, 'cpu')}


@pytest.mark.parametrize('kernel_size', [1, 3, 5])
@pytest.mark.parametrize('dilation', [1, 2])
@pytest.mark.parametrize('padding_mode', ['zeros', 'circular'])
def test_named_padding(kernel_size, dilation, padding_mode):
    def plain(padding):
        conv = nn.Conv2d(16, 16, kernel_size, padding=padding, dilation=dilation, padding_mode=padding_mode, bias=False)
        conv.weight = nn.Parameter(layer.expand())
        return conv(x)

    x = torch.randn(1, 16, 11, 12)
    for padding in ('same', 'valid'):
        layer = ennConv(16, 16, kernel_size, 1, padding, dilation, 1, False, padding_mode)
        assert relative_error(layer(x), plain(padding)) < 1e-6
        assert f'padding={layer.padding}' in repr(layer) or layer.padding == (0, 0)
    assert layer(x).shape != x.shape or kernel_size == 1


def test_padding_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match="padding='same' cannot keep the size with stride=\\(2, 2\\)"):
        ennConv(16, 16, 3, stride=2, padding='same')
    with pytest.raises(ValueError, match="padding='full' is unknown.*'valid' or 'same'"):
        ennConv(16, 16, 3, padding='full')


def test_no_bias_may_be_none_as_for_torch():
    assert ennConv(16, 16, 3, bias=None).bias is None and nn.Conv2d(16, 16, 3, bias=None).bias is None


def test_mmcv_knows_the_norms():
    norms = ennBN(16), ennSyncBN(16), ennGN(16, 2)
    assert all(map(is_norm, norms)) and not is_norm(ennConv(16, 16, 1))
    assert [norm.num_groups for norm in norms] == [2, 2, 2] and norms[0].num_channels == 16
    for norm in (norms[0], norms[2]):
        randomize_norms_(norm).reset_parameters()
        assert (norm.weight == 1).all() and (norm.bias == 0).all() and norm.eps == 1e-5 and norm.affine


@pytest.mark.parametrize('order', [('conv', 'norm', 'act'), ('norm', 'act', 'conv'), ('act', 'conv', 'norm')])
@pytest.mark.parametrize('padding_mode', ['zeros', 'reflect', 'circular'])
def test_conv_modules_commute_with_quarter_turns(order, padding_mode):
    module = ConvModule(16, 32, 3, padding=1, order=order, padding_mode=padding_mode, **CFG)
    randomize_norms_(module).eval()
    x = X.clone()  # an activation may write in place
    expected = act_on_regular(module(x.clone()), 'C8', 1)
    assert relative_error(module(act_on_regular(x, 'C8', 1)), expected) < 1e-5
    plain = ConvModule(16, 32, 3, padding=1, order=order, padding_mode=padding_mode).eval()
    assert relative_error(plain(act_on_regular(x, 'C8', 1)), act_on_regular(plain(x.clone()), 'C8', 1)) > 0.1


REPARAMETRISED = {
    'mmcv spectral norm': lambda: ConvModule(16, 16, 3, padding=1, with_spectral_norm=True, **CFG),
    'spectral norm': lambda: parametrizations.spectral_norm(ennConv(16, 16, 3)),
    'old weight norm': lambda: nn.utils.weight_norm(ennConv(16, 16, 3)),
    'pruned': lambda: prune.random_unstructured(ennConv(16, 16, 3), 'weight', 0.5),
}


@pytest.mark.filterwarnings('ignore::FutureWarning', 'ignore::DeprecationWarning')
@pytest.mark.parametrize('make', REPARAMETRISED.values(), ids=REPARAMETRISED)
def test_coefficients_may_be_computed(make):
    net = make()
    net(X).square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    torch.optim.SGD(net.parameters(), 0.1).step()
    net.eval()
    expected = net(X)
    with torch.no_grad():
        assert torch.equal(net(X), expected) and torch.equal(net(X), expected)
    assert net.double()(X.double()).dtype == torch.float64


@pytest.fixture(scope='module')
def backbone():
    return randomize_norms_(ReResNet(18, base_channels=16, num_stages=2, strides=(1, 2), dilations=(1, 1),
                                     out_indices=(1,))).eval()  # fmt: skip


def test_tools_that_walk_through_a_network_keep_its_function(backbone):
    image = torch.randn(1, 3, 33, 33)
    expected = backbone(image)[0]
    synced = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(backbone)).eval()
    for change in (fuse_conv_bn, nn.SyncBatchNorm.convert_sync_batchnorm):
        changed = change(copy.deepcopy(backbone)).eval()  # torch 2.0 puts the new norms in train mode
        assert torch.equal(changed(image)[0], expected)
    assert torch.equal(revert_sync_batchnorm(synced)(image)[0], expected)
    assert not any(isinstance(m, nn.SyncBatchNorm) for m in synced.modules())
    channels_last = copy.deepcopy(backbone).to(memory_format=torch.channels_last)
    assert relative_error(channels_last(image.to(memory_format=torch.channels_last))[0], expected) < 1e-6
    saved = io.BytesIO()
    torch.save(backbone, saved)
    saved.seek(0)
    assert torch.equal(torch.load(saved, weights_only=False)(image)[0], expected)
    average = ExponentialMovingAverage(backbone, update_buffers=True)
    average.update_parameters(backbone)
    assert torch.equal(average.module(image)[0], expected)
    assert backbone.norm1.norm.weight.shape == (2,) and 'group=C8' in repr(backbone.norm1)


@pytest.mark.needs_torch('2.1', 'float16 on CPUs')
def test_half_types_keep_its_function(backbone):
    image = torch.randn(1, 3, 33, 33)
    expected = backbone(image)[0]
    for dtype in (torch.float16, torch.bfloat16):
        out = copy.deepcopy(backbone).to(dtype)(image.to(dtype))[0]
        assert out.dtype == dtype and relative_error(out.float(), expected) < 0.1


def test_options_of_parameters_reach_norms_and_biases(backbone):
    cfg = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1.0, weight_decay=0.5))
    paramwise = dict(
        norm_decay_mult=0.0, bias_decay_mult=0.2, bias_lr_mult=2.0, custom_keys={'layer1': dict(lr_mult=0.1)}
    )
    net = nn.ModuleDict({'backbone': copy.deepcopy(backbone), 'conv': ennConv(16, 16, 1)})
    groups = build_optim_wrapper(net, dict(cfg, paramwise_cfg=paramwise)).optimizer.param_groups
    names = {id(p): name for name, p in net.named_parameters()}
    found = {names[id(group['params'][0])]: (group['lr'], group['weight_decay']) for group in groups}
    assert found['backbone.conv1.weight'] == found['conv.weight'] == (1.0, 0.5)
    assert found['backbone.bn1.norm.weight'] == found['backbone.bn1.norm.bias'] == (1.0, 0.0)
    assert found['conv.bias'] == (2.0, 0.1)
    assert found['backbone.layer1.0.conv1.weight'] == (0.1, 0.5)


def test_initialisation_of_plain_layers_leaves_coefficients_alone():
    neck = ReFPN([16, 32], 16, 2, init_cfg=dict(type='Xavier', layer='Conv2d', distribution='uniform'))
    before = copy.deepcopy(neck.state_dict())
    neck.init_weights()
    assert all(torch.equal(value, before[name]) for name, value in neck.state_dict().items())
    neck = ReFPN([16, 32], 16, 2, init_cfg=dict(type='Constant', layer='ennConv', val=0.5, bias=0.25))
    neck.init_weights()
    assert all((value == (0.25 if 'bias' in name else 0.5)).all() for name, value in neck.state_dict().items())


def test_inplace_activation_is_torchs():
    assert ennReLU(inplace=True).inplace and not ennReLU().inplace
