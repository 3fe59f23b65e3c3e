"""The figure of average precision over angles."""

import cv2
import numpy as np
import pytest

from mmrotate_plugin.visualization.plots.angle_curve import COLOURS, Curve, angle_figure

DEGREES = (0.0, 22.5, 45.0, 67.5, 90.0)


def picture(*curves, **options):
    return cv2.imdecode(np.frombuffer(angle_figure(curves, **options), np.uint8), cv2.IMREAD_COLOR)


def painted(image, colour):
    """How many pixels have very nearly a colour."""
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(image[..., ::-1].astype(int) - rgb).max(-1) < 6).sum())


def test_each_name_has_a_colour_and_runs_of_one_name_a_band():
    flat = Curve('fields to the end', DEGREES, ((0.95,) * 5, (0.9,) * 5))
    fallen = Curve('plain', DEGREES, ((0.96, 0.4, 0.2, 0.4, 0.9),))
    image = picture(flat, fallen, title='Average precision over the angle')
    assert image.shape[1] > 1000 and image.shape[0] > 500
    counts = [painted(image, colour) for colour in COLOURS]
    assert min(counts[:2]) > 300 and max(counts[2:5]) == 0
    pale = '#d6e6f1'  # the first colour at 16 % on white
    assert painted(image, pale) > 10 * painted(picture(fallen), pale)  # which has a few at the borders of lines


def test_higher_precision_is_drawn_higher():
    rows = []
    for value in (0.9, 0.2):
        image = picture(Curve('', DEGREES, ((value,) * 5,)))
        rgb = image[..., ::-1].astype(int)
        rows.append(np.nonzero(np.abs(rgb - [0, 0x72, 0xB2]).max(-1) < 6)[0].mean())
    assert rows[0] < rows[1] - 0.5 * 0.7 * image.shape[0]


def test_missing_values_many_curves_and_one_angle_are_drawn():
    many = [Curve(f'detector {i}', DEGREES, ((0.9, float('nan'), 0.9, 0.9, 0.9),)) for i in range(7)]
    assert picture(*many, Curve('detector 0', DEGREES, ((0.5,) * 5,), mirrored=True)).shape == picture(many[0]).shape
    assert picture(Curve('one', (0.0,), ((0.5,),)), clockwise=True) is not None
    assert picture(Curve('nothing', DEGREES, ((float('nan'),) * 5,))) is not None
    assert picture(Curve('circle', tuple(range(0, 360, 5)), ((0.5,) * 72,))) is not None


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match='curves is empty'):
        angle_figure([])
