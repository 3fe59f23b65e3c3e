"""Where the sides of a box may lie: the area within a standard deviation of each."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .box_residuals import ROTATED, as_rotated, box_pair
from .pdq import edge_variance

POINTS = 17  # along each side, for the fan of the angle
Curve = NDArray[np.float64]


def box_bands(boxes: Any, std: Any, sigmas: float = 1.0) -> list[tuple[Curve, Curve]]:
    r"""The one-sigma band of each box, between an outer and an inner curve.

    At the distance t from its middle, a side lies within

    .. math::
        s(t) = \sqrt{s_c^2 + s_l^2 / 4 + s_a^2 t^2}

    of its place, from the centre (along the side's normal), the length and the angle, which makes the band fan out
    towards the corners; a side of a horizontal box has its own deviation. `spatial_quality` takes the same model.

    Args:
        boxes, std: (N, 5) or (N, 4), pixels and radians.
        sigmas: Half the width of the band in standard deviations.

    Returns:
        For each box two closed curves, (P, 2) pixels of the image. The inner one shrinks to a line or point where the
        band covers all of the box.

    Raises:
        ValueError: If the boxes are of another kind, or the deviations of another shape.
    """
    boxes, std = box_pair(boxes, std)
    if len(boxes) != len(std):
        raise ValueError(f'boxes is {boxes.shape} and std is {std.shape}; they must have one shape')
    rotated = as_rotated(boxes)
    edges = edge_variance(boxes, std)
    turn = std[:, 4] if boxes.shape[1] == len(ROTATED) else np.zeros(len(boxes))
    cos, sin = np.cos(rotated[:, 4]), np.sin(rotated[:, 4])
    axes = np.stack([cos, sin, -sin, cos], axis=1).reshape(-1, 2, 2)  # of rows: place in the frame times this
    return [
        tuple(_curve(box[2:4] / 2, edge, angle, sign * sigmas) @ frame + box[:2] for sign in (1, -1))
        for box, edge, angle, frame in zip(rotated, edges, turn, axes, strict=True)
    ]


def _curve(half: Curve, edges: Curve, turn: float, sigmas: float) -> Curve:
    """In the frame of one box, its sides moved outwards by so many standard deviations, (P, 2)."""

    def reach(side: int, along: Any) -> Any:
        """Distance of a side (left, top, right, bottom) from the centre."""
        moved = half[side % 2] + sigmas * np.sqrt(edges[side] + (turn * along) ** 2)
        return np.maximum(moved, 0)

    w, h = half
    left, top, right, bottom = reach(0, h), reach(1, w), reach(2, h), reach(3, w)
    steps = np.linspace(0, 1, POINTS)
    down, across = steps * (top + bottom) - top, steps * (left + right) - left
    return np.concatenate(
        [
            np.stack([across, -reach(1, across)], axis=1),
            np.stack([reach(2, down), down], axis=1),
            np.stack([across[::-1], reach(3, across[::-1])], axis=1),
            np.stack([-reach(0, down[::-1]), down[::-1]], axis=1),
        ]
    )
