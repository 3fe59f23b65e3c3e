"""Turn boxes about the centre of an image, and first reflect them, as the pixels move."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

HORIZONTAL, ROTATED, POLYGON = 4, 5, 8  # columns of boxes


def turned_size(size: Sequence[int], degrees: float) -> tuple[int, int]:
    """Return height and width of an image, (h, w), after a turn: exchanged by odd quarter turns, else kept."""
    return (size[1], size[0]) if degrees % 180 == 90 else (size[0], size[1])


def turn_matrix(degrees: float, size: Sequence[int], *, flip: bool = False) -> NDArray[np.float64]:
    """Return the map of points (x, y, 1) that turns an image about its centre.

    Pixel (row, column) covers the unit square from (column, row), as in mmdet and mmrotate, so the centre is
    (w / 2, h / 2). Multiples of 90 degrees are those of ``numpy.rot90``, without round-off.

    Args:
        degrees: Angle, counter-clockwise on the screen.
        size: Height and width of the image, pixels.
        flip: Whether to reflect left-right first.

    Returns:
        (3, 3).
    """
    quarters, rest = divmod(degrees, 90)
    if rest == 0:
        cos, sin = ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))[int(quarters) % 4]
    else:
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    linear = np.array([[-cos if flip else cos, sin], [sin if flip else -sin, cos]], np.float64)  # y points down
    before, after = np.array(size[1::-1]) / 2, np.array(turned_size(size, degrees)[::-1]) / 2
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = linear, after - linear @ before
    return matrix


def turn_boxes(boxes: ArrayLike, degrees: float, size: Sequence[int], *, flip: bool = False) -> NDArray[np.float64]:
    """Turn boxes together with their image, see `turn_matrix`.

    Args:
        boxes: (N, 5) as cx, cy, w, h, angle in radians from x towards y; (N, 8), four corners; or (N, 4) as x1, y1, x2,
            y2, which multiples of 90 degrees alone turn into boxes.
        degrees, size, flip: As in `turn_matrix`.

    Returns:
        Boxes of the same kind in float64. w stays w, and angles are in [-pi/2, pi/2).

    Raises:
        ValueError: For another number of columns, or horizontal boxes and another angle.
    """
    boxes = np.asarray(boxes, dtype=np.float64)
    columns = boxes.shape[-1]
    if boxes.ndim != 2 or columns not in (HORIZONTAL, ROTATED, POLYGON):
        raise ValueError(f'boxes are {boxes.shape}; they must be (N, 4), (N, 5) or (N, 8)')
    matrix = turn_matrix(degrees, size, flip=flip)
    if columns == ROTATED:
        centre = boxes[:, :2] @ matrix[:2, :2].T + matrix[:2, 2]
        angle = (-boxes[:, 4] if flip else boxes[:, 4]) - math.radians(degrees)
        angle = (angle + math.pi / 2) % math.pi - math.pi / 2
        return np.column_stack([centre, boxes[:, 2:4], angle])
    if columns == HORIZONTAL and degrees % 90:
        raise ValueError(f'degrees={degrees:g}: horizontal boxes turn by multiples of 90 degrees only')
    corners = boxes.reshape(len(boxes), -1, 2) @ matrix[:2, :2].T + matrix[:2, 2]
    if columns == HORIZONTAL:
        corners = np.sort(corners, axis=1)
    return corners.reshape(len(boxes), columns)
