"""Bands of boxes beside boxes drawn at random."""

import numpy as np
import pytest

from mmrotate_plugin.evaluation.functional.box_bands import POINTS, box_bands

BOX = np.array([30.0, 40.0, 24.0, 10.0, 0.4])
STD = np.array([0.3, 0.2, 0.5, 0.4, 0.02])


def in_frame(points, box):
    x, y = (points - box[:2]).T
    c, s = np.cos(box[4]), np.sin(box[4])
    return np.stack([c * x + s * y, c * y - s * x], axis=1)


@pytest.mark.parametrize('scale', [(1, 1, 1, 1, 0), (0, 0, 0, 0, 0.1), (1, 1, 1, 1, 1)])
def test_sides_of_random_boxes_deviate_as_the_band_says(scale):
    """The right side, where it crosses lines across the box: an independent way to its place."""
    std, n = STD * scale, 40_000
    drawn = BOX + np.random.default_rng(0).normal(size=(n, 5)) * std
    outer, inner = (in_frame(curve, BOX) for curve in box_bands([BOX], [std])[0])
    for curve, sign in ((outer, 1), (inner, -1)):
        side = curve[POINTS : 2 * POINTS]  # from top to bottom
        for x, t in side[1:-1:4]:
            # on the side: (p - centre) . normal = w / 2, solved for p = (place, t) in the frame of BOX
            turn = drawn[:, 4] - BOX[4]
            dx, dy = in_frame(drawn[:, :2], BOX).T
            place = dx + (drawn[:, 2] / 2 - (t - dy) * np.sin(turn)) / np.cos(turn)
            sigma = sign * (x - BOX[2] / 2)
            # five standard errors of a standard deviation, and 1 % for what bends
            assert abs(sigma / place.std() - 1) < 5 / np.sqrt(2 * n) + 0.01


def test_the_angle_makes_it_fan_out():
    (outer, _), (straight, _) = box_bands([BOX, BOX], [STD, STD * (1, 1, 1, 1, 0)])
    reach = [in_frame(curve, BOX)[POINTS : 2 * POINTS, 0] for curve in (outer, straight)]
    assert reach[0][0] > reach[0][POINTS // 2] + 0.003 and np.ptp(reach[1]) < 1e-9


def test_sides_of_horizontal_boxes_have_their_own():
    outer, inner = box_bands([[10, 20, 50, 40]], [[1, 2, 3, 4]])[0]
    assert np.allclose([*outer.min(0), *outer.max(0)], [9, 18, 53, 44])
    assert np.allclose([*inner.min(0), *inner.max(0)], [11, 22, 47, 36])
    wide, _ = box_bands([[10, 20, 50, 40]], [[1, 2, 3, 4]], sigmas=2)[0]
    assert np.allclose(wide.min(0), [8, 16])


def test_certain_and_hopeless_boxes():
    (outer, inner), (_, point) = box_bands([BOX, BOX], [STD * 0, STD * 1000])
    assert np.allclose(outer, inner)
    assert np.allclose(np.abs(in_frame(outer, BOX)).max(0), BOX[2:4] / 2)
    assert np.allclose(point, BOX[:2])
    assert box_bands(np.zeros((0, 5)), np.zeros((0, 5))) == []


def test_wrong_shapes():
    with pytest.raises(ValueError, match='8 columns'):
        box_bands(np.zeros((1, 8)), np.zeros((1, 8)))
    with pytest.raises(ValueError, match='must have one shape'):
        box_bands([BOX, BOX], [STD])
