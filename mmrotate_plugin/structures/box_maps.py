"""Find the map that a test pipeline applied to an image, and move boxes by a map."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .centred_scale import offset_of
from .turns import HORIZONTAL, POLYGON, ROTATED

ROUND_OFF = 1e-6  # of a map kept in float32, relative to its largest entry
SIMILAR = 1e-4  # by which a map may differ from a similarity


def detection_frame(meta: Mapping[str, Any]) -> NDArray[np.float64]:
    """Return the map of points (x, y, 1) from the file's image to the frame of its detections.

    `homography_matrix` leads to the network's input; every transform that moves pixels multiplies its own onto it.
    Heads undo the `scale_factor`, with its offset, and nothing else: what remains are turns and reflections. Those of
    the pixel grid are returned without the round-off of the float32 in which pipelines keep the matrix.

    Args:
        meta: Metainfo of a data sample.

    Returns:
        (3, 3).

    Raises:
        KeyError: If the metainfo has no `homography_matrix`.
        ValueError: If the map is neither a turn nor a reflection, at one scale.
    """
    scale = np.ravel(meta.get('scale_factor') or (1.0, 1.0))[:2].astype(np.float64)
    back = np.diag([*(1 / scale), 1.0])
    back[:2, 2] = -np.array(offset_of(meta)) / scale
    matrix = back @ np.asarray(meta['homography_matrix'], np.float64)
    whole = np.rint(matrix)
    if np.abs(matrix - whole).max() <= ROUND_OFF * (1 + np.abs(matrix).max()):
        matrix = whole
    scale_of(matrix)
    return matrix


def scale_of(matrix: NDArray[np.float64]) -> float:
    """Return the factor by which a map of points (x, y, 1) scales lengths.

    Raises:
        ValueError: If it has none, because it shears or scales the axes differently.
    """
    linear = matrix[:2, :2]
    squares = linear.T @ linear
    scale = math.sqrt(max(float(np.trace(squares)) / 2, 0.0))
    if scale == 0 or np.abs(squares / scale**2 - np.eye(2)).max() > SIMILAR or np.abs(matrix[2] - (0, 0, 1)).max() > 0:
        raise ValueError(f'the map {np.round(matrix, 4).tolist()} is not a turn or reflection at one scale')
    return scale


def turn_of(matrix: NDArray[np.float64]) -> tuple[float, bool]:
    """Return the turn of a map, degrees counter-clockwise in [0, 360), and whether it reflects left-right before."""
    flip = bool(np.linalg.det(matrix[:2, :2]) < 0)
    degrees = math.degrees(math.atan2(matrix[0, 1], matrix[1, 1])) % 360
    return (0.0 if degrees == 360 else degrees), flip


def map_boxes(boxes: ArrayLike, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Move boxes by a map of points that turns, reflects, shifts and scales.

    Args:
        boxes: (N, 5) as cx, cy, w, h, angle in radians from x towards y; (N, 8), four corners; or (N, 4) as x1, y1, x2,
            y2, which stay upright only under maps of the axes onto the axes.
        matrix: (3, 3), see `detection_frame`.

    Returns:
        Boxes of the same kind in float64. w stays w, and angles are in [-pi/2, pi/2). The identity changes nothing.

    Raises:
        ValueError: For another number of columns, another kind of map, or horizontal boxes that it would tilt.
    """
    boxes = np.asarray(boxes, dtype=np.float64)
    columns = boxes.shape[-1]
    if boxes.ndim != 2 or columns not in (HORIZONTAL, ROTATED, POLYGON):
        raise ValueError(f'boxes are {boxes.shape}; they must be (N, 4), (N, 5) or (N, 8)')
    scale = scale_of(matrix)
    if np.array_equal(matrix, np.eye(3)):
        return boxes.copy()
    linear, shift = matrix[:2, :2], matrix[:2, 2]
    if columns == ROTATED:
        along = np.stack([np.cos(boxes[:, 4]), np.sin(boxes[:, 4])], axis=1) @ linear.T
        angle = (np.arctan2(along[:, 1], along[:, 0]) + math.pi / 2) % math.pi - math.pi / 2
        return np.column_stack([boxes[:, :2] @ linear.T + shift, boxes[:, 2:4] * scale, angle])
    if columns == HORIZONTAL and np.abs(linear[0] * linear[1]).max() > SIMILAR * scale**2:
        raise ValueError('horizontal boxes turn by multiples of 90 degrees only')
    corners = boxes.reshape(len(boxes), -1, 2) @ linear.T + shift
    if columns == HORIZONTAL:
        corners = np.sort(corners, axis=1)
    return corners.reshape(len(boxes), columns)


def map_deviations(std: ArrayLike, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Move standard deviations along with their boxes, see `map_boxes`.

    Those of x and y are taken as independent; turns of the pixel grid exchange them, for which nothing is assumed.

    Args:
        std: (N, 5), (N, 8) or (N, 4), in the columns of the boxes.
        matrix: As in `map_boxes`.

    Returns:
        Of the same shape, in float64. The angle's do not change.
    """
    std = np.asarray(std, dtype=np.float64)
    linear, scale = matrix[:2, :2], scale_of(matrix)
    columns = std.shape[-1]
    if columns == ROTATED:
        return np.column_stack([np.sqrt(std[:, :2] ** 2 @ (linear**2).T), std[:, 2:4] * scale, std[:, 4]])
    points = np.sqrt(std.reshape(len(std), -1, 2) ** 2 @ (linear**2).T)
    if columns == HORIZONTAL:  # whose lower coordinates become the upper ones under a negative sign
        for axis in (0, 1):
            if linear[axis].sum() < 0:
                points[:, :, axis] = points[:, ::-1, axis].copy()
    return points.reshape(len(std), columns)
