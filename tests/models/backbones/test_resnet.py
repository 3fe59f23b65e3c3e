import pytest
import torch
import torchvision
from mmdet.models import ResNet as MMDetResNet
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmrotate_plugin.models import ResNet
from mmrotate_plugin.testing import randomize_norms_

SIZES = torch.randn(2, 3, 64, 96)


def narrow(depth=18, **options):
    return ResNet(depth, base_channels=8, **{'norm_eval': False, **options})


def same_weights(ours, theirs):
    randomize_norms_(theirs)
    ours.load_state_dict(theirs.state_dict())
    return ours


@pytest.mark.parametrize(
    'options',
    [
        dict(depth=18),
        dict(depth=34, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(1, 2)),
        dict(depth=50),
        dict(depth=50, style='caffe'),
        dict(depth=50, deep_stem=True, avg_down=True, stem_channels=16),
        dict(depth=18, avg_down=True),
        dict(depth=50, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), in_channels=3),
        dict(depth=18, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)),
        dict(depth=101, norm_cfg=dict(type='GN', num_groups=4, requires_grad=True)),
    ],
    ids=str,
)
@pytest.mark.parametrize('mode', [True, False])
def test_plain_skeleton_is_mmdets_resnet(options, mode):
    theirs = MMDetResNet(base_channels=8, norm_eval=False, **options)
    theirs.train(mode)
    ours = same_weights(ResNet(base_channels=8, norm_eval=False, **options).train(mode), theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for a, b in zip(ours(SIZES), theirs(SIZES), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize('depth', [18, 34, 50, 101, 152])
def test_keys_and_shapes_are_torchvisions(depth):
    with torch.device('meta'):
        theirs = getattr(torchvision.models, f'resnet{depth}')().state_dict()
        ours = ResNet(depth, zero_init_residual=False).state_dict()
    assert {k: v.shape for k, v in theirs.items() if not k.startswith('fc.')} == {k: v.shape for k, v in ours.items()}


def test_output_is_torchvisions():
    theirs = randomize_norms_(torchvision.models.resnet18()).eval()
    ours = ResNet(18).eval()
    ours.load_state_dict(theirs.state_dict(), strict=False)
    x = torch.randn(1, 3, 64, 64)
    stem = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
    assert torch.equal(ours(x)[1], theirs.layer2(theirs.layer1(stem)))


def test_out_indices_select_stages():
    net = narrow(out_indices=(0, 2)).eval()
    assert [tuple(o.shape) for o in net(SIZES)] == [(2, 8, 16, 24), (2, 32, 4, 6)]


def test_frozen_stages_neither_learn_nor_track():
    for deep_stem in (False, True):
        net = narrow(frozen_stages=1, deep_stem=deep_stem)
        net.train()
        frozen = {n for n, p in net.named_parameters() if not p.requires_grad}
        stem = ('stem.',) if deep_stem else ('conv1.', 'bn1.')
        assert frozen == {n for n, _ in net.named_parameters() if n.startswith((*stem, 'layer1.'))}
        before = {n: b.clone() for n, b in net.named_buffers()}
        net(SIZES)
        changed = {n for n, b in net.named_buffers() if not torch.equal(b, before[n])}
        assert changed and all(n.startswith(('layer2', 'layer3', 'layer4')) for n in changed)
    assert all(p.requires_grad for p in narrow(frozen_stages=-1).parameters())
    stem_only = {n for n, p in narrow(frozen_stages=0).named_parameters() if not p.requires_grad}
    assert stem_only == {'conv1.weight', 'bn1.weight', 'bn1.bias'}


def test_norm_eval_keeps_running_statistics_but_learns():
    net = narrow(norm_eval=True).train()
    assert net.training and not any(m.training for m in net.modules() if isinstance(m, _BatchNorm))
    before = net.bn1.running_mean.clone()
    net(SIZES)[-1].sum().backward()
    assert torch.equal(net.bn1.running_mean, before) and net.bn1.weight.grad is not None
    assert all(m.training for m in narrow().train().modules())


def test_zero_init_residual_makes_blocks_identities():
    net = narrow(depth=50).eval()
    net.init_weights()
    block = net.layer1[1]
    x = torch.rand(1, 32, 8, 8)
    assert torch.equal(block(x), x)
    other = narrow(depth=50, zero_init_residual=False).eval()
    other.init_weights()
    assert not torch.equal(other.layer1[1](x), x)
    assert (other.layer1[1].bn3.weight == 1).all()


def test_default_initialisation_is_kaiming_and_init_cfg_replaces_it():
    net = ResNet(18)
    net.init_weights()
    conv = net.layer3[1].conv2.weight
    assert conv.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.02)
    net = narrow(init_cfg=dict(type='Constant', val=0.5, layer='Conv2d'))
    net.init_weights()
    assert (net.conv1.weight == 0.5).all()


def test_pretrained_weights_are_kept(tmp_path):
    source = randomize_norms_(narrow())
    torch.save(dict(state_dict=source.state_dict()), tmp_path / 'weights.pth')
    net = narrow(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth')))
    net.init_weights()
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), source.state_dict().values(), strict=True))
    assert net.layer1[0].bn2.weight.abs().min() > 0


class SavedBytes:
    """Bytes that autograd keeps for the backward pass."""

    def __enter__(self):
        self.total = 0
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self.pack, lambda t: t)
        self.hooks.__enter__()
        return self

    def pack(self, t):
        self.total += t.numel() * t.element_size()
        return t

    def __exit__(self, *error):
        self.hooks.__exit__(*error)


@pytest.mark.parametrize('momentum', [0.1, None])
def test_with_cp_changes_memory_and_nothing_else(momentum):
    cfg = dict(type='BN', momentum=momentum)
    plain = narrow(depth=50, norm_cfg=cfg, zero_init_residual=False)
    saving = narrow(depth=50, norm_cfg=cfg, zero_init_residual=False, with_cp=True)
    saving.load_state_dict(plain.state_dict())
    results = []
    for net in (plain, saving):
        for _ in range(2):
            net.zero_grad()
            with SavedBytes() as saved:
                loss = sum(o.square().mean() for o in net(SIZES))
            loss.backward()
        results.append((saved.total, loss, [p.grad for p in net.parameters()], [b.clone() for b in net.buffers()]))
    (bytes_a, loss_a, grads_a, buffers_a), (bytes_b, loss_b, grads_b, buffers_b) = results
    assert bytes_b < 0.5 * bytes_a
    assert torch.equal(loss_a, loss_b)
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(grads_a, grads_b, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(buffers_a, buffers_b, strict=True)), 'each batch counts once'


def test_layers_come_from_the_builders():
    net = narrow(act_cfg=dict(type='GELU'), conv_cfg=dict(type='Conv2d'), norm_cfg=dict(type='IN', affine=True))
    kinds = {type(m) for m in net.modules()}
    assert nn.GELU in kinds and nn.ReLU not in kinds and nn.InstanceNorm2d in kinds


BAD = [
    (dict(depth=20), 'depth=20.*18, 34, 50, 101, 152'),
    (dict(num_stages=5), 'num_stages=5'),
    (dict(strides=(1, 2)), r'strides=\(1, 2\).*num_stages=4'),
    (dict(dilations=(1, 1, 1, 0)), r'dilations=\(1, 1, 1, 0\)'),
    (dict(out_indices=(0, 4)), r'out_indices=\(0, 4\).*num_stages=4.*last index is 3'),
    (dict(out_indices=()), r'out_indices=\(\)'),
    (dict(out_indices=(2, 1)), r'out_indices=\(2, 1\).*ascending'),
    (dict(out_indices=(-1,)), r'out_indices=\(-1,\)'),
    (dict(style='tensorflow'), "style='tensorflow'.*'pytorch' or 'caffe'"),
    (dict(style='caffe'), "style='caffe' has no meaning for depths 18"),
    (dict(frozen_stages=5), 'frozen_stages=5.*num_stages=4'),
]


@pytest.mark.parametrize('bad, message', BAD, ids=[m for _, m in BAD])
def test_bad_arguments_are_named(bad, message):
    with pytest.raises(ValueError, match=message):
        ResNet(**{'depth': 18, **bad})
