"""How detections are compared: pairs within the tolerance, in any order; turns by half a circle are none."""

import math

import numpy as np
import pytest

from mmrotate_plugin.export.verification import Prediction, compare

RNG = np.random.default_rng(0)
COUNT = 400


def prediction(boxes, scores=None, labels=None, maps=None):
    boxes = np.asarray(boxes, np.float32)
    scores = np.linspace(0.9, 0.1, len(boxes), dtype=np.float32) if scores is None else scores
    labels = np.zeros(len(boxes), int) if labels is None else labels
    return Prediction(boxes, labels, scores, maps=[np.ones((1, 1, 2, 2), np.float32)] if maps is None else maps)


def boxes(count=COUNT):
    return np.concatenate([RNG.uniform(0, 500, (count, 4)), RNG.uniform(-1.5, 1.5, (count, 1))], 1)


def test_equal_detections_in_another_order_pass():
    given, order = boxes(), RNG.permutation(COUNT)
    labels = RNG.integers(0, 3, COUNT)
    scores = np.full(COUNT, 0.5, np.float32)
    found = compare(prediction(given, scores, labels), prediction(given[order], scores, labels[order]), 500, 1e-4)
    assert found.passes and (found.boxes, found.scores, found.alone, found.count) == (0, 0, 0, COUNT)


def test_differences_are_measured_in_their_units():
    given = boxes()
    moved = given + [0.02, 0, 0, 0, 0]
    found = compare(prediction(given), prediction(moved), 500, 1e-4)
    assert found.passes and found.boxes == pytest.approx(0.02 / 500, rel=1e-2)
    assert compare(prediction(given), prediction(moved), 100, 1e-4).alone == 2 * COUNT
    turned = compare(prediction(given), prediction(given + [0, 0, 0, 0, 5e-5]), 500, 1e-4)
    assert turned.passes and turned.boxes == pytest.approx(5e-5, rel=1e-2)
    assert compare(prediction(given), prediction(given + [0, 0, 0, 0, math.pi]), 500, 1e-4).passes
    scores = np.linspace(0.9, 0.1, COUNT, dtype=np.float32) + np.float32(3e-4)
    assert not compare(prediction(given), prediction(given, scores), 500, 1e-4).passes
    assert compare(prediction(given[:, :4]), prediction(given[:, :4]), 500, 1e-4).passes


@pytest.mark.parametrize(('lost', 'passes'), [(1, True), (4, True), (5, False)])
def test_one_in_a_hundred_may_be_decided_otherwise(lost, passes):
    given, scores = boxes(), np.linspace(0.9, 0.1, COUNT, dtype=np.float32)
    found = compare(prediction(given, scores), prediction(given[lost:], scores[lost:]), 500, 1e-4)
    assert found.alone == lost and found.passes == passes


def test_labels_and_maps_count():
    given = boxes()
    other = compare(prediction(given), prediction(given, labels=np.ones(COUNT, int)), 500, 1e-4)
    assert other.alone == 2 * COUNT and not other.passes
    maps = [np.full((1, 1, 2, 2), 1.001, np.float32)]
    found = compare(prediction(given), prediction(given, maps=maps), 500, 1e-4)
    assert found.maps == pytest.approx(1e-3, rel=1e-2) and not found.passes
    maps = [np.full((1, 1, 2, 2), np.nan, np.float32)] * 2
    assert not compare(prediction(given, maps=[np.ones((1, 1, 2, 2))] * 2), prediction(given, maps=maps), 500, 1).passes
    nothing = compare(prediction(given[:0]), prediction(given[:0]), 500, 1e-4)
    assert nothing.passes and nothing.count == 0
    assert not compare(prediction(given), prediction(given, maps=[np.ones((1, 1, 2, 3), np.float32)]), 500, 1e-4).passes
