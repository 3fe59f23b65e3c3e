"""Pairs of detections: known errors are found, thresholds and borders come between no pair, and boxes keep apart."""

import math

import numpy as np
import pytest

from mmrotate_plugin.evaluation.turned_detections import Found, compare_turned

BOXES = np.array([[50.0, 40, 40, 10, 0.3], [120, 60, 30, 12, -1.2], [60, 130, 20, 18, 0.7], [150, 150, 16, 8, 1.5]])


def found(boxes, scores=None, labels=None, counts=None):
    n = len(boxes)
    boxes = np.asarray(boxes, np.float64)
    scores = np.linspace(0.9, 0.5, n) if scores is None else np.asarray(scores, np.float64)
    labels = np.zeros(n, np.int64) if labels is None else np.asarray(labels)
    return Found(boxes, labels, scores, np.ones(n, bool) if counts is None else np.asarray(counts, bool))


def test_equal_sets_have_no_errors_in_any_order():
    order = [2, 0, 3, 1]
    scores = np.linspace(0.9, 0.5, 4)
    result = compare_turned(found(BOXES), found(BOXES[order], scores[order]))
    assert {tuple(pair) for pair in result.pairs} == {(i, order.index(i)) for i in range(4)}
    numbers = result.summary()
    assert (numbers['detections'], numbers['matched'], numbers['lost'], numbers['new']) == (4, 4, 0, 0)
    assert numbers['near_squares'] == 1 and len(result.lost) == len(result.new) == 0
    assert all(numbers[part] == dict(median=0, max=0) for part in ('centre', 'size', 'angle', 'score', 'corner'))


def test_known_errors_are_found():
    other = BOXES.copy()
    other[0, :2] += (3, -1)
    other[1, 2:4] *= (1.1, 0.95)
    other[2, 4] += 0.2  # a near-square
    other[3, 4] += math.radians(4)
    scores = np.linspace(0.9, 0.5, 4)
    errors = compare_turned(found(BOXES, scores), found(other, scores + [0, 0.02, 0, -0.05])).errors
    assert errors['centre'] == pytest.approx([10**0.5, 0, 0, 0], abs=1e-12)
    assert errors['size'] == pytest.approx([0, 0.1, 0, 0], abs=1e-12)
    assert errors['angle'] == pytest.approx([0, 0, math.nan, 4], abs=1e-9, nan_ok=True)
    assert errors['score'] == pytest.approx([0, 0.02, 0, 0.05], abs=1e-12)
    diagonal = math.hypot(16, 8)
    assert errors['corner'][3] == pytest.approx(diagonal * math.sin(math.radians(2)))
    assert errors['corner'][0] == pytest.approx(10**0.5)


def test_other_names_of_a_box_are_no_error():
    other = BOXES.copy()
    other[:, 4] += math.pi * np.array([1, -1, 2, 0])
    other[1] = [*BOXES[1, :2], BOXES[1, 3], BOXES[1, 2], BOXES[1, 4] + math.pi / 2]
    other[2] = [*BOXES[2, :2], BOXES[2, 3], BOXES[2, 2], BOXES[2, 4] - math.pi / 2]
    errors = compare_turned(found(BOXES), found(other)).errors
    assert all(np.nanmax(errors[part]) < 1e-9 for part in errors)
    seam = compare_turned(found([[50, 50, 40, 10, math.radians(89)]]), found([[50, 50, 40, 10, math.radians(-89)]]))
    assert seam.errors['angle'] == pytest.approx([2])


def test_a_long_box_across_is_an_error_of_90_degrees_and_not_of_its_sides():
    across = compare_turned(found([[50, 50, 13, 10, 0]]), found([[50, 50, 13, 10, math.pi / 2]]))
    assert across.errors['angle'] == pytest.approx([90]) and across.errors['size'] == pytest.approx([0])


def test_lost_and_new():
    other = np.concatenate([BOXES[1:], [[100, 100, 20, 10, 0]]])
    result = compare_turned(found(BOXES), found(other))
    assert result.lost.tolist() == [0] and result.new.tolist() == [3]
    labels = compare_turned(found(BOXES), found(BOXES, labels=[1, 0, 0, 0]))
    assert labels.lost.tolist() == [0] and labels.new.tolist() == [0], 'another class is another detection'
    far = BOXES + [30, 0, 0, 0, 0]
    assert compare_turned(found(BOXES), found(far)).summary()['lost'] == 4


def test_what_does_not_count_may_be_a_partner():
    """Of two equal detections, one may lie a hair below the threshold, or beyond the border."""
    counts = [True, True, False, False]
    result = compare_turned(found(BOXES, counts=counts), found(BOXES, counts=[False, True, True, False]))
    assert result.summary()['matched'] == 2 and len(result.lost) == len(result.new) == 0
    alone = compare_turned(found(BOXES, counts=counts), found(BOXES[3:], counts=[False]))
    assert alone.lost.tolist() == [0, 1] and alone.summary()['detections'] == 2


def test_crowds_are_paired_for_the_best_sum_and_equal_boxes_by_score():
    row = np.array([[10.0 + 8 * i, 50, 20, 10, 0] for i in range(6)])  # neighbours overlap by 0.43
    shifted = row + [1.5, 0, 0, 0, 0]
    assert compare_turned(found(row), found(shifted)).pairs.tolist() == [[i, i] for i in range(6)]
    twice = np.repeat(BOXES[:1], 2, axis=0)
    result = compare_turned(found(twice, [0.9, 0.4]), found(twice, [0.4, 0.9]))
    assert result.pairs.tolist() == [[0, 1], [1, 0]] and result.errors['score'].max() == 0


def test_nothing_and_horizontal_boxes():
    empty = found(np.zeros((0, 5)))
    assert compare_turned(empty, empty).summary()['matched'] == 0
    assert math.isnan(compare_turned(empty, found(BOXES)).summary()['centre']['max'])
    assert compare_turned(found(BOXES), empty).lost.tolist() == [0, 1, 2, 3]
    boxes = np.array([[10.0, 10, 40, 20]])
    errors = compare_turned(found(boxes), found(boxes + [0, 0, 3, 0])).errors
    assert errors['centre'] == pytest.approx([1.5]) and errors['size'] == pytest.approx([0.1])
    assert errors['corner'] == pytest.approx([3])
