"""Outline where the sides of boxes may lie: the band within a standard deviation of each."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...structures.corners import rotate
from .box_residuals import ROTATED, as_rotated, box_pair
from .pdq import edge_variance

POINTS = 17  # along each side, for the fan of the angle
Curve = NDArray[np.float64]


def box_bands(boxes: Any, std: Any, sigmas: float = 1.0) -> list[tuple[Curve, Curve]]:
    r"""Return the one-sigma band of each box, between an outer and an inner curve.

    At the distance t from its middle, a side lies within

    .. math::
        s(t) = \sqrt{s_c^2 + s_l^2 / 4 + s_a^2 t^2}

    of its position. The deviations are those of the centre (along the side's normal), of the length, and of the angle,
    which makes the band fan out towards the corners. A side of a horizontal box has a deviation of its own.
    `spatial_quality` uses the same model.

    Args:
        boxes, std: (N, 5) or (N, 4), pixels and radians.
        sigmas: Half the width of the band, in standard deviations.

    Returns:
        For each box two closed curves, (P, 2), in pixels of the image. The inner one shrinks to a line or a point
        where the band covers the whole box.

    Raises:
        ValueError: If boxes and deviations differ in shape, or have neither 4 nor 5 columns.
    """
    boxes, std = box_pair(boxes, std)
    if len(boxes) != len(std):
        raise ValueError(f'boxes is {boxes.shape} and std is {std.shape}; they must have one shape')
    rotated = as_rotated(boxes)
    edges = edge_variance(boxes, std)
    turn = std[:, 4] if boxes.shape[1] == len(ROTATED) else np.zeros(len(boxes))
    return [
        (_curve(box, edge, angle, sigmas), _curve(box, edge, angle, -sigmas))
        for box, edge, angle in zip(rotated, edges, turn, strict=True)
    ]


def _curve(box: Curve, edges: Curve, turn: float, sigmas: float) -> Curve:
    """Move the sides of one box outwards by `sigmas` standard deviations, (P, 2)."""
    half = box[2:4] / 2

    def reach(side: int, along: Any) -> Any:
        """Distance of a side (left, top, right, bottom) from the centre."""
        moved = half[side % 2] + sigmas * np.sqrt(edges[side] + (turn * along) ** 2)
        return np.maximum(moved, 0)

    w, h = half
    left, top, right, bottom = reach(0, h), reach(1, w), reach(2, h), reach(3, w)
    steps = np.linspace(0, 1, POINTS)
    down, across = steps * (top + bottom) - top, steps * (left + right) - left
    x = np.concatenate([across, reach(2, down), across[::-1], -reach(0, down[::-1])])
    y = np.concatenate([-reach(1, across), down, reach(3, across[::-1]), down[::-1]])
    return box[:2] + np.stack(rotate(x, y, np.cos(box[4:]), np.sin(box[4:])), axis=1)
