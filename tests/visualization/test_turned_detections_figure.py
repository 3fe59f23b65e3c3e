"""The figure and the table of detections under turns."""

import math

import cv2
import numpy as np
import pytest

from mmrotate_plugin.visualization.plots.turned_detections import TurnPicture, turned_detections_figure
from mmrotate_plugin.visualization.plots.turned_table import turned_table

BOXES = np.array([[30.0, 30, 30, 12, 0.4], [70, 60, 20, 20, 0]])


def row(degrees, value, mirrored=False, lost=0):
    errors = {part: dict(median=value, max=2 * value) for part in ('centre', 'size', 'angle', 'score', 'corner')}
    counts = dict(detections=4, matched=4 - lost, lost=lost, new=1, near_squares=1)
    return dict(degrees=degrees, mirrored=mirrored, exact=degrees % 90 == 0, **counts, **errors)


def picture(image, lost=(), new=()):
    whole = np.ones(2, bool)
    return TurnPicture('45 degrees', image, BOXES, BOXES + [2, 0, 0, 0, 0], lost, new, whole, whole, disc=True)


def drawn(rows, *pictures):
    figure = turned_detections_figure(rows, pictures, title='a detector')
    return cv2.imdecode(np.frombuffer(figure, np.uint8), cv2.IMREAD_COLOR)


def painted(image, rgb):
    return int((np.abs(image[..., ::-1].astype(int) - rgb).max(-1) < 12).sum())


def test_lost_and_new_boxes_have_their_colours():
    image = np.full((100, 120, 3), 60, np.uint8)
    rows = [row(90, 0.0), row(45, 0.5)]
    plain, marked = drawn(rows, picture(image)), drawn(rows, picture(image, lost=[0], new=[1]))
    lost, new = (0xD5, 0x5E, 0x00), (0xCC, 0x79, 0xA7)
    assert painted(marked, lost) > painted(plain, lost) + 100 and painted(marked, new) > painted(plain, new) + 100
    right = plain[:, plain.shape[1] // 2 :]
    assert painted(right, (60, 60, 60)) > 10_000, 'the image itself'


@pytest.mark.parametrize('image', [np.zeros((50, 60), np.uint8), np.zeros((2000, 900, 7), np.uint16)])
def test_any_image_no_picture_and_no_pairs(image):
    assert drawn([row(90, 0.1)], *[picture(image)] * 4).shape == drawn([row(90, math.nan)]).shape


def test_the_table_says_what_counts():
    lines = turned_table([row(90, 0.0), row(0, 0.002, mirrored=True), row(45, 0.5, lost=1), row(30, math.nan)])
    cells = [line.split() for line in lines.split('\n')]
    assert cells[0][:4] == ['angle', 'matched', 'lost', 'new']
    assert cells[1] == ['90', '4', 'of', '4', '0', '1', *['0'] * 8]
    assert cells[2][:3] == ['0,', 'mirrored', '4'] and cells[2][-2:] == ['2.0e-03', '4.0e-03']
    assert cells[3] == ['45', '(disc)', '3', 'of', '4', '1', '1', '0.5', '1', '50', '1e+02', '0.5', '1', '0.5', '1']
    assert cells[4][-8:] == ['-'] * 8
