"""The tools train and test a classifier of mmpretrain: what is special to detectors stays out of the way."""

import json

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip('mmpretrain', reason='mmpretrain is not installed')
events = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')

CONFIG = """
_base_ = 'mmrotate_plugin::imagenet/re-resnet18_8xb32_in1k.py'
classes = ['dark', 'bright']
small = dict(_delete_=True, type='CustomDataset', classes=classes)
pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(33, 33)), dict(type='PackInputs')]
train_dataloader = dict(
    batch_size=4, num_workers=0, persistent_workers=False,
    dataset=dict(**small, data_root={root!r}, pipeline=pipeline))
val_dataloader = dict(
    batch_size=4, num_workers=0, persistent_workers=False,
    dataset=dict(**small, data_root={root!r}, pipeline=pipeline))
test_dataloader = val_dataloader
model = dict(
    backbone=dict(base_channels=16),
    head=dict(in_channels=128, num_classes=2, topk=(1,)))
data_preprocessor = dict(num_classes=2)
val_evaluator = dict(topk=(1,))
test_evaluator = val_evaluator
optim_wrapper = dict(optimizer=dict(lr=0.02))
train_cfg = dict(max_epochs=4, val_interval=4)
"""


@pytest.fixture
def folder(tmp_path):
    """Four images in a folder for each class, dark or bright."""
    rng = np.random.default_rng(0)
    for name, level in (('bright', 160), ('dark', 20)):
        (tmp_path / 'images' / name).mkdir(parents=True)
        for i in range(4):
            image = rng.integers(level, level + 60, (40, 50, 3), dtype=np.uint8)
            cv2.imwrite(str(tmp_path / 'images' / name / f'{i}.png'), image)
    (tmp_path / 'config.py').write_text(CONFIG.format(root=str(tmp_path / 'images')))
    return tmp_path


def test_tools_train_and_test_a_classifier(folder, tool):
    config, work_dir = str(folder / 'config.py'), folder / 'run'
    assert tool('train')([config, '--work-dir', str(work_dir), '--seed', '0', '--tensorboard']) == 0
    checkpoint = work_dir / 'epoch_4.pth'
    keys = torch.load(checkpoint, map_location='cpu', weights_only=False)['state_dict'].keys()
    assert any(key.startswith('backbone.conv1.') for key in keys)
    assert not (work_dir / 'pictures').exists()
    (file,) = work_dir.glob('*/vis_data/events.out.tfevents.*')
    written = events.EventAccumulator(str(file)).Reload()
    assert {'loss', 'lr', 'accuracy/top1'} <= set(written.Tags()['scalars']) and not written.Tags()['images']

    assert tool('test')([config, str(checkpoint), '--work-dir', str(work_dir)]) == 0
    metrics = json.loads((work_dir / 'test_metrics.json').read_text())['metrics']
    assert metrics['accuracy/top1'] == 100


def test_a_data_set_that_the_host_refuses_is_an_error_in_one_line(folder, tool, capsys):
    (folder / 'images' / 'third').mkdir()
    assert tool('train')([str(folder / 'config.py'), '--work-dir', str(folder / 'run')]) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: the data of train_dataloader cannot be read') and '(3)' in error and '(2)' in error
