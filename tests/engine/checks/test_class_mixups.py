import pytest

from mmrotate_plugin.engine.checks.class_mixups import find_mixups

OVERRIDE = 'mmrotate_plugin.override_mmrotate'


def config(backbone, neck, *, scope='mmrotate', imports=('mmrotate_plugin',), **model):
    return dict(
        default_scope=scope,
        custom_imports=dict(imports=list(imports)),
        model=dict(type='ReDet', backbone=backbone and dict(type=backbone), neck=neck and dict(type=neck), **model),
    )


@pytest.mark.parametrize(
    'cfg',
    [
        config('mmrotate_plugin.ReResNet', 'mmrotate_plugin.ReFPN'),
        config('mmrotate_plugin.ReResNet', 'mmdet.FPN'),
        config('mmrotate_plugin.ReResNet', None),
        config('ReResNet', 'FPN', scope='mmdet'),
        config('ReResNet', 'FPN', scope=None),
        config('ReResNet', 'ReFPN', imports=('mmrotate_plugin', OVERRIDE)),
        config('ReResNet', 'ReFPN', imports=()),  # mmrotate's own redet, without this package
        config('mmrotate.ReResNet', 'mmrotate.ReFPN'),  # asked for by name
        config('mmdet.ResNet', 'mmdet.FPN'),
        config(None, None),
        {},
        dict(model=None, custom_imports=None),
    ],
)
def test_clear_configs_give_no_warning(cfg):
    assert find_mixups(cfg) == []


def test_bare_names_in_mmrotates_scope_are_named_with_both_ways_out():
    found = find_mixups(config('ReResNet', 'ReFPN'))
    assert len(found) == 2
    for text, key, name in zip(found, ('backbone', 'neck'), ('ReResNet', 'ReFPN'), strict=True):
        assert text.startswith(f"model.{key}: type='{name}' builds mmrotate's class")
        assert f"type='mmrotate_plugin.{name}'" in text and f"'{OVERRIDE}'" in text


def test_our_backbone_before_mmrotates_neck():
    first, second = find_mixups(config('mmrotate_plugin.ReResNet', 'ReFPN'))
    assert first.startswith('model.neck: ') and second.startswith('model.neck: ')
    assert 'GeometricTensor' in first + second and "type='mmrotate_plugin.ReFPN'" in second
    (found,) = find_mixups(config('ReResNet', 'mmrotate.ReFPN', scope='mmdet'))
    assert 'model.backbone is the ReResNet of mmrotate_plugin' in found


@pytest.mark.parametrize('neck', ['mmdet.FPN', 'mmrotate_plugin.ReFPN', None])
def test_mmrotates_backbone_before_another_neck(neck):
    (found,) = find_mixups(config('mmrotate.ReResNet', neck))
    assert found.startswith("model.backbone: type='mmrotate.ReResNet' builds mmrotate's ReResNet")
    assert (neck or 'no neck') in found and "type='mmrotate_plugin.ReResNet'" in found


def test_nested_models_lists_of_necks_and_scopes():
    cfg = config(None, None, scope='mmdet')
    cfg['model']['teachers'] = [
        dict(_scope_='mmrotate', backbone=dict(type='ReResNet'), neck=[dict(type='ReFPN'), dict(type='DyHead')])
    ]
    found = find_mixups(cfg)
    assert [text.split(':')[0] for text in found] == [
        'model.teachers[0].backbone',
        'model.teachers[0].neck[0]',
    ]


def test_classes_instead_of_names_are_left_alone():
    assert find_mixups(dict(default_scope='mmrotate', model=dict(type=dict, backbone=dict(type=list)))) == []


def test_the_roi_align_of_mmcv_is_pointed_out():
    def warnings(kind, *imports):
        layer = dict(type=kind, out_size=7)
        model = dict(roi_head=dict(bbox_roi_extractor=[dict(type='RotatedSingleRoIExtractor', roi_layer=layer)]))
        return find_mixups(dict(default_scope='mmrotate', custom_imports=dict(imports=list(imports)), model=model))

    (text,) = warnings('RiRoIAlignRotated', 'mmrotate_plugin')
    assert 'model.roi_head.bbox_roi_extractor[0].roi_layer' in text and "'mmrotate_plugin.RiRoIAlignRotated'" in text
    assert warnings('mmrotate_plugin.RiRoIAlignRotated', 'mmrotate_plugin') == []
    assert warnings('RiRoIAlignRotated', 'mmrotate_plugin.override_mmrotate') == []
    assert warnings('RiRoIAlignRotated') == [], 'nothing of ours is wanted there'
