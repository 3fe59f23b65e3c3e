"""Windows cover an image, and say which share of an object they hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import Polygon, box

from mmrotate_plugin.datasets.dota_format import Annotation
from mmrotate_plugin.datasets.formats.boxes import corners_of
from mmrotate_plugin.datasets.patches.windows import (
    CUT,
    WHOLE,
    Held,
    Window,
    lay_windows,
    moved,
    objects_in_windows,
    window_sides,
)


def draw(number: int, width: int, height: int, longest: float, seed: int = 0) -> list[Annotation]:
    """Boxes at all angles, some beyond the edge, each with a part in the image."""
    rng = np.random.default_rng(seed)
    boxes = []
    while len(boxes) < number:
        cx, cy = rng.uniform((0, 0), (width, height))
        w = rng.uniform(4, longest)
        boxes.append(Annotation(corners_of(cx, cy, w, w * rng.uniform(0.2, 1), rng.uniform(0, np.pi)), 'ship'))
    return boxes


@settings(deadline=None, max_examples=100)
@given(
    st.integers(1, 500), st.integers(1, 500), st.integers(32, 200), st.floats(0, 0.95), st.floats(0, 1),
    st.floats(0, 1), st.floats(0, 1)
)  # fmt: skip
def test_what_is_no_larger_than_the_gap_is_whole_in_a_window(width, height, side, part, x, y, size):
    gap = int(side * part)
    windows = lay_windows(width, height, [(side, gap)], 0.6)
    reach = gap * size
    x, y = x * max(0, width - reach), y * max(0, height - reach)  # of a box within the image
    right, low = min(x + reach, width), min(y + reach, height)
    assert any(w.x <= x and w.y <= y and right <= w.x + side and low <= w.y + side for w in windows)
    assert all(w.x >= 0 and w.y >= 0 and (w.x + side <= width or w.x == 0) for w in windows)
    assert len(set(windows)) == len(windows)


def test_one_pixel_more_than_the_gap_can_be_cut_in_all():
    windows = lay_windows(100, 40, [(40, 20)], 0)
    assert [w.x for w in windows] == [0, 20, 40, 60]
    assert not any(w.x <= 19.5 and w.x + 40 >= 40.5 for w in windows)
    assert any(w.x <= 20 and w.x + 40 >= 40 for w in windows)


def test_sizes_and_rates_and_the_filled_part():
    assert window_sides([64, 128], [16, 32], [0.5, 1]) == [(128, 32), (256, 64), (64, 16)]
    sides = [(64, 16), (128, 32)]
    assert {w.side for w in lay_windows(64, 64, sides, 0.6)} == {64}  # of the larger one the image fills a quarter
    assert {w.side for w in lay_windows(64, 64, sides, 0.25)} == {64, 128}
    assert lay_windows(30, 20, sides, 0.6) == [Window(0, 0, 64)]  # none is filled, so the best stays


@pytest.mark.parametrize('iof_thr', [0.2, 0.7, 1.0])
def test_shares_are_those_of_shapely(iof_thr):
    width, height, side = 300, 220, 100
    objects = draw(60, width, height, 120)
    windows = lay_windows(width, height, [(side, 30)], 0.6)
    found = objects_in_windows(objects, width, height, windows, iof_thr)
    image, cut = box(0, 0, width, height), 0
    for window, held in zip(windows, found, strict=True):
        shares = {one.place: one.share for one in held}
        for place, one in enumerate(objects):
            shape = Polygon(np.reshape(one.polygon, (4, 2))).intersection(image)
            area = box(window.x, window.y, window.x + side, window.y + side)
            share = shape.intersection(area).area / shape.area
            if abs(share - iof_thr) > 1e-9:  # round-off of either decides a tie
                assert (place in shares) == (share > iof_thr)
            assert shares.get(place, share) == pytest.approx(share, abs=1e-9)
            cut += place in shares and share < WHOLE
    assert cut > 5 or iof_thr == 1.0


def test_shapes_that_are_not_convex_count_as_their_hull():
    dart = Annotation([0, 0, 40, 0, 10, 10, 0, 40], 'ship')  # its hull is a triangle of 800 square pixels
    ((held,),) = objects_in_windows([dart], 100, 100, [Window(0, 0, 20)], 0.1)
    hull = Polygon([(0, 0), (40, 0), (10, 10), (0, 40)]).convex_hull
    assert held.share == pytest.approx(hull.intersection(box(0, 0, 20, 20)).area / hull.area)
    assert objects_in_windows([], 10, 10, [Window(0, 0, 32)], 0.5) == [[]]


def test_an_object_beyond_the_edge_of_the_image_is_not_cut_by_a_window():
    half = Annotation([-20, 10, 20, 10, 20, 20, -20, 20], 'ship')
    assert objects_in_windows([half], 100, 100, [Window(0, 0, 50)], 1.0) == [[Held(0, 1.0)]]


def test_objects_move_and_cut_ones_become_difficult():
    one = Annotation([10, 20, 30, 20, 30, 30, 10, 30], 'ship', extra={'ignore_flag': 1})
    whole, part = moved(one, Held(0, 1.0), Window(5, 7, 64)), moved(one, Held(0, 0.9), Window(5, 7, 64))
    assert whole.polygon == [5, 13, 25, 13, 25, 23, 5, 23] and whole.difficulty == 0 and whole.extra == one.extra
    assert part.polygon == whole.polygon and part.difficulty == CUT
    assert moved(Annotation(one.polygon, 'ship', 1), Held(0, 0.9), Window(0, 0, 64)).difficulty == 1
