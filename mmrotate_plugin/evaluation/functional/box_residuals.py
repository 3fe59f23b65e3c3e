"""Compare detections with ground truth: overlap, matching, residuals, and one uncertainty for a whole box.

Boxes are rotated, (cx, cy, w, h, angle), pixels and radians, the angle turning x towards y; or horizontal,
(x1, y1, x2, y2). Every function takes arrays or tensors of one of the two kinds, and returns arrays in float64.
"""

import math
from typing import Any

import numpy as np

from ...structures.rotated_iou import as_array, rotated_iou
from .box_matching import IGNORED, UNMATCHED, match_boxes

__all__ = [
    'HORIZONTAL',
    'IGNORED',
    'ROTATED',
    'UNMATCHED',
    'as_array',
    'as_rotated',
    'box_ious',
    'box_pair',
    'box_residuals',
    'box_uncertainty',
    'centre_variance',
    'coordinates',
    'match_boxes',
]

ROTATED = ('cx', 'cy', 'w', 'h', 'angle')
HORIZONTAL = ('x1', 'y1', 'x2', 'y2')


def coordinates(columns: int) -> tuple[str, ...]:
    """Names of a box's columns.

    Raises:
        ValueError: If `columns` is neither 4 nor 5.
    """
    for names in (HORIZONTAL, ROTATED):
        if len(names) == columns:
            return names
    raise ValueError(f'boxes have {columns} columns; they must be {ROTATED} or {HORIZONTAL}')


def box_pair(pred: Any, truth: Any) -> tuple[np.ndarray, np.ndarray]:
    """Convert two sets of boxes to arrays, (N, D) and (M, D), and check that they are of one kind.

    Raises:
        ValueError: If they are of two kinds, or of none.
    """
    pred, truth = as_array(pred), as_array(truth)
    if pred.ndim != 2 or truth.ndim != 2 or pred.shape[1] != truth.shape[1]:
        raise ValueError(f'pred is {pred.shape} and truth is {truth.shape}; both must be (N, 5), or both (N, 4)')
    coordinates(pred.shape[1])
    return pred, truth


def as_rotated(boxes: np.ndarray) -> np.ndarray:
    """Write boxes of either kind as rotated ones, (N, 5)."""
    if boxes.shape[1] == len(ROTATED):
        return boxes
    low, high = boxes[:, :2], boxes[:, 2:]
    return np.concatenate([(low + high) / 2, high - low, np.zeros((len(boxes), 1))], axis=1)


def box_ious(pred: Any, truth: Any) -> np.ndarray:
    """Intersection over union, (N, M); see `rotated_iou`."""
    return rotated_iou(*box_pair(pred, truth))


def box_residuals(pred: Any, truth: Any) -> np.ndarray:
    """Prediction minus ground truth, using the equivalent box parametrisation closest to the prediction.

    A rotated box has several parametrisations: the angle is modulo pi, and (w, h, angle) is (h, w, angle + pi / 2). The
    one with an angle within pi / 4 of the prediction's is taken, so angles of -89 and 89 degrees differ by 2.

    Args:
        pred, truth: (N, 5) or (N, 4), matched pairs.

    Returns:
        (N, 5) or (N, 4), in the coordinates of `pred`.

    Raises:
        ValueError: If they are not pairs of one kind.
    """
    pred, truth = box_pair(pred, truth)
    if len(pred) != len(truth):
        raise ValueError(f'pred has {len(pred)} boxes and truth has {len(truth)}; they must be pairs')
    residual = pred - truth
    if pred.shape[1] == len(HORIZONTAL):
        return residual
    turn = (residual[:, 4] + math.pi / 2) % math.pi - math.pi / 2
    swap = np.abs(turn) > math.pi / 4
    residual[swap, 2:4] = pred[swap, 2:4] - truth[swap, 3:1:-1]
    residual[:, 4] = np.where(swap, turn - np.copysign(math.pi / 2, turn), turn)
    return residual


def box_uncertainty(boxes: Any, std: Any) -> np.ndarray:
    r"""Combine the standard deviations of a box into one number: the part of the error 1 - IoU that they explain.

    To first order, 1 - IoU is the area between two boxes over their area: :math:`2 |\delta_x| / w` for a shift along
    the width, :math:`|\delta_w| / w` for the width itself, :math:`|\delta_a| (w^2 + h^2) / (2 w h)` for the angle, and
    :math:`|\delta| / w` for one edge of a horizontal box. With standard deviations for :math:`\delta`, the centre's
    turned into the box's frame, it is the root of the sum of squares:

    .. math::
        u^2 = \frac{4 s_x^2 + s_w^2}{w^2} + \frac{4 s_y^2 + s_h^2}{h^2} + s_a^2 \frac{(w^2 + h^2)^2}{4 w^2 h^2}

    Args:
        boxes, std: (N, 5) or (N, 4).

    Returns:
        (N,), infinite for a box without area.
    """
    boxes, std = box_pair(boxes, std)
    _, _, w, h, angle = as_rotated(boxes).T
    var = std**2
    with np.errstate(divide='ignore', invalid='ignore'):
        if boxes.shape[1] == len(HORIZONTAL):
            total = (var[:, 0] + var[:, 2]) / w**2 + (var[:, 1] + var[:, 3]) / h**2
        else:
            along, across = centre_variance(var, angle)
            total = (4 * along + var[:, 2]) / w**2 + (4 * across + var[:, 3]) / h**2
            total += var[:, 4] * (w / h + h / w) ** 2 / 4
    return np.where((w > 0) & (h > 0), np.sqrt(total), np.inf)


def centre_variance(var: np.ndarray, angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn variances of the centre along x and y, (N, 2 or more), into those along the width and the height."""
    c2, s2 = np.cos(angle) ** 2, np.sin(angle) ** 2
    return c2 * var[:, 0] + s2 * var[:, 1], s2 * var[:, 0] + c2 * var[:, 1]
