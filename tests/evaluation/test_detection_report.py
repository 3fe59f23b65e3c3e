"""Average precision, curves, confusions and errors by shape, against plain references written from the definitions."""

import math

import numpy as np
import pytest
from evaluation_references import dota_ap, exact_iou, random_boxes

from mmrotate_plugin.evaluation.detection_report import box_reliability, measure_detections, score_reliability, thinned
from mmrotate_plugin.evaluation.functional import confusion_matrix, parts_of_class, rank_detections, score_curve
from mmrotate_plugin.evaluation.functional.score_curve import best_threshold
from mmrotate_plugin.evaluation.object_groups import EDGES, error_groups, rotated_of

CLASSES = ('ship', 'plane', 'tank')


def drawn_images(seed=0, number=4, *, scores=None):
    """Images with objects, some ignored, and detections: moved objects, doubles, wrong classes, inventions."""
    rng = np.random.default_rng(seed)
    images = []
    for i in range(number):
        truth = random_boxes(rng, 6, 10, 60, 200)
        labels = rng.integers(0, len(CLASSES), 6)
        rows = np.concatenate([np.arange(5), [0, 1]])
        moved = truth[rows] + rng.normal(0, [1.5, 1.5, 1, 1, 0.04], (7, 5))
        found = np.concatenate([moved, random_boxes(rng, 3, 10, 60, 200)])
        found_labels = np.concatenate([labels[rows], rng.integers(0, 3, 3)])
        found_labels[2] = (found_labels[2] + 1) % 3
        score = rng.uniform(0.05, 1, 10) if scores is None else rng.choice(scores, 10)
        images.append(
            dict(
                img_id=f'image {i}',
                bboxes=found,
                scores=score,
                labels=found_labels,
                gt_bboxes=truth,
                gt_labels=labels,
                gt_ignored=np.arange(6) == 3,
            )
        )
    return images


@pytest.fixture(scope='module')
def images():
    return drawn_images()


@pytest.fixture(scope='module')
def overlaps(images):
    """Exact overlaps of all detections and objects, by image."""
    return [np.array([[exact_iou(a, b) for b in one['gt_bboxes']] for a in one['bboxes']]) for one in images]


def hits_of(images, overlaps, label, iou_thr):
    """(score, hit) of each detection of a class that counts: VOC's rule, in plain loops."""
    counted = []
    for image, ious in zip(images, overlaps, strict=True):
        taken = set()
        for i in np.argsort(-image['scores'], kind='stable'):
            if image['labels'][i] != label:
                continue
            best, at = 0.0, None
            for j in range(len(image['gt_labels'])):
                if image['gt_labels'][j] == label and ious[i, j] > best:
                    best, at = ious[i, j], j
            if at is not None and best >= iou_thr and image['gt_ignored'][at]:
                continue
            hit = at is not None and best >= iou_thr and at not in taken
            if hit:
                taken.add(at)
            counted.append((float(image['scores'][i]), hit))
    return counted


def test_average_precision_is_that_of_the_definition(images):
    numbers = measure_detections(images, CLASSES)
    for mode in ('11points', 'area'):
        numbers = measure_detections(images, CLASSES, eval_mode=mode)
        for label, row in enumerate(numbers['classes']):
            detections, truth = [], {}
            for n, image in enumerate(images):
                mine = image['labels'] == label
                detections += [(n, s, b) for s, b in zip(image['scores'][mine], image['bboxes'][mine], strict=True)]
                same = image['gt_labels'] == label
                pairs = zip(image['gt_bboxes'][same], image['gt_ignored'][same], strict=True)
                truth[n] = [(box, bool(ignored)) for box, ignored in pairs]
            known = {}

            def iou(a, b, known=known):
                key = (*a, *b)
                return known.setdefault(key, exact_iou(a, b)) if key not in known else known[key]

            thresholds = [0.5 + 0.05 * i for i in range(10)]
            aps = [dota_ap(detections, truth, iou, thr, mode == '11points') for thr in thresholds]
            assert row['AP50'] == pytest.approx(aps[0], abs=1e-6) and row['AP75'] == pytest.approx(aps[5], abs=1e-6)
            assert row['AP50_95'] == pytest.approx(np.mean(aps), abs=1e-6)
    assert 0.1 < numbers['AP50_95'] < numbers['AP50'] < 1


def test_curves_are_those_of_the_definition(images, overlaps):
    counted, objects = [], 0
    for label in range(3):
        mine = hits_of(images, overlaps, label, 0.5)
        number = sum(int(((im['gt_labels'] == label) & ~im['gt_ignored']).sum()) for im in images)
        counted, objects = counted + mine, objects + number
        check_curve(score_curve([rank_detections(parts_of_class(images, label))]), mine, number)
    rankings = [rank_detections(parts_of_class(images, label)) for label in range(3)]
    check_curve(score_curve(rankings), counted, objects)
    low = [(score, hit) for score, hit in counted if score > 0.5]
    with pytest.raises(AssertionError):
        check_curve(score_curve(rankings), low, objects)


def check_curve(curve, counted, objects):
    assert curve.threshold.tolist() == sorted({score for score, _ in counted}, reverse=True)
    best = (-1.0, 0.0)
    for threshold, recall, precision, f1 in zip(*curve, strict=True):
        kept = [hit for score, hit in counted if score >= threshold]
        p, r = sum(kept) / len(kept), sum(kept) / objects
        assert (recall, precision) == pytest.approx((r, p), abs=1e-6)
        assert f1 == pytest.approx(2 * p * r / (p + r) if p + r else 0.0, abs=1e-6)
        best = max(best, (f1, threshold))
    assert best_threshold(curve).f1 == pytest.approx(best[0]) and best_threshold(curve).threshold == best[1]


def test_equal_scores_enter_together():
    images = drawn_images(3, 2, scores=[0.2, 0.5, 0.8])
    curve = score_curve([rank_detections(parts_of_class(images, label)) for label in range(3)])
    assert curve.threshold.tolist() == [0.8, 0.5, 0.2]


def test_confusions_are_those_of_the_definition(images, overlaps):
    expected = np.zeros((4, 4), int)
    for image, ious in zip(images, overlaps, strict=True):
        kept = [i for i in range(len(ious)) if image['scores'][i] >= 0.3]
        counted = [j for j in range(ious.shape[1]) if not image['gt_ignored'][j]]
        pairs = sorted((-ious[i, j], i, j) for i in kept for j in counted if ious[i, j] >= 0.5)
        partner = {}
        for _, i, j in pairs:
            if i not in partner and j not in partner.values():
                partner[i] = j
        for i in kept:
            if i in partner:
                expected[image['gt_labels'][partner[i]], image['labels'][i]] += 1
            elif not any(ious[i, j] >= 0.5 for j in range(ious.shape[1]) if image['gt_ignored'][j]):
                expected[3, image['labels'][i]] += 1
        for j in counted:
            if j not in partner.values():
                expected[image['gt_labels'][j], 3] += 1
    found = confusion_matrix(images, 3, score_thr=0.3)
    assert (found == expected).all() and found[3, :3].sum() and found[:3, 3].sum()
    assert found[:3, :3].sum() > np.trace(found[:3, :3]) > 0
    assert (confusion_matrix(images, 3, score_thr=0.6) != expected).any()


def test_horizontal_boxes_agree_with_pycocotools():
    """COCO interpolates at 101 recalls, and lets a detection take another object: apart from each other they agree."""
    coco = pytest.importorskip('pycocotools.coco')
    cocoeval = pytest.importorskip('pycocotools.cocoeval')
    rng = np.random.default_rng(1)
    images, truths, founds = [], [], []
    for n in range(5):
        corner = np.stack(np.meshgrid(np.arange(5), np.arange(4)), -1).reshape(-1, 2) * 60.0
        truth = np.column_stack([corner, corner + rng.uniform(20, 40, (20, 2))])
        found = truth + rng.normal(0, 2.5, truth.shape)
        score = rng.permutation(20) / 21 + n / 1000  # no ties
        keep = rng.random(20) < 0.7
        images.append(
            dict(
                bboxes=found,
                scores=score,
                labels=np.zeros(20),
                gt_bboxes=truth[keep],
                gt_labels=np.zeros(keep.sum()),
                gt_ignored=np.zeros(keep.sum(), bool),
            )
        )

        def wide(boxes):
            return np.column_stack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]).tolist()

        for box in wide(truth[keep]):
            area = box[2] * box[3]
            truths.append(dict(id=len(truths) + 1, image_id=n, category_id=1, bbox=box, area=area, iscrowd=0))
        founds += [
            dict(image_id=n, category_id=1, bbox=box, score=float(s)) for box, s in zip(wide(found), score, strict=True)
        ]
    data = coco.COCO()
    data.dataset = dict(images=[dict(id=n) for n in range(5)], annotations=truths, categories=[dict(id=1, name='a')])
    data.createIndex()
    judge = cocoeval.COCOeval(data, data.loadRes(founds), 'bbox')
    judge.evaluate()
    judge.accumulate()
    parts = parts_of_class(images, 0)
    for t, iou_thr in enumerate(judge.params.iouThrs):
        curve = score_curve([rank_detections(parts, float(iou_thr))])
        best = np.maximum.accumulate(np.append(curve.precision, 0)[::-1])[::-1]
        ours = best[np.searchsorted(curve.recall, judge.params.recThrs)]
        assert ours.mean() == pytest.approx(judge.eval['precision'][t, :, 0, 0, -1].mean(), abs=1e-6)
    assert 0 < judge.eval['precision'][5, :, 0, 0, -1].mean() < judge.eval['precision'][0, :, 0, 0, -1].mean() < 1


def test_groups_count_each_object_and_each_false_detection_once(images):
    groups = error_groups(images, score_thr=0.3)
    matrix = confusion_matrix(images, 3, score_thr=0.3)
    objects = sum(int((~image['gt_ignored']).sum()) for image in images)
    for name in ('size', 'aspect_ratio'):
        assert sum(group['objects'] for group in groups[name]) == objects == matrix[:3].sum()
    assert [group['low'] for group in groups['angle']] == list(EDGES['angle'][:-1])


def test_errors_are_those_that_were_made():
    truth = np.array([[50, 50, 40, 10, math.radians(20)], [150, 50, 10, 40, 0.0], [50, 150, 20, 20, 0.3]])
    found = truth + [[3, 4, 0, 0, math.radians(2)], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0.4]]
    found[1] = [150, 50, 40, 10, math.pi / 2]  # the same rectangle
    image = dict(bboxes=found, scores=np.ones(3), labels=np.zeros(3), gt_bboxes=truth, gt_labels=np.zeros(3))
    groups = error_groups([{**image, 'gt_ignored': np.zeros(3, bool)}], score_thr=0.5, iou_thr=0.3)
    turned = {group['low']: group for group in groups['angle'] if group['objects']}
    assert set(turned) == {0, -90}
    assert turned[0]['centre'] == pytest.approx(5) and turned[0]['angle'] == pytest.approx(2)
    assert turned[-90]['angle'] == pytest.approx(0, abs=1e-9) and turned[-90]['iou'] == pytest.approx(1)
    assert math.isnan(groups['aspect_ratio'][0]['angle'])  # a square has none
    assert [group['found'] for group in groups['size']] == [0, 3, 0, 0, 0]


def test_quadrilaterals_are_rectangles_again():
    boxes = random_boxes(np.random.default_rng(0), 20)
    cos, sin = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    x, y = (np.array([-1, 1, 1, -1]) / 2)[None] * boxes[:, 2:3], (np.array([-1, -1, 1, 1]) / 2)[None] * boxes[:, 3:4]
    corners = np.stack([x * cos[:, None] - y * sin[:, None], x * sin[:, None] + y * cos[:, None]], -1)
    again = rotated_of((corners + boxes[:, None, :2]).reshape(-1, 8))
    assert again[:, :4] == pytest.approx(boxes[:, :4])
    assert np.sin(again[:, 4] - boxes[:, 4]) == pytest.approx(0, abs=1e-9)


def test_reliability_of_scores_and_boxes():
    rng = np.random.default_rng(0)
    n = 4000
    scores = rng.random(n)
    good = score_reliability(scores, rng.random(n) < scores)
    # a bin of 400 has a standard error of at most 0.025
    assert all(abs(one['score'] - one['precision']) < 5 * 0.025 for one in good['bins'])
    assert score_reliability(scores, rng.random(n) < scores / 3)['error'] > 0.2
    assert score_reliability(np.array([2.0]), np.array([True])) == {}

    truth = np.column_stack([np.full((n, 2), 0.0), np.full((n, 2), 50.0), np.zeros(n)])
    truth[:, 0] = 100 * np.arange(n)
    std = np.tile([1.0, 1, 1, 1, 0.02], (n, 1))
    image = dict(scores=np.ones(n), labels=np.zeros(n), gt_bboxes=truth, gt_labels=np.zeros(n))
    image |= dict(gt_ignored=np.zeros(n, bool), bboxes=truth + rng.normal(0, 1, (n, 5)) * std)
    small = slice(0, 300)
    image = {name: values[small] for name, values in image.items()}
    for factor, holds in ((1.0, True), (0.3, False)):
        found = box_reliability([{**image, 'bboxes_std': factor * std[small]}])
        # five standard errors of a fraction of 300
        close = [
            np.abs(np.array(row['found']) - found['levels']).max() < 5 * 0.5 / 300**0.5 for row in found['coordinates']
        ]
        assert found['pairs'] == 300 and all(close) == holds
    assert box_reliability([{**image, 'bboxes_std': None}]) == {}


def test_nothing_found_and_nothing_there():
    none = np.zeros((0, 5))
    empty = dict(bboxes=none, scores=np.zeros(0), labels=np.zeros(0))
    empty |= dict(gt_bboxes=none, gt_labels=np.zeros(0), gt_ignored=np.zeros(0, bool))
    numbers = measure_detections([empty], CLASSES)
    assert math.isnan(numbers['AP50']) and math.isnan(numbers['best']['f1']) and numbers['worst'] == []
    (image,) = drawn_images(number=1)
    missed = measure_detections([{**image, **{name: empty[name] for name in ('bboxes', 'scores', 'labels')}}], CLASSES)
    assert missed['AP50'] == 0 and missed['worst'][0]['missed'] == 5
    assert measure_detections([], CLASSES)['images'] == 0


def test_a_thinned_curve_keeps_the_best_point():
    curve = score_curve([rank_detections(parts_of_class(drawn_images(5, 6), label)) for label in range(3)])
    few = thinned(curve, 5)
    assert len(few['f1']) <= 6 and max(few['f1']) == curve.f1.max()
