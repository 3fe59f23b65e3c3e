"""A detector and a data set that train in seconds: six 80 pixel images in DOTA's format, Rotated FCOS on ResNet-18."""

import importlib.util
import logging
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.visualization import Visualizer

ROOT = Path(__file__).resolve().parents[2]


def load_tool(name: str, report: bool = False) -> Callable[[list[str]], int]:
    """The `main` of a command-line tool, to be called in this process: imports take seconds.

    So do the figures of a report; without `report`, train and test write none.
    """
    spec = importlib.util.spec_from_file_location(f'tool_{name}', ROOT / 'tools' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if report or name not in ('train', 'test'):
        return module.main
    return lambda arguments: module.main([*arguments, '--no-report'])


CONFIG = """
_base_ = 'mmrotate::rotated_fcos/rotated-fcos-hbox-le90_r50_fpn_1x_dota.py'
custom_imports = dict(imports=['mmrotate_plugin'], allow_failed_imports=False)
data = dict(
    metainfo=dict(classes=('plane',), palette=[(0, 200, 255)]),
    data_root={root!r}, ann_file='labels/', data_prefix=dict(img_path='images/'))
model = dict(
    backbone=dict(depth={depth}, base_channels=16, frozen_stages=-1, norm_eval=False, init_cfg=None),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=32),
    bbox_head=dict(num_classes=1, in_channels=32, feat_channels=64, stacked_convs=1),
    test_cfg=dict(nms_pre=20, score_thr=0.001, max_per_img=5))
size = dict(type='mmdet.Resize', scale=(96, 96), keep_ratio=True)
load = [
    dict(type='mmdet.LoadAnnotations', with_bbox=True, box_type='qbox'),
    dict(type='ConvertBoxType', box_type_mapping=dict(gt_bboxes='rbox'))]
image = dict(type='mmdet.LoadImageFromFile')
meta = dict(
    type='mmdet.PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
loader = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(
    **loader, batch_size=2, dataset=dict(**data, pipeline=[image, *load, size, dict(type='mmdet.PackDetInputs')]))
val_dataloader = dict(**loader, dataset=dict(**data, pipeline=[image, size, *load, meta]))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=1)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))
"""

# trains in a second: a backbone of two stages with 8 channels on six drawn scenes of 65 pixels
SMALL = """
_base_ = 'mmrotate::rotated_fcos/rotated-fcos-hbox-le90_r50_fpn_1x_dota.py'
custom_imports = dict(imports=['mmrotate_plugin'], allow_failed_imports=False)
model = dict(
    data_preprocessor=dict(pad_size_divisor=1),
    backbone=dict(
        _delete_=True, type='mmrotate_plugin.ReResNet', group='C4', depth=18, base_channels=8, num_stages=2,
        strides=(1, 2), dilations=(1, 1), out_indices=(0, 1)),
    neck=dict(in_channels=[8, 16], out_channels=8, num_outs=2, add_extra_convs=False),
    bbox_head=dict(num_classes=5, in_channels=8, feat_channels=8, stacked_convs=1, strides=[8, 16],
                   norm_cfg=dict(type='GN', num_groups=2), regress_ranges=((-1, 48), (48, 1e8))))
boxes = [
    dict(type='mmdet.LoadAnnotations', with_bbox=True, box_type='qbox'),
    dict(type='mmrotate.ConvertBoxType', box_type_mapping=dict(gt_bboxes='rbox'))]
flip = dict(type='mmdet.RandomFlip', prob=0.75, direction=['horizontal', 'vertical', 'diagonal'])
train_dataloader = dict(
    batch_size=2, num_workers=1, persistent_workers=True,
    dataset=dict(_delete_=True, type='mmrotate_plugin.SyntheticAerialDataset', size=65, length=6, num_objects=(2, 4),
                 pipeline=[*boxes, flip, dict(type='mmdet.PackDetInputs')]))
val_dataloader = val_cfg = val_evaluator = None
train_cfg = dict(_delete_=True, by_epoch=True, max_epochs=3)
optim_wrapper = dict(optimizer=dict(lr=0.002))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=4),
    dict(type='MultiStepLR', by_epoch=True, milestones=[2], gamma=0.1)]
"""


def write_scene(folder: Path, name: str, rng: np.random.Generator) -> None:
    """One image with three bright slanted boxes, and its label file."""
    image = rng.integers(60, 90, (60, 80, 3), dtype=np.uint8)
    lines = []
    for i in range(3):
        box = ((15 + 25 * i, float(rng.uniform(15, 45))), (16.0, 8.0), float(rng.uniform(-90, 90)))
        corners = cv2.boxPoints(box)
        cv2.fillPoly(image, [corners.round().astype(np.int32)], (220, 220, 200))
        lines.append(' '.join(f'{v:.1f}' for v in corners.ravel()) + ' plane 0')
    cv2.imwrite(str(folder / 'images' / f'{name}.png'), image)
    (folder / 'labels' / f'{name}.txt').write_text('\n'.join(lines) + '\n')


@pytest.fixture(scope='session')
def scenes(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('scenes')
    (root / 'images').mkdir()
    (root / 'labels').mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        write_scene(root, f'scene{i}', rng)
    return root


@pytest.fixture(scope='session')
def tiny_config(scenes, tmp_path_factory) -> Path:
    pytest.importorskip('mmrotate')  # the base of the config
    path = tmp_path_factory.mktemp('configs') / 'tiny.py'
    path.write_text(CONFIG.format(root=f'{scenes}/', depth=18))
    return path


def forget_visualizers() -> None:
    """mmengine keeps one visualizer for each name and process, and gives a later training that of an earlier one."""
    kinds = [Visualizer]
    while kinds:
        kind = kinds.pop()
        kind._instance_dict.clear()
        kinds += kind.__subclasses__()


@pytest.fixture
def fresh_visualizers():
    forget_visualizers()
    yield
    forget_visualizers()


@pytest.fixture(scope='session')
def small_config(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp('configs') / 'small.py'
    path.write_text(SMALL)
    return path


@pytest.fixture(scope='session')
def trained(tiny_config, tmp_path_factory) -> Path:
    """The work directory of one epoch of training."""
    work_dir = tmp_path_factory.mktemp('trained')
    options = ['--work-dir', str(work_dir), '--seed', '0', '--pictures', '2']
    if importlib.util.find_spec('tensorboard') is not None:
        options.append('--tensorboard')
    forget_visualizers()
    assert load_tool('train')([str(tiny_config), *options]) == 0
    forget_visualizers()
    return work_dir


@pytest.fixture(scope='session')
def tool() -> Callable[..., Callable[[list[str]], int]]:
    return load_tool


@pytest.fixture(autouse=True)
def quiet_loggers(monkeypatch) -> None:
    """mmengine's loggers live on and hold the captured stream of an earlier test, which is closed by now."""
    monkeypatch.setattr(logging, 'raiseExceptions', False)
