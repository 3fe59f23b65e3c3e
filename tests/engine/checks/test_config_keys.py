"""What a config or an option sets without effect."""

import pytest

from mmrotate_plugin.engine.checks.config_keys import keys_without_effect

HEAD = dict(type='RotatedFCOSHead', angle_version='le90', bbox_coder=dict(angle_version='le90'))
CLEAN = dict(
    model=dict(bbox_head=HEAD, data_preprocessor=dict(mean=[1.0, 2.0, 3.0], std=[1.0, 1.0, 1.0])),
    train_dataloader=dict(batch_size=2, dataset=dict(data_root='a/')),
    optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
    train_cfg=dict(max_epochs=12),
    default_scope='mmrotate',
    angle_version='le90',
    data_root='a/',
    classes=('ship',),
    train_pipeline=[],
    test_pipeline=[],
)


@pytest.mark.parametrize(
    'more',
    [
        {},
        dict(data=dict(type='mmrotate_plugin.DOTADataset', data_root='a/')),  # a variable, as in docs/own-data.md
        dict(optimizer=dict(type='SGD', lr=0.1)),  # variables in use
        dict(total_epochs=12, img_norm_cfg=dict(mean=[1.0, 2.0, 3.0], std=[1.0, 1.0, 1.0], to_rgb=True)),
        dict(evaluation=None, workflow=[]),
    ],
)
def test_variables_in_use_are_no_finding(more):
    assert keys_without_effect({**CLEAN, **more}) == []
    assert keys_without_effect(CLEAN, ['model.bbox_head.num_classes', 'train_cfg.max_epochs']) == []


@pytest.mark.parametrize(
    'more, names',
    [
        (dict(total_epochs=24), ['total_epochs (now train_cfg.max_epochs)']),
        (dict(data=dict(samples_per_gpu=2, train=dict())), ['data (now train_dataloader']),
        (dict(optimizer=dict(type='SGD', lr=0.5)), ['optimizer (now optim_wrapper.optimizer)']),
        (dict(lr_config=dict(policy='step')), ['lr_config (now param_scheduler)']),
        (dict(evaluation=dict(interval=1), dist_params=dict(backend='nccl')), ['evaluation (now', 'dist_params (now']),
        (dict(img_norm_cfg=dict(mean=[9.0, 2.0, 3.0])), ['img_norm_cfg (now model.data_preprocessor.mean']),
        (dict(runner=dict(max_epochs=3), workflow=[('train', 1)]), ['runner (now train_cfg)', 'workflow']),
    ],
)
def test_keys_of_older_versions_are_named_in_one_line(more, names):
    (text,) = keys_without_effect({**CLEAN, **more})
    assert text.startswith('the config has keys of mmdet 2') and all(name in text for name in names)


def test_an_option_that_changes_a_variable():
    (text,) = keys_without_effect(CLEAN, ['data_root'])
    assert (
        text.startswith('--cfg-options data_root has no effect')
        and 'such as train_dataloader.dataset.data_root' in text
    )
    (text,) = keys_without_effect(CLEAN, ['angle_version'])
    assert 'model.bbox_head.angle_version, model.bbox_head.bbox_coder.angle_version' in text
    (text,) = keys_without_effect({**CLEAN, 'data': dict(img_suffix='png')}, ['data.img_suffix'])
    assert "'data', which holds it, is a variable" in text
    (text,) = keys_without_effect({**CLEAN, 'total_epochs': 24}, ['total_epochs'])
    assert 'keys of mmdet 2' in text


def test_a_misspelt_key():
    (text,) = keys_without_effect({**CLEAN, 'train_dataloder': dict(batch_size=4)})
    assert "'train_dataloder' has no effect" in text and "did you mean 'train_dataloader'?" in text


def test_angle_versions():
    (text,) = keys_without_effect({**CLEAN, 'angle_version': 'oc'})
    assert text == (
        "angle_version='oc' at the top level of the config has no effect: model.bbox_head.angle_version is 'le90'"
    )
    mixed = dict(bbox_head=dict(angle_version='le90', bbox_coder=dict(angle_version='oc')))
    (text,) = keys_without_effect({**CLEAN, 'model': mixed})
    assert "'le90' in model.bbox_head.angle_version; 'oc' in model.bbox_head.bbox_coder.angle_version" in text
    (text,) = keys_without_effect({**CLEAN, 'model': dict(bbox_head={})})
    assert 'no part of the model has one' in text
