import math

import cv2
import numpy as np

from mmrotate_plugin.visualization.plots.equivariance import PanelRow, equivariance_figure


def decode(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


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
    assert ((both == (0, 0, 255)).all(axis=2)).sum() > 2 * 40**2, 'two red inputs'
