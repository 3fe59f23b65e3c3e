"""Each fault of mmrotate's evaluation as it is, so that a test fails once the host is right, and mended."""

import multiprocessing

import numpy as np
import pytest
import torch

from mmrotate_plugin.apis.runner import threaded_evaluation
from mmrotate_plugin.evaluation import EvaluationError
from mmrotate_plugin.evaluation.mmrotate_map import _mended

mean_ap = pytest.importorskip('mmrotate.evaluation.functional.mean_ap')
BOXES = np.array([[50.0, 40, 40, 16, 0.4], [90, 90, 12, 30, -0.2]])
LABELS = np.zeros(2, dtype=int)


def metric(**options):
    from mmrotate.evaluation import DOTAMetric

    made = DOTAMetric(**options)
    made.dataset_meta = dict(classes=('ship',))
    return made


def sample(name, boxes, truth, ignored):
    def tensors(boxes):
        return dict(bboxes=torch.from_numpy(boxes).float(), labels=torch.zeros(len(boxes), dtype=torch.long))

    pred = dict(tensors(boxes), scores=torch.linspace(0.9, 0.1, len(boxes)))
    return dict(img_id=name, pred_instances=pred, gt_instances=tensors(truth), ignored_instances=tensors(ignored))


@pytest.fixture
def threads(monkeypatch):
    import multiprocessing.dummy

    monkeypatch.setattr(mean_ap, 'get_context', lambda _: multiprocessing.dummy)


def judge(samples):
    made = metric()
    made.process(None, samples)
    return made.compute_metrics(made.results)['mAP']


@pytest.mark.usefixtures('threads')
def test_difficult_objects_in_images_of_their_own():
    nothing = BOXES[:0]
    samples = [sample('a', BOXES[1:], nothing, BOXES[1:]), sample('b', BOXES, BOXES, nothing)]
    # the first image's detection lies on a difficult object; mmrotate counts it as false
    assert judge(samples) < 0.9, 'mmrotate is mended: drop class_results from evaluation/mmrotate_map.py'
    with threaded_evaluation():
        assert judge(samples) == pytest.approx(1)


@pytest.mark.usefixtures('threads')
def test_perfect_predictions_of_another_name():
    rng = np.random.default_rng(0)
    low, high = [0, 0, 4, 4, 0], [900, 900, 200, 200, 3.14]
    truth = rng.uniform(low, high, (1000, 5)).astype(np.float32).astype(np.float64)
    names = np.column_stack([truth[:, :2], truth[:, 3], truth[:, 2], truth[:, 4] + np.pi / 2])
    samples = [sample(str(i), names[i::20], truth[i::20], BOXES[:0]) for i in range(20)]
    assert judge(samples) < 0.95, 'mmcv is mended: drop _right_iou from evaluation/mmrotate_map.py'
    with threaded_evaluation():
        assert judge(samples) == pytest.approx(1)


def test_everything_is_put_back_and_errors_are_of_the_user():
    names = ('get_context', 'box_iou_rotated', 'box_iou_quadri', 'get_cls_results')
    before = [getattr(mean_ap, name) for name in names]
    with pytest.raises(EvaluationError, match='P7 has'), threaded_evaluation():
        assert all(getattr(mean_ap, name) is not old for name, old in zip(names, before, strict=True))
        raise EvaluationError('P7 has nothing')
    assert [getattr(mean_ap, name) for name in names] == before


def test_corners_with_scores_behind_them():
    with threaded_evaluation():
        quads = torch.tensor([[0.0, 0, 4, 0, 4, 4, 0, 4, 0.9]])
        assert mean_ap.box_iou_quadri(quads, quads[:, :8]).item() == 1
        assert mean_ap.box_iou_rotated(torch.ones(2, 6), torch.ones(2, 5), aligned=True).shape == (2,)


def test_threads_count_like_the_processes_that_mmrotate_starts(monkeypatch):
    # forks: mmrotate spawns, and new processes import torch and mmrotate, which takes ten seconds
    monkeypatch.setattr(mean_ap, 'get_context', lambda _: multiprocessing.get_context('fork'))
    rng = np.random.default_rng(0)
    found, truth = [], []
    for _ in range(6):
        boxes = rng.uniform([0, 0, 4, 4, 0], [200, 200, 60, 60, 3], (12, 5)).astype(np.float32)
        moved = boxes + rng.normal(0, [3, 3, 2, 2, 0.1], boxes.shape).astype(np.float32)
        scored = np.column_stack([moved, rng.random(len(boxes))]).astype(np.float32)
        found.append([scored[:8], scored[8:]])
        truth.append(dict(bboxes=boxes, labels=np.array([0] * 7 + [1] * 5), bboxes_ignore=boxes[:0],
                          labels_ignore=LABELS[:0]))  # fmt: skip

    def count():
        return mean_ap.eval_rbbox_map(found, truth, iou_thr=0.5, logger='silent', nproc=1)

    expected = count()
    (pool,) = [value for module, name, value in _mended() if module is mean_ap and name == 'get_context']
    monkeypatch.setattr(mean_ap, 'get_context', pool)
    actual = count()
    assert 0 < expected[0] < 1 and actual[0] == expected[0]
    for one, other in zip(actual[1], expected[1], strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            np.testing.assert_array_equal(value, other[key])
