"""Networks of mmdet made from the configs of ours: strict weights, the same maps, and refusals that say what to do."""

import copy
from pathlib import Path

import pytest
import torch
from mmengine.registry import init_default_scope

pytest.importorskip('mmdet')

from mmdet.registry import MODELS

from mmrotate_plugin.apis.config import load_config
from mmrotate_plugin.export import Unsupported, plain_config, plain_weights
from mmrotate_plugin.export.runtime_config import plain_imports, plain_runtime
from mmrotate_plugin.export.standalone_modules import PARTS
from mmrotate_plugin.testing import randomize_norms_, relative_error

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
ODD, EVEN = (65, 97), (64, 96)
LEVELS = [16, 32, 64, 128]
RE = dict(type='mmrotate_plugin.ReResNet', depth=18, base_channels=16)
ADF = dict(type='mmrotate_plugin.ADFResNet', depth=18, base_channels=16)
NECK = dict(type='mmrotate_plugin.ReFPN', in_channels=LEVELS, out_channels=16, num_outs=5)


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmdet')


class Pair(torch.nn.Module):
    """Backbone and neck as a detector has them."""

    def __init__(self, cfg):
        super().__init__()
        self.backbone = MODELS.build(copy.deepcopy(cfg['backbone']))
        self.neck = MODELS.build(copy.deepcopy(cfg['neck'])) if 'neck' in cfg else torch.nn.Identity()

    def forward(self, x):
        return self.neck(self.backbone(x))


def both(cfg, size=ODD):
    """The pair of a config, and that of the exported one with its weights."""
    net = randomize_norms_(Pair(cfg)).eval()
    plain, _, parts = plain_config(cfg, lambda: [size])
    assert not parts and 'mmrotate_plugin' not in str(plain)
    there = Pair(plain).eval()
    kinds = {type(part).__module__.partition('.')[0] for part in there.children()} - {'torch'}
    assert kinds == {'mmdet'}
    assert not any('mmrotate_plugin' in type(m).__module__ for m in there.modules())
    there.load_state_dict(plain_weights(net), strict=True)
    return net, there, plain


def worst(net, there, size=ODD):
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        return max(relative_error(a, b) for a, b in zip(there(x), net(x), strict=True))


@pytest.mark.parametrize('backbone', [
    dict(RE),
    dict(RE, group='D4', num_stages=3, strides=(1, 2, 1), dilations=(1, 1, 2), out_indices=(1, 2)),
    dict(RE, depth=50, style='caffe', deep_stem=True, stem_channels=32, frozen_stages=1, norm_eval=True),
    dict(RE, group='C4', norm_cfg=dict(type='GN', num_groups=2), conv_cfg=dict(padding_mode='circular')),
    dict(RE, norm_cfg=dict(type='mmrotate_plugin.ennBN', eps=1e-2, momentum=0.2), zero_init_residual=False),
    dict(RE, avg_down=True, strides=(1, 1, 1, 1)),
    dict(ADF, avg_down=True, dropout=0.1, noise_std=8.0, std=[58.0, 57.0, 57.0], output='mean'),
], ids=lambda cfg: ','.join(k for k in cfg if k not in ('type', 'depth', 'base_channels')))  # fmt: skip
def test_backbones_are_mmdets_resnet(backbone):
    net, there, _ = both(dict(backbone=backbone))
    assert worst(net, there) < 1e-5
    ours, theirs = net.backbone, there.backbone
    assert ours.norm_eval == theirs.norm_eval and ours.out_indices == tuple(theirs.out_indices)
    assert ours.frozen_stages == theirs.frozen_stages
    theirs.train()
    frozen = [name for name, p in theirs.named_parameters() if not p.requires_grad]
    assert bool(frozen) == (ours.frozen_stages >= 0)
    there.eval()
    with torch.no_grad():
        next(iter(there.parameters()))[0].mul_(1.5)
    assert worst(net, there) > 1e-4, 'a changed weight must be seen'


@pytest.mark.parametrize('size', [ODD, EVEN], ids=['odd', 'even'])
@pytest.mark.parametrize('options', [
    dict(),
    dict(add_extra_convs=True, start_level=1, relu_before_extra_convs=True, norm_cfg=dict(type='BN')),
    dict(add_extra_convs=True, extra_convs_on_inputs=False, activation='relu', no_norm_on_lateral=True,
         norm_cfg=dict(type='GN', num_groups=2)),
    dict(end_level=3, num_outs=3, conv_cfg=dict(padding_mode='reflect')),
], ids=['plain', 'inputs', 'outputs', 'part'])  # fmt: skip
def test_pyramids_are_mmdets_fpn(options, size):
    net, there, _ = both(dict(backbone=RE, neck=dict(NECK, **options)), size)
    assert worst(net, there, size) < 1e-5
    assert worst(net, there, EVEN if size == ODD else ODD) > 1e-3, 'resampling for the other sizes must not be the same'


def test_any_equivariant_layer_in_a_neck_of_mmdet():
    enn = dict(conv_cfg=dict(type='ennConv', group='C4'), norm_cfg=dict(type='ennBN', group='C4'))
    neck = dict(type='mmdet.FPN', in_channels=LEVELS, out_channels=16, num_outs=4, act_cfg=dict(type='ennReLU'), **enn)
    net, there, plain = both(dict(backbone=dict(RE, group='C4'), neck=neck), EVEN)
    assert plain['neck']['conv_cfg'] is None and plain['neck']['norm_cfg'] == {'type': 'BN'}
    assert worst(net, there, EVEN) < 1e-5


@pytest.mark.parametrize(('model', 'text'), [
    (dict(backbone=RE, neck=dict(NECK, group_pool='max')), r'model\.neck: group_pool .*--formats'),
    (dict(backbone=dict(RE, avg_down=True)), r'model\.backbone: avg_down=True .* windows'),
    (dict(backbone=dict(RE, act_cfg=dict(type='mmrotate_plugin.ennReLU'), norm_cfg=dict(type='BN'))), None),
    (dict(backbone=dict(ADF, act_cfg=dict(type='GELU'))), r"model\.backbone: act_cfg=.*'GELU'.* ReLU alone"),
    (dict(backbone=dict(ADF, mean='adf')), r"model\.backbone: mean='adf' .* use mean='plain'"),
    (dict(head=dict(pool=dict(type='ennGroupPool'))), r'model\.head\.pool: ennGroupPool has no counterpart'),
], ids=['group_pool', 'avg_down', 'ennReLU', 'GELU', 'adf', 'pool'])  # fmt: skip
def test_what_mmdet_cannot_express_is_refused(model, text):
    if text is None:
        assert 'act_cfg' not in plain_config(model, list)[0]['backbone']
        return
    with pytest.raises(Unsupported, match=text):
        plain_config(model, lambda: [ODD])


def test_sizes_of_both_kinds_are_refused_since_mmdets_fpn_resamples_in_one_way():
    with pytest.raises(Unsupported, match=r'32m \(data_preprocessor\.pad_size_divisor=32\) or of 32m \+ 1'):
        plain_config(dict(backbone=RE, neck=NECK), lambda: [ODD, EVEN])
    cfg, _, _ = plain_config(dict(backbone=RE, neck=NECK), lambda: [ODD, (33, 129)])
    assert cfg['neck']['upsample_cfg'] == dict(mode='bilinear', align_corners=True)


def test_gains_are_left_out_and_said():
    _, notes, _ = plain_config(dict(backbone=dict(ADF, dropout=0.1)), list)
    assert notes == [
        'model.backbone: mmdet.ResNet gives the means of ADFResNet; variances, gains and dropout=0.1 are left out'
    ]
    net = Pair(dict(backbone=ADF))
    net.backbone.layer1.register_buffer('variance_gain', torch.ones(16, 1, 1))
    assert not any('gain' in key for key in plain_weights(net))


def test_names_of_the_hosts_stay_theirs():
    model = dict(type='mmdet.FCOS', backbone=dict(type='ResNet', depth=18), neck=dict(type='mmdet.FPN', a=(1, 2)))
    assert plain_config(model, list) == (model, [], set())


@pytest.mark.parametrize(
    'name, text',
    [
        ('any_angle/any-angle_r18_synthetic', 'bbox_head: ReFCOSHead'),
        ('any_angle/any-angle_re18_synthetic', 'any_angle=True of ReResNet'),
        ('synthetic/re-fcos_re18_refpn_synthetic', 'bbox_head: ReFCOSHead'),
    ],
)
def test_heads_of_fields_and_any_angle_have_no_counterpart(name, text):
    pytest.importorskip('mmrotate')
    cfg = load_config(str(CONFIGS / f'{name}.py'))
    init_default_scope('mmrotate')
    with pytest.raises(Unsupported, match=f'{text}.*ONNX and safetensors can hold it'):
        plain_config(cfg.model, lambda: [(193, 193)])


WITH_COUNTERPART = sorted(p.name for p in CONFIGS.glob('[!_]*') if p.is_dir() and p.name != 'any_angle')


@pytest.mark.parametrize('folder', WITH_COUNTERPART)
def test_configs_of_every_kind_become_the_hosts_own(folder):
    pytest.importorskip('mmrotate')
    cfg = load_config(str(min(p for p in (CONFIGS / folder).glob('*.py') if not p.name.startswith('re-fcos'))))
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    model, _, needed = plain_config(cfg.model, lambda: [(1025, 833)])
    runtime, _, more = plain_runtime(cfg)
    assert 'mmrotate_plugin' in str(cfg) and 'mmrotate_plugin' not in f'{model} {runtime}'
    assert needed | more <= set(PARTS) and plain_imports(cfg, []) == {}
