import re
from importlib import import_module
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, TRANSFORMS, init_default_scope

from mmrotate_plugin.engine.checks.dataset_classes import data_sets, find_class_faults
from mmrotate_plugin.models import ReResNet, ResNet

CONFIGS = Path(__file__).parents[1] / 'configs'
NAMES = sorted(str(p.relative_to(CONFIGS)) for p in CONFIGS.rglob('*.py') if '_base_' not in p.parts)
# their hosts have pipelines of their own (tests/test_mmpretrain.py, tests/test_mmseg.py), or no size is asked for
# those that start from torchvision's weights; all others train from scratch, and their norms with them
FIXED_NORMS = {f'adf/rotated-{head}-hbox-le90_adfr50_fpn_1x_dota.py' for head in ('fcos', 'retinanet')}
PARTS = ('train', 'val', 'test')
OTHERS = ('adf/', 'imagenet/', 'segmentation/', 'synthetic/')


def load(name):
    if name.startswith('imagenet/'):
        pytest.importorskip('mmpretrain')  # the base of the config
    return Config.fromfile(CONFIGS / name)


def test_no_config_is_missed():
    assert len(NAMES) >= 53


@pytest.mark.parametrize('name', NAMES)
def test_config_builds_and_survives_a_dump(name, tmp_path):
    cfg = load(name)
    if cfg.default_scope == 'mmrotate':
        import_module('mmrotate.utils').register_all_modules(init_default_scope=False)
    else:
        pytest.importorskip(cfg.default_scope)
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):  # shapes only: the heads of two-stage detectors hold 50 million numbers
        net = MODELS.build(cfg.model)
    assert isinstance(net.backbone, (ReResNet, ResNet)) or 'mmdet.ResNet' in str(cfg.model.backbone.type)
    if isinstance(net.backbone, (ReResNet, ResNet)):
        assert net.backbone.norm_eval is (name in FIXED_NORMS)
    if cfg.default_scope == 'mmrotate':  # mmrotate's own forgets difficult objects, and computes overlaps in float32
        for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
            first = evaluator[0] if isinstance(evaluator, list) else evaluator
            assert first.type == 'mmrotate_plugin.DOTAMetric'
    cfg.dump(tmp_path / 'dumped.py')
    assert Config.fromfile(tmp_path / 'dumped.py').model == cfg.model


@pytest.mark.usefixtures('with_layout')
def test_a_dump_as_mmengine_lays_it_out(tmp_path):
    cfg = load('synthetic/redet_re18_refpn_synthetic.py')
    cfg.dump(tmp_path / 'dumped.py')
    lines = (tmp_path / 'dumped.py').read_text().splitlines()
    assert sum(map(len, lines)) / len(lines) < 60 and Config.fromfile(tmp_path / 'dumped.py').model == cfg.model


def pipelines(node):
    """All pipelines below a config's node."""
    if isinstance(node, dict):
        if 'pipeline' in node:
            yield node['pipeline']
        for value in node.values():
            yield from pipelines(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from pipelines(value)


@pytest.mark.parametrize('name', [n for n in NAMES if not n.startswith(OTHERS) and 'synthetic' not in n])
def test_equivariant_backbones_get_sides_of_32m_plus_1(name):
    cfg = load(name)
    assert cfg.model.data_preprocessor.pad_size_divisor == 1
    found = [list(pipelines(cfg[f'{part}_dataloader'])) for part in ('train', 'val', 'test')]
    assert all(found)
    for pipeline in (p for part in found for p in part):
        kinds = [step['type'].rpartition('.')[2] for step in pipeline]
        assert 'SymmetricResize' in kinds and 'Resize' not in kinds
        (step,) = (s for s in pipeline if s['type'].endswith('SymmetricResize'))
        sides = step['scale'] if isinstance(step['scale'], (tuple, list)) else [step['scale']]
        multiple = step.get('multiple', 32)
        assert all(side % multiple == 1 for side in sides), 'what is asked for is what is meant'
        if 'redet/' in name:  # its pyramid is equivariant too, down to the stride of its last level
            assert multiple == cfg.model.rpn_head.anchor_generator.strides[-1] == 64


@pytest.mark.parametrize('name', [n for n in NAMES if not n.startswith(('imagenet/', 'segmentation/'))])
def test_labels_are_read_by_this_package(name):
    """COCO's own files aside: mmrotate's readers stop at a header line, without naming file or line."""
    cfg = load(name)
    found = list(data_sets(cfg))
    assert [place for place, _ in found if place.count('.') == 1] == [f'{p}_dataloader.dataset' for p in PARTS]
    for place, dataset in found:
        if dataset.type in ('ConcatDataset', 'RepeatDataset'):
            continue
        expected = 'CocoDataset' if name.startswith('retinanet/') else 'mmrotate_plugin.'
        assert dataset.type.startswith(expected), place
    assert not find_class_faults(cfg)


def test_data_sets_are_found_in_wrappers():
    cfg = dict(train_dataloader=dict(dataset=dict(type='A', datasets=[dict(type='B', dataset=dict(type='C'))])))
    found = [(place, dataset['type']) for place, dataset in data_sets(cfg)]
    top = 'train_dataloader.dataset'
    assert found == [(top, 'A'), (f'{top}.datasets[0]', 'B'), (f'{top}.datasets[0].dataset', 'C')]


FAMILIES = [
    ('rotated_retinanet/rotated-retinanet-rbox-le90_re18_fpn_1x_dota.py', 'rbox'),
    ('rotated_fcos/rotated-fcos-hbox-le90_re18_fpn_6x_hrsc.py', 'rbox'),
    ('s2anet/s2anet-le135_re18_fpn_1x_dior.py', 'rbox'),
    ('oriented_rcnn/oriented-rcnn-le90_re18_fpn_1x_dota.py', 'rbox'),
    ('roi_trans/roi-trans-le90_re18_fpn_6x_hrsc.py', 'rbox'),
    ('retinanet/retinanet_re18_fpn_1x_coco.py', 'hbox'),
]


@pytest.mark.slow
@pytest.mark.parametrize('name, box', FAMILIES, ids=[name for name, _ in FAMILIES])
def test_a_step_of_each_family(name, box, step_and_predict):
    net, loss, predictions = step_and_predict(load(name), box)
    assert torch.isfinite(loss)
    without = [n for n, p in net.backbone.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    assert predictions.scores.shape[0] == predictions.bboxes.shape[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    'name, size',
    [
        ('redet/redet-le90_re50_refpn_1x_dota.py', 257),
        ('synthetic/redet_re18_refpn_synthetic.py', 97),
        ('synthetic/redet_r18_fpn_synthetic.py', 97),
    ],
)
def test_redet_trains_a_step_and_predicts_on_a_cpu(name, size, step_and_predict):
    net, loss, predictions = step_and_predict(load(name), 'rbox', size=size)
    assert torch.isfinite(loss)
    assert not [n for n, p in net.backbone.named_parameters() if p.requires_grad and p.grad is None]
    assert predictions.scores.shape[0] == predictions.bboxes.shape[0]


def steps(node):
    """All steps of pipelines below a node, those of `TestTimeAug` too."""
    if isinstance(node, dict):
        if 'type' in node and not {'pipeline', 'module', 'nms', 'tta_cfg'} & set(node):
            yield {key: value for key, value in node.items() if key != 'type'} | {'type': node['type']}
        else:
            for value in node.values():
                yield from steps(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from steps(value)


BASES = sorted((CONFIGS / '_base_/datasets').glob('*.py')) + sorted((CONFIGS / '_base_/test_time_aug').glob('*.py'))


@pytest.mark.parametrize('scope', ['mmdet', 'mmrotate'])
def test_pipelines_of_the_bases_are_built_in_both_scopes(scope):
    """A scoped name is looked up in that scope alone, and loading is mmcv's."""
    pytest.importorskip('mmrotate')
    import_module('mmrotate.utils').register_all_modules(init_default_scope=False)
    init_default_scope(scope)
    built = set()
    for base in BASES:
        values = Config.fromfile(base)._cfg_dict
        lists = [value for value in values.values() if isinstance(value, (list, tuple))]
        for pipeline in [*pipelines(values), *lists]:
            for step in steps(pipeline):
                built.add(type(TRANSFORMS.build(dict(step))).__name__)
    assert {'LoadImageFromFile', 'LoadAnnotations', 'SymmetricResize', 'TestTimeAug', 'PackDetInputs'} <= built
    if scope == 'mmdet':  # control
        with pytest.raises(KeyError):
            TRANSFORMS.build(dict(type='mmdet.LoadImageFromFile'))


def test_no_config_and_no_page_scopes_what_is_mmcvs():
    """Names of steps with the scope of a host are of its own registry."""
    pytest.importorskip('mmdet')
    files = [*CONFIGS.rglob('*.py'), *(CONFIGS.parent / 'docs').glob('*.md'), CONFIGS.parent / 'README.md']
    files += (CONFIGS.parent / 'mmrotate_plugin').rglob('*.py')
    mmcv = set(TRANSFORMS.module_dict)
    scoped = {name for file in files for name in re.findall(r"'mmdet\.(\w+)'", file.read_text(encoding='utf-8'))}
    own = set(import_module('mmdet.registry').TRANSFORMS.module_dict)
    assert {'LoadAnnotations', 'RandomFlip', 'PackDetInputs'} <= scoped & own
    assert scoped & (mmcv - own) == set() and 'LoadImageFromFile' in mmcv - own
