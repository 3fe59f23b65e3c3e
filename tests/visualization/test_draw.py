import cv2
import numpy as np
import pytest

from mmrotate_plugin.visualization import class_colours, draw_boxes, encode_image, legend, side_by_side, to_polygons
from mmrotate_plugin.visualization.pixels import as_image

GREEN = (0, 255, 0)


def test_polygons_of_the_three_kinds_agree():
    angle = np.pi / 2
    upright = to_polygons([[10, 20, 50, 40]])
    turned = to_polygons([[30, 30, 20, 40, angle]])  # height along x after a quarter turn
    eight = to_polygons([[10, 20, 50, 20, 50, 40, 10, 40]])
    assert np.allclose(upright, eight)
    assert {tuple(p) for p in turned[0].round(6)} == {tuple(p) for p in upright[0]}


def test_angles_turn_from_x_towards_y_as_in_opencv():
    expected = cv2.boxPoints(((30, 40), (20, 10), 30.0))
    actual = to_polygons([[30, 40, 20, 10, np.radians(30)]])[0]
    assert {tuple(p) for p in actual.round(3)} == {tuple(p) for p in expected.astype(float).round(3)}


def test_empty_and_wrong_boxes():
    assert to_polygons(np.zeros((0, 5))).shape == (0, 4, 2)
    assert to_polygons([]).shape == (0, 4, 2)
    with pytest.raises(ValueError, match=r'\(2, 6\)'):
        to_polygons(np.zeros((2, 6)))
    with pytest.raises(ValueError, match='1 boxes came with 2 labels'):
        draw_boxes(np.zeros((9, 9, 3), np.uint8), [[1, 1, 2, 2]], [0, 1])


def test_outlines_are_where_the_box_is_and_the_input_is_untouched():
    image = np.full((600, 600, 3), 90, np.uint8)
    out = draw_boxes(image, [[300, 300, 200, 100, 0.3]], [0], classes=['x'], colours=[GREEN])
    assert (image == 90).all() and out.shape == image.shape
    for corner in to_polygons([[300, 300, 200, 100, 0.3]])[0]:
        x, y = corner.round().astype(int)
        assert (out[y - 3 : y + 4, x - 3 : x + 4] == GREEN).all(axis=2).any()
    assert (out[300, 300] == 90).all()


def test_the_picture_does_not_tell_front_from_back():
    image = np.zeros((600, 600, 3), np.uint8)
    box = np.array([[300.0, 300.0, 200.0, 100.0, 0.3]])
    turned = box + [0, 0, 0, 0, np.pi]
    one, other = draw_boxes(image, box).astype(int), draw_boxes(image, turned).astype(int)
    unlike = (np.abs(one - other) > 100).any(axis=2)  # antialiasing starts at another corner
    assert unlike.sum() < 0.02 * one.any(axis=2).sum()


@pytest.mark.parametrize(('side', 'factor'), [(64, 8), (193, 3), (511, 2), (512, 1), (1000, 1)])
def test_small_images_are_enlarged(side, factor):
    assert draw_boxes(np.zeros((side // 2, side, 3), np.uint8), [[1, 1, 9, 9]]).shape[1] == side * factor


def test_texts_do_not_cover_objects():
    image = np.zeros((600, 600, 3), np.uint8)
    rows = [[60.0 + 30 * i, 300.0, 24.0, 80.0, 0.0] for i in range(16)]
    out = draw_boxes(image, rows, [0] * 16, np.linspace(0.3, 0.9, 16), classes=['large-vehicle'], colours=[GREEN])
    texts = (out.astype(int) > 0).any(axis=2)
    inside = texts[268:332]
    lines = np.zeros_like(inside)
    for x, *_ in rows:
        lines[:, int(x) - 16 : int(x) - 7] = lines[:, int(x) + 7 : int(x) + 16] = True
    assert not (inside & ~lines).any()
    assert texts[:255].any()


def test_boxes_outside_not_finite_or_beyond_the_classes_are_no_crash():
    boxes = [[1e9, 1e9, 5, 5, 0], [np.nan, 0, 5, 5, 0], [-50, -50, 20, 20, 1.0], [5, 5, 4, 4, 0]]
    out = draw_boxes(np.zeros((20, 20), np.uint8), boxes, [0, 1, 2, 9], [1, 0.5, 0.2, 0.1], classes=['é'])
    assert out.shape == (520, 520, 3)


def test_colours_differ_and_a_palette_is_red_green_blue():
    assert len(set(class_colours(18))) == 18
    assert class_colours(1, [(255, 10, 0)]) == [(0, 10, 255)]
    assert class_colours(2, [(255, 10, 0)]) == class_colours(2)  # too short
    assert class_colours(2, 'random') == class_colours(2)


def test_side_by_side_keeps_the_pixels_and_adds_captions_and_legend():
    left, right = np.full((40, 50, 3), 7, np.uint8), np.full((30, 60, 3), 9, np.uint8)
    sheet = side_by_side([('ground truth', left), ('prediction with a long caption', right)], classes=['a', 'b'])
    assert sheet.shape[1] == 50 + 6 + 60
    assert (sheet[24:64, :50] == 7).all() and (sheet[24:54, 56:] == 9).all()
    assert side_by_side([('a', left)]).shape == (64, 50, 3)
    with pytest.raises(ValueError, match='at least one'):
        side_by_side([])


def test_the_legend_wraps():
    names = [f'class-number-{i}' for i in range(10)]
    assert legend(names, width=200).shape[0] > legend(names, width=4000).shape[0]


@pytest.mark.parametrize('shape', [(5, 6), (5, 6, 1), (5, 6, 2), (5, 6, 3), (5, 6, 4)])
def test_any_number_of_channels_is_an_image(shape):
    assert as_image(np.zeros(shape, np.float32)).shape == (5, 6, 3)


def test_wrong_images_and_suffixes_are_named():
    with pytest.raises(ValueError, match=r'\(5,\)'):
        as_image(np.zeros(5))
    with pytest.raises(ValueError, match=r"'\.nonsense'; use \.png"):
        encode_image(np.zeros((4, 4, 3), np.uint8), '.nonsense')
