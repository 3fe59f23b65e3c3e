"""Turn rotated boxes into corners and back, in double precision."""

import math
from collections.abc import Sequence

import cv2
import numpy as np

EXACT = 1e-3  # pixels; corners that lie closer to a rectangle's are its own


def corners_of(cx: float, cy: float, w: float, h: float, angle: float) -> list[float]:
    """Compute the corners of a box: x1, y1, ..., x4, y4.

    Args:
        cx: Centre, pixels.
        cy: Centre, pixels.
        w: Side along the angle, pixels.
        h: The other side.
        angle: Radians, clockwise as the image is seen (y points down). At 0 the first corner is the upper left one,
            and the second the upper right one.
    """
    cos, sin = math.cos(angle) / 2, math.sin(angle) / 2
    corners = []
    for along, across in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
        corners += [cx + along * w * cos - across * h * sin, cy + along * w * sin + across * h * cos]
    return corners


def smallest_rectangle(points: Sequence[float]) -> list[float]:
    """Compute the corners of the smallest rectangle around points x1, y1, x2, y2, ...

    OpenCV's `minAreaRect` in float32, about the mean of the points, so that large coordinates cost no precision.
    """
    xy = np.asarray(points, np.float64).reshape(-1, 2)
    x, y = xy.mean(0).tolist()
    (cx, cy), (w, h), degrees = cv2.minAreaRect((xy - (x, y)).astype(np.float32))
    return corners_of(cx + x, cy + y, w, h, math.radians(degrees))


def box_of(polygon: Sequence[float]) -> tuple[tuple[float, float, float, float, float], float]:
    """Compute the box (cx, cy, w, h, angle) of four corners, and how far its corners are from them.

    A rectangle's own box begins at its first corner. Other shapes get the smallest rectangle around them, as training
    does it.

    Returns:
        The box, pixels and radians from 0 to 2 pi, and the largest distance of a corner in pixels.
    """
    shift = 0.0
    corners = np.asarray(polygon, np.float64).reshape(4, 2)
    if not _is_rectangle(corners):
        rectangle = np.asarray(smallest_rectangle(polygon)).reshape(4, 2)
        distances = np.linalg.norm(corners[:, None] - rectangle, axis=2)
        shift = float(distances.min(1).max())
        corners = np.roll(rectangle, -int(distances[0].argmin()), 0)  # begins where the shape does
    first, ahead, across = corners[0], corners[1] - corners[0], corners[3] - corners[0]
    if ahead[0] * across[1] < ahead[1] * across[0]:  # listed counter-clockwise
        ahead, across = across, ahead
    centre = first + (ahead + across) / 2
    angle = math.atan2(ahead[1], ahead[0]) % (2 * math.pi)
    return (float(centre[0]), float(centre[1]), math.hypot(*ahead), math.hypot(*across), angle), shift


def area_of(polygon: Sequence[float]) -> float:
    """Compute the area of a polygon x1, y1, x2, y2, ..., in square pixels."""
    x, y = np.asarray(polygon, np.float64).reshape(-1, 2).T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def upright_box(polygon: Sequence[float]) -> list[float]:
    """Compute x, y, width and height of the upright box around points."""
    xy = np.asarray(polygon, np.float64).reshape(-1, 2)
    low, high = xy.min(0), xy.max(0)
    return [*low.tolist(), *(high - low).tolist()]


def _is_rectangle(corners: np.ndarray) -> bool:
    ahead, across = corners[1] - corners[0], corners[3] - corners[0]
    lengths = np.linalg.norm(ahead), np.linalg.norm(across)
    closes = np.abs(corners[0] + corners[2] - corners[1] - corners[3]).max() < EXACT
    # how far a corner of the rectangle on these sides is from the given one
    return bool(closes and min(lengths) > 0 and abs(ahead @ across) / max(lengths) < EXACT)
