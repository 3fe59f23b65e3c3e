"""The claim of exactness, from the image to the pyramid: it holds, and everything that breaks it is noticed."""

import json

import cv2
import numpy as np
import pytest
import torch

from mmrotate_plugin.visualization.plots.equivariance import equivariance_figure

pytest.importorskip('mmdet')

CONFIG = """
_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
custom_imports = dict(imports=['mmrotate_plugin'], allow_failed_imports=False)
model = dict(
    data_preprocessor=dict(pad_size_divisor=1),
    backbone=dict(
        _delete_=True, type='mmrotate_plugin.ReResNet', depth=18, group={group!r}, base_channels={width}),
    neck=dict(
        _delete_=True, type='mmrotate_plugin.ReFPN', in_channels=[{width}, 2 * {width}, 4 * {width}, 8 * {width}],
        out_channels={width}, num_outs=5, group={group!r}, group_pool={pool!r}),
    bbox_head=dict(in_channels={width}, feat_channels=16, stacked_convs=1, num_classes=2))
test_dataloader = dict(dataset=dict(pipeline=[
    dict(type='mmdet.LoadImageFromFile'),
    dict(type='mmdet.Resize', scale=(65, 65), keep_ratio=False),
    dict(type='mmdet.PackDetInputs', meta_keys=('img_id', 'img_shape', 'scale_factor'))]))
"""
SMALL = ['--device', 'cpu', '--angles', '4', '--no-detections']


@pytest.fixture
def config(tmp_path):
    def write(group='C4', width=16, pool=None):
        path = tmp_path / 'tiny.py'
        path.write_text(CONFIG.format(group=group, width=width, pool=pool))
        return str(path)

    return write


@pytest.fixture
def check(tool, tmp_path, capsys, monkeypatch):
    """Run the tool; returns its status, what it printed on either stream, and the report."""
    drawn = {}

    def run(*args, draw=False):
        def figure(*given, **options):
            drawn['rows'] = given[3]
            return equivariance_figure(*given, **options) if draw else b''  # half of the tool's time

        monkeypatch.setattr('mmrotate_plugin.commands.check_equivariance.equivariance_figure', figure)
        status = tool('check_equivariance')([*SMALL, '--out', str(tmp_path / 'out'), *args])
        printed = capsys.readouterr()
        report = tmp_path / 'out/equivariance.json'
        return status, printed.out, printed.err, json.loads(report.read_text()) if report.exists() else None

    run.drawn = drawn
    return run


def test_exactness_holds_from_the_image_to_the_pyramid(config, check, tmp_path):
    status, out, err, report = check(config('D4'), '--angles', '8', draw=True)
    assert status == 0 and 'claim does not hold' not in err
    assert 'the claim holds' in out
    assert report['holds'] and report['group'] == 'D4' and report['size'] == [65, 65]
    names = ['image', *[f'stage{i}' for i in range(4)], *[f'level{i}' for i in range(5)]]
    assert list(report['maps']) == names and all(f'\n{name} ' in out for name in names)
    for name in names[1:]:
        row = report['maps'][name]
        assert row['exact'] < 1e-5 < 0.01 < row['change']
        assert len(row['curve']) == len(report['degrees']) == 8
        assert row['curve'][1] == row['at_45'] > 0.01
    assert list(report['plain']) == ['image', 'stage0', 'stage1', 'stage2', 'stage3']
    assert min(row['exact'] for name, row in report['plain'].items() if name != 'image') > 0.05
    picture = cv2.imread(str(tmp_path / 'out/equivariance.png'))
    assert picture is not None and min(picture.shape[:2]) > 500
    ours, plain, *_ = check.drawn['rows']
    assert np.abs(ours.after - ours.before).max() < 1e-4 * np.ptp(ours.before)
    assert np.abs(plain.after - plain.before).max() > 0.1 * np.ptp(plain.before)
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == ['equivariance.json', 'equivariance.png']
    assert report['detections'] is None


@pytest.fixture
def check_boxes(tool, config, tmp_path, capsys, monkeypatch):
    """Run the tool with detections, and with the head as it is or as `claims` makes it."""

    def run(*args, claims=False):
        monkeypatch.setattr('mmrotate_plugin.commands.check_equivariance.equivariance_figure', lambda *_, **__: b'')
        if claims:
            module = 'mmrotate_plugin.commands.check_equivariance.claimed_group'
            monkeypatch.setattr(module, lambda model: model.backbone.group)
        options = ['--device', 'cpu', '--angles', '8', '--no-compare', '--out', str(tmp_path / 'out')]
        status = tool('check_equivariance')([config(), *options, *args])
        printed = capsys.readouterr()
        return status, printed.out, printed.err, json.loads((tmp_path / 'out/equivariance.json').read_text())

    return run


def test_detections_are_reported_of_a_head_that_claims_nothing(check_boxes, tmp_path):
    status, out, _, report = check_boxes()
    assert status == 0 and 'backbone, neck and heads have no group in common' in out
    found = report['detections']
    assert list(found) == ['said', 'group', 'score_thr', 'wrong', 'turns'] and found['group'] is None
    assert 'the best detections of random weights' in found['said'] and found['said'] in out
    assert [row['degrees'] for row in found['turns']] == [90, 180, 270], 'its boxes are horizontal'
    row = found['turns'][0]
    assert list(row) == [
        'degrees', 'mirrored', 'exact', 'detections', 'matched', 'lost', 'new', 'near_squares', 'centre', 'size',
        'angle', 'score', 'corner',
    ]  # fmt: skip
    assert row['detections'] == row['matched'] + row['lost'] > 10 and list(row['centre']) == ['median', 'max']
    assert '\nangle ' in out and '\n270 ' in out
    picture = cv2.imread(str(tmp_path / 'out/detections.png'))
    assert picture is not None and min(picture.shape[:2]) > 600


def test_a_head_that_claims_the_law_and_breaks_it_fails(check_boxes):
    status, out, err, report = check_boxes(claims=True)
    assert status == 1 and 'the claim does not hold: detections: ' in err and 'the claim holds' not in out
    assert report['wrong'] == report['detections']['wrong'] and not report['holds']


def test_no_detection_proves_nothing_and_the_tool_says_what_would_work(check_boxes):
    status, out, err, report = check_boxes('--score-thr', '0.999')
    assert status == 0 and 'no detections are compared: no detection has a score of 0.999 or more' in out
    assert 'take --score-thr 0.' in out and report['detections']['turns'] == []
    status, _, err, _ = check_boxes('--score-thr', '0.999', claims=True)
    assert status == 1 and 'nothing is proved of the boxes that C4 should turn' in err


def test_pooled_pyramids_are_exact_too(config, check):
    status, _, _, report = check(config(pool='max'), '--no-compare')
    assert status == 0 and report['plain'] == {}
    assert report['maps']['level0']['group'] == 'C4' and report['maps']['level0']['shape'][0] == 4


def test_image_and_checkpoint(config, check, tmp_path):
    from mmdet.registry import MODELS
    from mmengine.config import Config

    path = config()
    torch.manual_seed(1)
    torch.save({'state_dict': MODELS.build(Config.fromfile(path).model).state_dict()}, tmp_path / 'weights.pth')
    image = np.random.default_rng(0).integers(0, 255, (65, 129, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / 'image.png'), image)
    options = ['--img', str(tmp_path / 'image.png'), '--cfg-options', 'test_dataloader.dataset.pipeline.1.keep_ratio=1']
    # not square, as it comes
    status, _, err, report = check(path, str(tmp_path / 'weights.pth'), '--size', '129', '--no-compare', *options)
    assert status == 0, err
    assert report['size'] == [65, 129]
    assert report['maps']['stage3']['change'] > 0.01  # of the half turn, which keeps the shape


@pytest.mark.parametrize(
    ('options', 'maps', 'advice'),
    [
        (['--cfg-options', 'model.data_preprocessor.pad_size_divisor=32'], 'stage0', 'the pipeline treats an image'),
        (['--size', '64'], 'stage0', 'resize to 65 x 65,'),
        (['--size', '225'], 'level4', 'sides must be 64m + 1 for level4 (stride 64)'),
        (['--tol', '1e-12'], 'stage0', '(--tol 1e-12)'),
    ],
)
def test_what_breaks_the_claim_fails_with_advice(config, check, options, maps, advice):
    status, out, err, report = check(config(), '--no-compare', *options)
    assert status == 1 and not report['holds']
    assert 'the claim holds' not in out
    first = err[err.index('the claim does not hold: ') :].split('\n')[0]
    assert maps in first.removeprefix('the claim does not hold: ').split(':')[0].split(', ')
    assert advice in err
    assert ('SymmetricResize' in err) == ('--tol' not in options)


def test_only_the_levels_that_lose_their_centre_fail(config, check):
    _, _, _, report = check(config(), '--no-compare', '--size', '225')
    failed = [name for name, row in report['maps'].items() if row['exact'] > 1e-5]
    assert failed == ['level4']  # stage3 has 8 x 8 pixels, of which every second one is not symmetric


def test_constant_images_prove_nothing(config, check, tmp_path):
    cv2.imwrite(str(tmp_path / 'grey.png'), np.full((65, 65, 3), 90, np.uint8))
    status, _, err, report = check(config(), '--no-compare', '--img', str(tmp_path / 'grey.png'))
    assert status == 1 and 'turns change the maps by less than 0.01' in err
    assert max(row['exact'] for row in report['maps'].values()) < 1e-5


def test_plain_backbones_fail(check, tmp_path):
    path = tmp_path / 'plain.py'
    plain = 'model = dict(data_preprocessor=dict(pad_size_divisor=1), backbone=dict(init_cfg=None))\n'
    start, end = CONFIG.index('model = '), CONFIG.index('test_dataloader = ')
    path.write_text(CONFIG[:start] + plain + CONFIG[end:])
    status, out, err, report = check(str(path))
    assert status == 1 and 'the backbone ResNet claims no group' in err
    assert out.count('not claimed') == 9 and report['plain'] == {}, 'nothing to compare a foreign ResNet with'
    assert all(report['maps'][f'stage{i}']['exact'] > 0.05 for i in range(4))


def test_groups_without_quarter_turns(check, config):
    status, _, _, report = check(config('C6', 24), '--no-compare')
    assert status == 0
    assert report['maps']['stage0']['curve'][2] < 1e-5 < 0.01 < report['maps']['stage0']['curve'][1]
    status, _, err, _ = check(config('C3', 24), '--no-compare')
    assert status == 1 and "the group 'C3' of ReResNet has no turn" in err


@pytest.mark.parametrize(
    ('args', 'text'),
    [
        (['--img', 'missing.png'], "--img: 'missing.png' cannot be read"),
        (['missing.pth'], "checkpoint 'missing.pth' does not exist"),
        (['--device', 'abacus'], "--device 'abacus' cannot be used"),
        (['--cfg-options', 'model.backbone.depth=19'], 'the model of the config cannot be built'),
        (['--cfg-options', 'model.neck.group=C8'], 'give both the same group'),
    ],
)
def test_wrong_input_is_one_line(check, config, args, text):
    status, _, err, _ = check(config(), *args)
    assert status == 2
    assert [line for line in err.split('\n') if line.startswith('error: ') and text in line]


@pytest.mark.parametrize(
    ('args', 'text'),
    [
        (['--size', '8'], '--size must be 33'),
        (['--angles', '6'], '--angles must be a multiple of 4'),
        (['--tol', '0'], '--tol must be between 0 and 1'),
        (['--score-thr', '1'], '--score-thr must be at least 0 and below 1, not 1'),
        (['--score-thr', '0.3', '--no-detections'], '--score-thr is for detections'),
    ],
)
def test_wrong_options_end_with_status_two(tool, config, capsys, args, text):
    with pytest.raises(SystemExit) as end:
        tool('check_equivariance')([config(), *args])
    assert end.value.code == 2
    assert text in capsys.readouterr().err
