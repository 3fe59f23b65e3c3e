"""Corners of rotated boxes, and the one rotation behind them, without torch."""

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from torch import Tensor

Values = TypeVar('Values', NDArray[Any], 'Tensor')

_ALONG, _ACROSS = np.array([-0.5, 0.5, 0.5, -0.5]), np.array([-0.5, -0.5, 0.5, 0.5])


def rotate(x: Values, y: Values, cos: Values, sin: Values) -> tuple[Values, Values]:
    """Rotate points from x towards y, clockwise on the screen; with `-sin` back again.

    Args:
        x, y: Arrays or tensors of points, such as places in the frame of a box.
        cos, sin: Of the angle, for instance that of the box; broadcast with the points.
    """
    return cos * x - sin * y, sin * x + cos * y


def box_corners(boxes: ArrayLike) -> NDArray[np.float64]:
    """Corners of boxes (cx, cy, w, h, angle), angles in radians from x towards y.

    Shape:
        - Input: (..., 5).
        - Output: (..., 4, 2), in float64. The edge from the first corner to the second runs along w, the next along h.
    """
    boxes = np.asarray(boxes, dtype=np.float64)
    centre, size, angle = boxes[..., None, :2], boxes[..., 2:4], boxes[..., 4:]
    x, y = rotate(_ALONG * size[..., :1], _ACROSS * size[..., 1:], np.cos(angle), np.sin(angle))  # (..., 4)
    return centre + np.stack([x, y], axis=-1)
