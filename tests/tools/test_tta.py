"""`test --tta` and `predict --tta`: views of each image, one result, and how far the views agree."""

import json
import pickle

import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmrotate_plugin.apis import load_detector, predict
from mmrotate_plugin.apis.explanations import explain
from mmrotate_plugin.apis.test_time_augmentation import judge_views, quarter_turns, set_augmented_pipeline
from mmrotate_plugin.structures import tensor_of
from mmrotate_plugin.utils.errors import UsageError


def test_a_detector_is_tested_on_quarter_turns(tool, tiny_config, trained, tmp_path, caplog, fresh_visualizers):  # noqa: ARG001
    options = ['--tta', '--work-dir', str(tmp_path), '--show-dir', str(tmp_path / 'pictures'), '--show-num', '1']
    options += ['--out', str(tmp_path / 'found.pkl')]
    assert tool('test', report=True)([str(tiny_config), str(trained / 'epoch_1.pth'), *options]) == 0
    predict_finds_the_same(str(tiny_config), str(trained / 'epoch_1.pth'), tmp_path / 'found.pkl')
    report = json.loads((tmp_path / 'test_metrics.json').read_text())
    assert [row['degrees'] for row in report['tta']['views']] == [90, 180, 270]
    assert [len(image['views']) for image in report['tta']['images']] == [3] * 6
    assert {image['img_id'] for image in report['tta']['images']} == {f'scene{i}' for i in range(6)}
    together = report['tta']['together']
    assert report['metrics']['tta/matched'] == together['matched']
    assert report['tta']['contradictions'] == []  # it claims nothing
    assert (tmp_path / 'report.html').exists() and len(list((tmp_path / 'report').glob('*.json'))) > 0
    assert 'dota/mAP' in report['metrics'] and len(list((tmp_path / 'pictures').iterdir())) == 1


def predict_finds_the_same(config, checkpoint, tested):
    """The detections of `test --tta`, in a batch and alone."""
    with tested.open('rb') as file:
        expected = {one['img_path']: one['pred_instances'] for one in pickle.load(file)}
    detector = load_detector(config, checkpoint, device='cpu', tta=True)
    for batch_size in (4, 1):
        for result in predict(detector, list(expected), score_thr=0, batch_size=batch_size):
            found = expected[str(result.path)]
            order = np.argsort(-found['scores'].numpy(), kind='stable')
            assert len(result.scores) == len(order) > 0
            assert np.abs(result.scores - found['scores'].numpy()[order]).max() < 1e-5
    assert np.abs(result.boxes - tensor_of(found['bboxes']).numpy()[order]).max() < 1e-2
    plain = load_detector(config, checkpoint, device='cpu')  # control
    (alone,) = predict(plain, result.path, score_thr=0)
    assert len(alone.scores) != len(result.scores) or np.abs(alone.scores - result.scores).max() > 1e-3
    assert len(next(predict(detector, result.path, score_thr=0, patch_size=64, patch_overlap=16)).scores)


LOAD = dict(type='mmdet.LoadImageFromFile')
PACK = dict(type='mmdet.PackDetInputs')


def config(dataset, **other):
    return Config(dict(test_dataloader=dict(dataset=dataset), **other))


def test_the_test_pipeline_is_run_on_quarter_turns():
    size = dict(type='mmdet.Resize', scale=(96, 96), keep_ratio=True)
    load, views = quarter_turns([LOAD, size, PACK])
    turns, resize, pack = views['transforms']
    assert load == LOAD and [step['degrees'] for step in turns] == [0, 90, 180, 270] and resize == [size]
    assert pack[0]['meta_keys'][-1] == 'homography_matrix' and 'meta_keys' not in PACK


def test_a_pipeline_of_the_config_reaches_each_data_set():
    parts = [dict(type='A', pipeline=[LOAD, PACK]), dict(type='B', pipeline=[PACK])]
    given = [LOAD, dict(type='TestTimeAug', transforms=[[PACK]])]
    cfg = config(dict(type='ConcatDataset', datasets=parts), tta_pipeline=given)
    set_augmented_pipeline(cfg)
    assert [part['pipeline'] for part in cfg.test_dataloader.dataset.datasets] == [given, given]


@pytest.mark.parametrize(
    ('cfg', 'said'),
    [
        (Config(dict(model={})), 'the config has no test_dataloader with a pipeline'),
        (config(dict(pipeline=[PACK])), 'no step of the test pipeline loads an image'),
    ],
)
def test_what_cannot_be_turned_is_refused(cfg, said):
    with pytest.raises(UsageError, match=said):
        set_augmented_pipeline(cfg)


def test_merging_that_is_for_horizontal_boxes_is_told():
    model = pytest.importorskip('mmdet.models').DetTTAModel
    merger = model.__new__(model)
    view = dict(ori_shape=(9, 9), flip=True, flip_direction='horizontal')
    with pytest.raises(AssertionError) as caught:
        merger.merge_aug_bboxes([torch.zeros(1, 5)], [torch.zeros(1)], [view])
    assert "tta_model: mmdet's DetTTAModel brings back horizontal boxes only" in explain(caught.value)
    assert merger.merge_aug_bboxes([torch.zeros(1, 4)], [torch.zeros(1)], [view])  # control


def row(degrees, mirrored=False, lost=0, corner=0.0, score=0.0, scale=1, longest=50):
    numbers = dict(corner=dict(max=corner), score=dict(max=score), new=0, lost=lost)
    return dict(degrees=degrees, mirrored=mirrored, scale=scale, longest=longest, **numbers)


def test_a_claim_is_held_against_the_views(monkeypatch):
    monkeypatch.setattr('mmrotate_plugin.apis.test_time_augmentation.claimed_group', lambda model: model)
    kept = [row(90, corner=9e-4), row(180, corner=4e-3, longest=500)]
    others = [row(90, corner=3, scale=1.5), row(0, True, lost=2), row(45, lost=2)]  # C8 is not exact there
    assert judge_views(dict(views=[*kept, *others]), 'C8') == []
    assert judge_views(dict(views=[row(90, lost=2)]), None) == []
    for broken, said in (
        (row(90, lost=2), 'view at 90 degrees, exact in C8: 2 detections lost and 0 new'),
        (row(270, corner=0.5), 'corners differ by up to 5.0e-01 pixels and scores by 0.0e+00'),
        (row(180, score=0.1), 'scores by 1.0e-01'),
    ):
        (text,) = judge_views(dict(views=[broken]), 'C8')
        assert said in text
    assert len(judge_views(dict(views=[row(0, True, lost=2)]), 'D8')) == 1
