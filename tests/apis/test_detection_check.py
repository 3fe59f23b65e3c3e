"""Boxes under turns of the image: a detector that turns with it passes, and one that does not fails."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData

from mmrotate_plugin.apis.detection_check import (
    BEST,
    BoxCheck,
    NothingFound,
    claimed_group,
    judge_boxes,
    lower_thresholds,
    smallest_rectangles,
)
from mmrotate_plugin.structures.corners import box_corners

pytest.importorskip('mmdet')
SIZE = 97


def scene():
    """Bright blobs on dark ground, each with a brighter end, so that a stub can find them and their direction."""
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    image = np.zeros((SIZE, SIZE))
    for cx, cy, angle in ((30, 40, 0.4), (66, 30, -1.0), (50, 70, 2.0), (88, 88, 0.9)):
        u = math.cos(angle) * (x - cx) + math.sin(angle) * (y - cy)
        v = -math.sin(angle) * (x - cx) + math.cos(angle) * (y - cy)
        image += 200 * np.exp(-(u**2) / 50 - v**2 / 8)
    return np.repeat(image[..., None].round().astype(np.uint8), 3, axis=2)


class Stub(torch.nn.Module):
    """Finds blobs by their moments, which turn with the image; `wrong` changes what it reports."""

    def __init__(self, wrong=None, score=0.8):
        super().__init__()
        self.wrong, self.score = wrong, score
        self.test_cfg = dict(score_thr=0.05)

    def test_step(self, batch):
        import cv2

        image = batch['inputs'][0].numpy()[0].astype(np.float64)
        count, parts = cv2.connectedComponents((image > 60).astype(np.uint8))
        y, x = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
        rows = []
        for part in range(1, count):
            weight = np.where(parts == part, image, 0)
            weight /= weight.sum()
            cx, cy = (weight * x).sum(), (weight * y).sum()
            xx, yy = (weight * (x - cx) ** 2).sum(), (weight * (y - cy) ** 2).sum()
            xy = (weight * (x - cx) * (y - cy)).sum()
            root = math.hypot((xx - yy) / 2, xy)
            sides = [4 * math.sqrt((xx + yy) / 2 + sign * root) for sign in (1, -1)]
            rows.append([cx, cy, *sides, math.atan2(2 * xy, xx - yy) / 2])
        boxes = np.array(rows, np.float64).reshape(-1, 5)
        scores = np.full(len(boxes), self.score)
        if self.wrong is not None:
            boxes, scores = self.wrong(boxes, scores)
        found = InstanceData(
            bboxes=torch.tensor(boxes), scores=torch.tensor(scores), labels=torch.zeros(len(boxes)).long()
        )
        keep = found.scores >= self.test_cfg['score_thr']
        return [SimpleNamespace(pred_instances=found[keep])]


def pack(data):
    return {'inputs': torch.from_numpy(data['img'].transpose(2, 0, 1).copy()), 'data_samples': None}


def turns(model, degrees=(0, 22.5, 45, 90), group='C4', score_thr=None, **options):
    check = BoxCheck(model, SimpleNamespace(pipeline=pack), score_thr, **options)
    return check.turns(scene(), group, degrees)


def test_a_detector_that_turns_with_the_image_passes():
    found = turns(Stub(), group='D4')
    assert [(t.degrees, t.mirrored) for t in found if t.exact] == [
        (90, False), (180, False), (270, False), (0, True), (90, True), (180, True), (270, True),
    ]  # fmt: skip
    assert judge_boxes(found, 'D4') == []
    rows = [turn.row() for turn in found]
    assert [row['detections'] for row in rows] == [4] * 7 + [3] * 2, 'the blob in the corner is beyond the disc'
    assert all(row['matched'] == row['detections'] and row['new'] == 0 for row in rows)
    assert max(row['corner']['max'] for row in rows[:7]) < 1e-9
    off_grid = rows[7:]
    assert [row['degrees'] for row in off_grid] == [22.5, 45] and not any(row['exact'] for row in off_grid)
    # the image is interpolated and rounded to 256 levels
    assert max(row['centre']['max'] for row in off_grid) < 0.1 and max(row['angle']['max'] for row in off_grid) < 1


def shifted(boxes, scores):
    return boxes + [0.5, 0, 0, 0, 0], scores


def bent(boxes, scores):
    return boxes * [1, 1, 1, 1, 0.99], scores


def upright(boxes, scores):
    return boxes * [1, 1, 1, 1, 0], scores


def unsure(boxes, scores):
    return boxes, scores - 1e-3 * boxes[:, 0] / SIZE


def forgetful(boxes, scores):
    keep = boxes[:, 0] < 80
    return boxes[keep], scores[keep]


@pytest.mark.parametrize(
    ('wrong', 'said'),
    [
        (shifted, 'corners differ by up to 7.1e-01 pixels at the turn by 90 degrees'),
        (bent, 'corners differ by up to'),
        (upright, 'lost and'),
        (unsure, 'scores differ by up to'),
        (forgetful, 'lost and'),
    ],
)
def test_detectors_that_do_not_turn_with_it_fail(wrong, said):
    texts = judge_boxes(turns(Stub(wrong)), 'C4')
    assert any(said in text and 'exact in C4' in text for text in texts), texts


def test_round_off_of_long_boxes_is_allowed_for():
    (turn, *_) = turns(Stub())
    assert turn.degrees == 90
    turn.pairs.errors['corner'][:] = 4e-3
    assert 'corners differ by up to 4.0e-03 pixels' in judge_boxes([turn], 'C4')[0]
    turn.expected.boxes[:, 2:4] = 500, 2  # 8e-6 of the longer side
    assert judge_boxes([turn], 'C4') == []


def test_known_errors_are_found():
    rows = {turn.degrees: turn.row() for turn in turns(Stub(shifted), degrees=(45,))}
    # a shift of (s, 0) moves the turned boxes by |R(s, 0) - (s, 0)| = 2 s sin(half the angle)
    for degrees in (90, 180, 270):
        expected = 2 * 0.5 * math.sin(math.radians(degrees) / 2)
        assert rows[degrees]['centre'] == dict(median=pytest.approx(expected), max=pytest.approx(expected))
        assert rows[degrees]['size']['max'] < 1e-9 and rows[degrees]['score']['max'] == 0
    assert rows[45]['centre']['median'] == pytest.approx(2 * 0.5 * math.sin(math.radians(22.5)), abs=0.1)
    angles = turns(Stub(lambda boxes, scores: (boxes + [0, 0, 0, 0, 0.01 * np.sign(boxes[0, 4])], scores)))
    assert {round(turn.row()['angle']['max'], 6) for turn in angles[:3]} <= {0.0, round(math.degrees(0.02), 6)}


def test_scores_below_the_threshold_do_not_count():
    def two_kinds(boxes, scores):
        return boxes, np.where(np.arange(len(boxes)) < 2, scores, 0.1)

    assert turns(Stub(two_kinds))[0].row()['detections'] == 2
    low = turns(Stub(two_kinds), score_thr=0.02)
    assert low[0].row()['detections'] == 4, "the head's own threshold is lowered"


def test_nothing_found_is_said_with_what_would_work():
    with pytest.raises(
        NothingFound, match=r'score of 0.3 or more on this image; the best has 0.034: take --score-thr 0.03,'
    ):
        turns(Stub(score=0.034))
    assert turns(Stub(score=0.034), score_thr=0.03)[0].row()['matched'] == 4
    with pytest.raises(NothingFound, match='finds nothing on this image at any score'):
        turns(Stub(lambda boxes, scores: (boxes[:0], scores[:0])))


def test_random_weights_are_judged_by_their_best_detections():
    check = BoxCheck(Stub(score=0.01), SimpleNamespace(pipeline=pack), None, trained=False)
    found = check.turns(scene(), 'C4', (0,))
    assert check.best_only and check.score_thr == pytest.approx(0.01) and found[0].row()['detections'] == 4 < BEST


def test_horizontal_boxes_are_compared_at_exact_turns_only():
    def around(boxes, scores):
        corners = box_corners(boxes)
        return np.concatenate([corners.min(1), corners.max(1)], axis=1), scores

    found = turns(Stub(around), group='D4')
    assert all(turn.exact for turn in found) and len(found) == 7 and judge_boxes(found, 'D4') == []


def test_four_corners_are_taken_for_the_rectangle_around_them():
    boxes = np.array([[30.0, 40, 20, 6, 0.4], [500, 700, 10, 30, -1.2]])
    rectangles = smallest_rectangles(box_corners(boxes).reshape(2, 8))
    assert np.allclose(np.sort(box_corners(rectangles), 1), np.sort(box_corners(boxes), 1), atol=1e-3)
    found = turns(Stub(lambda boxes, scores: (box_corners(boxes).reshape(-1, 8), scores)))
    assert judge_boxes(found, 'C4') == []


def part(group=None):
    module = torch.nn.Module()
    if group is not None:
        module.group = group
    return module


def test_a_claim_needs_backbone_neck_and_heads_of_one_group():
    model = torch.nn.Module()
    model.backbone, model.neck, model.bbox_head = part('C8'), part('C8'), part('C8')
    assert claimed_group(model) == 'C8'
    model.rpn_head = part()
    assert claimed_group(model) is None
    model.rpn_head = part('C4')
    assert claimed_group(model) is None
    del model.rpn_head, model.neck
    assert claimed_group(model) == 'C8'
    model.backbone, model.bbox_head = part('C3'), part('C3')
    assert claimed_group(model) is None, 'no turn of C3 maps the pixels onto themselves'
    del model.bbox_head
    model.backbone = part('C8')
    assert claimed_group(model) is None, 'without a head, no boxes'


def test_thresholds_are_lowered_and_never_raised():
    model = Stub()
    model.head = Stub()
    model.head.test_cfg = dict(score_thr=0.001, nms_pre=2000, max_per_img=50, nms=dict(iou_threshold=0.1))
    lower_thresholds(model, 0.02, most=300)
    assert model.test_cfg == dict(score_thr=0.02)
    assert model.head.test_cfg == dict(score_thr=0.001, nms_pre=300, max_per_img=50, nms=dict(iou_threshold=0.1))
