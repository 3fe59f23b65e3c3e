"""Weighted boxes: averages done by hand, angles across their seams, and views that agree."""

import math

import numpy as np
import pytest

from mmrotate_plugin.structures.box_fusion import fuse_boxes, fuse_deviations


def fuse(boxes, scores, views, count=2, labels=None, iou_thr=0.55):
    return fuse_boxes(np.array(boxes, float), scores, labels or [0] * len(boxes), views, count, iou_thr)


def test_two_boxes_become_their_weighted_mean():
    fused = fuse([[10, 20, 40, 20, 0.1], [14, 20, 44, 16, 0.1]], [0.9, 0.3], [0, 1])
    # weights 3/4 and 1/4
    assert np.allclose(fused.boxes, [[11, 20, 41, 19, 0.1]]) and np.allclose(fused.scores, [0.6])
    assert [rows.tolist() for rows in fused.members] == [[0, 1]] and fused.best.tolist() == [0]


def test_a_box_of_one_view_has_its_share_of_the_score():
    fused = fuse([[10, 20, 40, 20, 0.1], [90, 20, 44, 16, 0.1]], [0.9, 0.6], [0, 1], count=3)
    assert np.allclose(fused.scores, [0.3, 0.2]) and np.allclose(fused.boxes[0], [10, 20, 40, 20, 0.1])


DEGREE = math.pi / 180


@pytest.mark.parametrize(
    ('first', 'second', 'expected'),
    [
        ((40, 20, 89), (40, 20, -89), (40, 20, -90)),  # the seam of le90
        ((40, 20, -89), (40, 20, 89), (40, 20, -90)),
        ((40, 20, 134), (40, 20, -44), (40, 20, -45)),  # the seam of le135
        ((40, 20, 2), (20, 40, 88), (40, 20, 0)),  # the other name of a rectangle
        ((20, 40, 88), (40, 20, 2), (20, 40, -90)),
        ((40, 20, 3), (40, 20, 361), (40, 20, 2)),  # a whole turn
        ((30, 30, 44), (30, 30, -44), (30, 30, 45)),  # a square, of which they are one degree to each side of 45
    ],
)
def test_angles_are_averaged_across_their_seams(first, second, expected):
    boxes = [[10, 20, w, h, degrees * DEGREE] for w, h, degrees in (first, second)]
    (box,) = fuse(boxes, [0.8, 0.8], [0, 1]).boxes
    assert np.allclose(box[:4], [10, 20, *expected[:2]])
    assert abs(math.remainder(box[4] - expected[2] * DEGREE, math.pi)) < 1e-12
    assert -math.pi / 2 <= box[4] < math.pi / 2


def test_the_direction_is_the_weighted_mean_of_directions():
    boxes = [[0, 0, 40, 20, 0.0], [0, 0, 40, 20, 0.3]]
    (box,) = fuse(boxes, [0.9, 0.3], [0, 1]).boxes
    assert box[4] == pytest.approx(math.atan2(0.3 * math.sin(0.6), 0.9 + 0.3 * math.cos(0.6)) / 2)


def test_classes_are_kept_apart():
    fused = fuse([[10, 20, 40, 20, 0.1]] * 2, [0.9, 0.3], [0, 1], labels=[1, 2])
    assert fused.labels.tolist() == [1, 2]


def test_a_view_gives_one_member_at_most():
    boxes = [[10, 20, 40, 20, 0], [15, 20, 40, 20, 0]]  # overlap by 7/9
    fused = fuse(boxes * 3, [0.9, 0.8] * 3, [0, 0, 1, 1, 2, 2], count=3)
    assert np.allclose(fused.boxes, boxes) and np.allclose(fused.scores, [0.9, 0.8])
    merged = fuse(boxes, [0.9, 0.8], [0, 1])  # of two views, they are one object
    assert len(merged.boxes) == 1


def test_a_box_joins_the_average_that_it_overlaps_most():
    boxes = [[10, 20, 40, 20, 0], [22, 20, 40, 20, 0], [20, 20, 40, 20, 0]]
    fused = fuse(boxes, [0.9, 0.8, 0.7], [0, 0, 1], iou_thr=0.5)
    assert sorted(rows.tolist() for rows in fused.members) == [[0], [1, 2]]


def test_horizontal_boxes_are_averaged():
    fused = fuse([[0, 0, 40, 20], [4, 0, 44, 24]], [0.9, 0.3], [0, 1])
    assert np.allclose(fused.boxes, [[1, 0, 41, 21]])


def test_deviations_are_averaged_as_the_box_is_written():
    boxes = np.array([[10, 20, 40, 20, 0], [10, 20, 20, 40, math.pi / 2]])
    fused = fuse(boxes, [0.9, 0.3], [0, 1])
    std, scores_std = fuse_deviations(fused, boxes, [0.9, 0.3], [[1, 1, 2, 4, 0.1], [5, 1, 8, 6, 0.5]], [0.1, 0.2], 2)
    assert np.allclose(std, [[2, 1, 3, 5, 0.2]]) and np.allclose(scores_std, [0.15])


def test_nothing_becomes_nothing():
    fused = fuse_boxes(np.zeros((0, 5)), [], [], [], 4, 0.5)
    assert fused.boxes.shape == (0, 5) and len(fused.scores) == len(fused.labels) == len(fused.best) == 0


def test_scores_of_zero_have_a_mean():
    assert np.allclose(fuse([[0, 0, 4, 2, 0], [1, 0, 4, 2, 0]], [0, 0], [0, 1]).boxes, [[0.5, 0, 4, 2, 0]])


def test_polygons_are_refused():
    with pytest.raises(ValueError, match='must be rotated'):
        fuse([[0, 0, 4, 0, 4, 2, 0, 2]], [0.5], [0])
