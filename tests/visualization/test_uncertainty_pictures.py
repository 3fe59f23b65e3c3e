"""Bands around boxes, and heat maps."""

import cv2
import numpy as np
import pytest

from mmrotate_plugin.visualization import draw_boxes, fill_bands, heat_map

GREEN = (0, 255, 0)


def square(low, high):
    return np.array([[low, low], [high, low], [high, high], [low, high]], dtype=float)


def test_only_the_area_between_the_curves_is_coloured():
    image = np.full((100, 100, 3), 90, np.uint8)
    fill_bands(image, [(square(20, 80), square(40, 60))], [GREEN])
    changed = (image != 90).any(axis=2)
    assert changed[25:36, 25:76].all() and changed[65:76, 25:76].all()
    assert not changed[43:58, 43:58].any() and not changed[:18].any() and not changed[83:].any()
    assert 90 < image[30, 30, 1] < 255  # the ground shines through
    before = image.copy()
    fill_bands(image, [(square(-50, -20), square(-40, -30)), (square(0, np.nan), square(0, 1))], [GREEN, GREEN])
    assert (image == before).all()


def test_less_certain_boxes_have_wider_bands():
    image = np.zeros((1200, 1200, 3), np.uint8)
    box = [[600, 600, 400, 200, 0.0]]
    area = []
    for half in (2, 8):
        outer, inner = (square(0, 1) * (400 + s, 200 + s) + (400 - s / 2, 500 - s / 2) for s in (2 * half, -2 * half))
        area.append(draw_boxes(image, box, colours=[GREEN], bands=[(outer, inner)]).any(axis=2).sum())
    text = 60 * 20  # of the label, at most
    assert abs(area[0] - 2 * 2 * 1200) < 2 * 1200 + text and abs(area[1] - 2 * 8 * 1200) < 2 * 1200 + text


def test_texts_say_the_deviation():
    image = np.zeros((600, 600, 3), np.uint8)
    plain = draw_boxes(image, [[300, 300, 200, 100, 0.3]], [0], [0.5], classes=['x'])
    more, less = (
        draw_boxes(image, [[300, 300, 200, 100, 0.3]], [0], [0.5], classes=['x'], scores_std=[std])
        for std in (0.04, 0.004)
    )
    width = [np.flatnonzero((p != image).any(axis=(0, 2))).size for p in (plain, more, less)]
    assert width[0] <= width[1] and (plain != more).any() and (more != less).any()


def test_the_sign_is_no_plus():
    from mmrotate_plugin.visualization.text import put_text, text_size

    signs = []
    for text in ('1\N{PLUS-MINUS SIGN}2', '1+2'):
        image = np.zeros((30, 60, 3), np.uint8)
        put_text(image, text, 2, 2, GREEN)
        signs.append(image)
        assert text_size(text) == text_size('1+2')
    added = (signs[0] != signs[1]).any(axis=2)
    rows, columns = np.nonzero(added)
    assert 0 < np.ptp(columns) < 10 and np.ptp(rows) == 0  # the stroke below


def test_wrong_numbers_of_bands_and_deviations():
    image = np.zeros((9, 9, 3), np.uint8)
    with pytest.raises(ValueError, match='1 boxes came with 0 bands'):
        draw_boxes(image, [[1, 1, 2, 2]], bands=[])
    with pytest.raises(ValueError, match='2 scores_std came with 1 scores'):
        draw_boxes(image, [[1, 1, 2, 2]], scores=[0.5], scores_std=[0.1, 0.1])


def test_heat_maps_are_brighter_where_values_are_larger():
    image = np.full((40, 60, 3), 90, np.uint8)
    values = np.tile(np.linspace(0, 0.3, 60), (40, 1))
    picture = heat_map(image, values, title='deviation')
    factor = 9  # 60 pixels to 512 or more
    height, width = picture.shape[:2]
    assert width > 60 * factor and height > 40 * factor
    head = height - 40 * factor - 6
    row = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)[head + 20 * factor, : 60 * factor].astype(int)
    assert (np.diff(row[:: 3 * factor]) > 0).all()
    flat = heat_map(image, values * 0, title='nothing')
    assert (flat[head + 9 : head + 300, 9:500] == flat[head + 9, 9]).all()


def test_heat_maps_of_one_scale_compare():
    image = np.full((520, 520, 3), 90, np.uint8)
    half, whole = (heat_map(image, np.full((520, 520), v), title='', largest=1.0)[-300, 200].sum() for v in (0.5, 1.0))
    own = heat_map(image, np.full((520, 520), 0.5), title='')[-300, 200].sum()
    assert half < whole == own


@pytest.mark.parametrize('values, text', [
    (np.zeros((5, 4)), r'\(5, 4\), but the image is \(4, 5\)'),
    (np.full((4, 5), np.nan), 'finite'),
    (np.full((4, 5), -1.0), 'not negative'),
])  # fmt: skip
def test_wrong_heat_maps(values, text):
    with pytest.raises(ValueError, match=text):
        heat_map(np.zeros((4, 5, 3), np.uint8), values, title='')
