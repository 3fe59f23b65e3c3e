import json
import logging
import math

import numpy as np
import pytest
import torch
from evaluation_references import corners, dota_ap, exact_iou, random_boxes, renamed
from mmengine.registry import METRICS as ROOT

from mmrotate_plugin.evaluation import DOTAMetric, EvaluationError
from mmrotate_plugin.evaluation.functional import class_ap, match_boxes, parts_of_class, rotated_iou
from mmrotate_plugin.registry import METRICS
from mmrotate_plugin.utils import messages

CLASSES = ('ship', 'plane')


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def sample(name, boxes, scores, labels, truth, truth_labels, ignored=None, ignored_labels=None):
    def tensors(boxes, labels):
        boxes = np.zeros((0, 5)) if boxes is None else np.asarray(boxes, dtype=np.float64)
        return dict(bboxes=torch.from_numpy(boxes).float(), labels=torch.as_tensor(np.asarray(labels, dtype=int)))

    return dict(
        img_id=name,
        pred_instances=dict(tensors(boxes, labels), scores=torch.as_tensor(np.asarray(scores)).float()),
        gt_instances=tensors(truth, truth_labels),
        ignored_instances=tensors(ignored, [] if ignored_labels is None else ignored_labels),
    )


def scene(rng, name, difficult=0.0):
    """Objects, some difficult; detections near most of them, twice near some, and some of nothing."""
    truth, labels = random_boxes(rng, 12, 10, 60), rng.integers(0, 2, 12)
    near = truth[rng.random(12) < 0.8]
    boxes = np.concatenate([near, near[::3], random_boxes(rng, 6, 10, 60)])
    boxes += rng.normal(0, 1, boxes.shape) * [1.5, 1.5, 1.5, 1.5, 0.05]
    found = np.concatenate([labels[:12][: len(near)], rng.integers(0, 2, len(boxes) - len(near))])
    hard = rng.random(12) < difficult
    return sample(name, boxes, rng.random(len(boxes)), found, truth[~hard], labels[~hard], truth[hard], labels[hard])


def evaluate(samples, **options):
    metric = DOTAMetric(**options)
    metric.dataset_meta = dict(classes=CLASSES)
    metric.process(None, samples)
    return metric.evaluate(len(samples))


def independent(samples, label, iou=exact_iou, **options):
    detections, truth = [], {}
    for one in samples:
        pred, objects = one['pred_instances'], truth.setdefault(one['img_id'], [])
        for box, score, found in zip(pred['bboxes'], pred['scores'], pred['labels'], strict=True):
            detections += [(one['img_id'], float(score), box.numpy())] if found == label else []
        for field, difficult in (('gt_instances', False), ('ignored_instances', True)):
            chosen = one[field]['labels'] == label
            objects += [(box.numpy(), difficult) for box in one[field]['bboxes'][chosen]]
    return dota_ap(detections, truth, iou, **options)


@pytest.mark.parametrize('mode', ['11points', 'area'])
@pytest.mark.parametrize('difficult', [0.0, 0.4])
def test_ap_is_that_of_dotas_description(mode, difficult, rng):
    samples = [scene(rng, i, difficult) for i in range(4)]
    expected = np.mean([independent(samples, label, eleven=mode == '11points') for label in (0, 1)])
    found = evaluate(samples, eval_mode=mode)
    assert set(found) == {'dota/mAP', 'dota/AP50'} and 0.1 < expected < 0.9
    assert found['dota/mAP'] == pytest.approx(expected, abs=1e-9)
    strict = np.mean([independent(samples, label, eleven=mode == '11points', threshold=0.75) for label in (0, 1)])
    both = evaluate(samples, eval_mode=mode, iou_thrs=[0.5, 0.75])
    assert both['dota/AP75'] == pytest.approx(strict, abs=1e-9) and strict < expected
    assert both['dota/mAP'] == pytest.approx((expected + strict) / 2, abs=1e-9)


def test_mmrotate_counts_the_same_where_nothing_is_difficult(rng, monkeypatch):
    import multiprocessing.dummy

    mean_ap = pytest.importorskip('mmrotate.evaluation.functional.mean_ap')
    from mmrotate.evaluation import DOTAMetric as Theirs

    monkeypatch.setattr(mean_ap, 'get_context', lambda _: multiprocessing.dummy)
    samples = [scene(rng, i) for i in range(8)]
    theirs = Theirs()
    theirs.dataset_meta = dict(classes=CLASSES)
    theirs.process(None, samples)
    expected = theirs.compute_metrics(theirs.results)['mAP']
    assert evaluate(samples)['dota/mAP'] == pytest.approx(expected, abs=1e-6)


def test_difficult_objects_are_neither_hits_nor_misses(rng):
    easy = [scene(rng, i) for i in range(6)]
    hard = []
    for i in range(6, 12):  # images that hold nothing else; all that is found there lies on a difficult object
        one = scene(rng, i)
        truth = one['gt_instances']
        boxes, labels = truth['bboxes'].numpy().repeat(3, 0), truth['labels'].numpy().repeat(3)  # a crowd
        hard.append(sample(i, boxes, rng.random(len(boxes)), labels, None, [], truth['bboxes'], truth['labels']))
    expected = evaluate(easy)['dota/mAP']
    assert evaluate(easy + hard)['dota/mAP'] == pytest.approx(expected, abs=1e-12)
    assert evaluate(easy + hard, scale_ranges=[(0, 1000)])['dota/AP50_0_1000'] == pytest.approx(expected, abs=1e-12)
    forgotten = [{**one, 'ignored_instances': one['gt_instances']} for one in hard]  # the control: they count as false
    assert evaluate(easy + forgotten)['dota/mAP'] < expected - 0.1


def test_perfect_predictions_of_other_names_are_perfect(rng):
    truth = random_boxes(rng, 2000, 4, 200, where=900)
    samples = [
        sample(i, renamed(part, rng), np.full(50, 0.9), np.zeros(50), part, np.zeros(50))
        for i, part in enumerate(np.split(truth, 40))
    ]
    assert evaluate(samples, iou_thrs=[0.5, 0.95]) == {'dota/mAP': 1, 'dota/AP50': 1, 'dota/AP95': 1}


def test_both_metrics_of_the_package_match_alike(rng):
    from mmrotate_plugin.evaluation import UncertaintyMetric

    samples = [scene(rng, i, 0.4) for i in range(6)]
    hits = 0
    for one in samples:
        pred, truth = one['pred_instances'], [one[f'{kind}_instances'] for kind in ('gt', 'ignored')]
        boxes, labels = (torch.cat([part[key] for part in truth]) for key in ('bboxes', 'labels'))
        ious = rotated_iou(pred['bboxes'], boxes)
        ignored = np.arange(len(labels)) >= len(truth[0]['labels'])
        hits += (match_boxes(ious, pred['scores'], pred['labels'], labels, ignored) >= 0).sum()
        pred |= dict(bboxes_std=torch.ones_like(pred['bboxes']), scores_std=torch.zeros_like(pred['scores']))
    metric = UncertaintyMetric(score_thr=0)
    metric.process(None, samples)
    found = metric.measure(metric.results)
    assert found['matched'] == hits and found['objects'] == sum(len(s['gt_instances']['labels']) for s in samples)
    recall = DOTAMetric()
    recall.process(None, samples)
    classes = [class_ap(parts_of_class(recall.results, label)) for label in (0, 1)]
    assert sum(round(one.recall * one.objects) for one in classes) == hits


def test_sizes():
    def square(side, x):
        return [x, 50, side, side, 0.3]

    boxes = [square(10, 50), square(40, 150), square(10, 300), square(40, 400)]  # the last two find nothing
    one = sample('a', boxes, [0.9, 0.8, 0.95, 0.7], [0] * 4, boxes[:2], [0, 0])
    found = evaluate([one], scale_ranges=[(0, 20), (20, 100), (100, 1000)], eval_mode='area')
    assert found['dota/AP50_0_20'] == pytest.approx(0.5), 'a small false one comes first'
    assert found['dota/AP50_20_100'] == 1 and 'dota/AP50_100_1000' not in found
    assert found['dota/mAP'] == pytest.approx(2 / 3)


def test_classes_without_objects_are_left_out_of_the_mean(rng):
    box = random_boxes(rng, 1)
    one = sample('a', np.repeat(box, 2, 0), [0.9, 0.8], [0, 1], box, [0])
    assert evaluate([one])['dota/mAP'] == pytest.approx(1)


@pytest.fixture
def warnings(monkeypatch):
    lines = []

    def note(text, *, level, **_):
        if level == logging.WARNING:
            lines.append(text)

    monkeypatch.setattr(messages, 'print_log', note)
    return lines


def test_without_ground_truth_there_is_no_number(rng, tmp_path, warnings):
    full = [scene(rng, i) for i in range(3)]
    unlabelled = [{**one, 'gt_instances': {}, 'ignored_instances': {}} for one in full]
    empty = [{**one, 'gt_instances': {k: v[:0] for k, v in one['gt_instances'].items()}} for one in full]
    difficult = [{**one, 'ignored_instances': full_['gt_instances']} for one, full_ in zip(empty, full, strict=True)]
    for samples in (unlabelled, empty, difficult):
        assert evaluate(samples, outfile_prefix=str(tmp_path / 'out')) == {}
        records = json.loads((tmp_path / 'out.bbox.json').read_text())
        assert len(records) == sum(len(one['pred_instances']['scores']) for one in full)
    none = 'DOTAMetric: no ground truth: 3 images have no objects, so no number is given'
    assert warnings == [none, none, 'DOTAMetric: no ground truth: all 36 objects in 3 images are ignored, '
                        'so no number is given']  # fmt: skip
    del warnings[:]
    assert evaluate([*full, *unlabelled]) == evaluate(full)
    assert warnings == ['DOTAMetric: 3 of 6 images have no labels and do not count']
    assert evaluate([*full, *empty])['dota/mAP'] < evaluate(full)['dota/mAP'], 'images without objects do count'


def test_horizontal_boxes_corners_and_mixtures(rng):
    one = scene(rng, 'a')
    expected = evaluate([one])['dota/mAP']
    for field in ('pred_instances', 'gt_instances'):
        quads = torch.tensor([np.float64(corners(box)).ravel().tolist() for box in one[field]['bboxes']])
        one = {**one, field: {**one[field], 'bboxes': quads}}
        assert evaluate([one], predict_box_type='qbox')['dota/mAP'] == pytest.approx(expected, abs=1e-6)
    flat = sample('b', [[0, 0, 9, 9, 0]], [1], [0], [[0, 0, 9, 9, 0]], [0])
    for field in ('pred_instances', 'gt_instances'):
        flat[field]['bboxes'] = torch.tensor([[10.0, 20, 60, 50]])
    assert evaluate([flat], predict_box_type='hbox')['dota/mAP'] == pytest.approx(1)
    with pytest.raises(EvaluationError, match="image b: detections have 4 columns.*predict_box_type='hbox'"):
        evaluate([flat])


def test_what_is_not_finite_is_refused():
    bad = sample('P7', [[0, 0, 9, math.nan, 0]], [1], [0], None, [])
    with pytest.raises(EvaluationError, match='image P7: 1 of 1 detections have a box or score that is not finite'):
        evaluate([bad])


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(iou_thrs=50), 'iou_thrs=50 must be'),
        (dict(iou_thrs='0.5'), 'iou_thrs='),
        (dict(iou_thrs=[0.5, 0.5]), 'has a number twice'),
        (dict(metric='bbox'), "metric='bbox' must be 'mAP'"),
        (dict(predict_box_type='obb'), "predict_box_type='obb' must be one of 'rbox', 'qbox', 'hbox'"),
        (dict(eval_mode='11point'), "eval_mode='11point' must be"),
        (dict(scale_ranges=[(32, 0)]), 'scale_ranges='),
        (dict(format_only=True), 'format_only=True writes files'),
        (dict(merge_patches=True), 'outfile_prefix must say where'),
        (dict(iou_thr=10), 'iou_thr=10 must be between 0 and 1'),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        DOTAMetric(**options)


def test_it_is_found_by_its_scoped_name_alone():
    assert ROOT.build(dict(type='mmrotate_plugin.DOTAMetric', metric=['mAP'])).__class__ is DOTAMetric
    assert METRICS.get('DOTAMetric') is DOTAMetric and 'DOTAMetric' not in ROOT.module_dict


@pytest.mark.parametrize('field, what', [('pred_instances', 'a detection'), ('gt_instances', 'an object')])
def test_labels_beyond_the_classes_are_refused(rng, field, what):
    one = scene(rng, 'a')
    one[field]['labels'][0] = 2
    with pytest.raises(EvaluationError, match=f'image a: {what} has the label 2, and the data set has 2 classes'):
        evaluate([one])
