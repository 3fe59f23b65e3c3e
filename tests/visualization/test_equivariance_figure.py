import math

import cv2
import numpy as np

from mmrotate_plugin.visualization.plots.equivariance import PanelRow, equivariance_figure


def decode(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


FIRST = np.array((180, 119, 31))  # matplotlib's C0, blue, green, red


def rows_of_curve(picture):
    """Rows of the pixels that have the colour of the first curve, between its axes (its legend is below)."""
    rows = np.nonzero((np.abs(picture.astype(int) - FIRST) < 40).all(axis=2))[0]
    return rows[rows < 0.75 * picture.shape[0]]


def test_curves_are_drawn_where_their_errors_are():
    angles = list(range(0, 361, 45))

    def curve(error, *rest):
        errors = {'stage0': [error, *rest] * (len(angles) // (1 + len(rest)) + 1)}
        picture = equivariance_figure(
            angles, {k: v[: len(angles)] for k, v in errors.items()}, {}, [], title='', dpi=80
        )
        return rows_of_curve(decode(picture))

    small, large, missing, gaps = curve(1e-6), curve(1e-1), curve(math.inf), curve(1e-1, math.inf, math.inf)
    assert len(small) > 300 and len(large) > 300
    assert np.median(large) < np.median(small) - 100  # five decades higher
    assert len(missing) == 0 < len(gaps) < len(large) / 2


def test_curves_alone_and_with_maps():
    errors = {'stage0': [1e-7, 0.0, math.inf, 0.2]}
    angles = [90, 180, 270, 315]
    curves = decode(equivariance_figure(angles, errors, {}, [], title='curves', dpi=50))
    image = np.full((9, 9, 3), (1.0, 0.0, 0.0))  # red, as matplotlib has it
    maps = np.random.default_rng(0).random((2, 5, 7))
    rows = [
        PanelRow('net', image, *maps, error=0.1, change=1.2),
        PanelRow('constant', image, maps[0] * 0, maps[0] * 0, error=0.0, change=math.nan),
    ]
    both = decode(equivariance_figure(angles, errors, errors, rows, title='both', tolerance=1e-5, dpi=50))
    assert both.shape[1] > 1.5 * curves.shape[1]
    left = both[:, : both.shape[1] * 2 // 5]
    assert len(rows_of_curve(left)) > 0 < len(rows_of_curve(curves))
    assert ((both == (0, 0, 255)).all(axis=2)).sum() > 2 * 40**2, 'two red inputs'
