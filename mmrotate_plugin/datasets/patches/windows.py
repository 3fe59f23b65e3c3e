"""Lay overlapping windows over an image, and find which objects each window holds."""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from ..dota_format import Annotation
from ..formats.boxes import area_of

CUT = 2  # difficulty of an object that an edge cuts, as mmrotate's splitter writes it
WHOLE = 1 - 1e-9  # share of an object that no edge cuts; the rest is round-off
_CLOSE = 1e-9  # of the share of an image in its window


class Window(NamedTuple):
    """A square cut from an image, which may reach beyond its right and lower edge.

    Attributes:
        x, y: Left and upper edge, pixels of the image.
        side: Pixels.
    """

    x: int
    y: int
    side: int


class Held(NamedTuple):
    """An object in a window.

    Attributes:
        place: Where it stands among the objects of the image.
        share: Part of its area in the image that lies in the window.
    """

    place: int
    share: float


def window_sides(sizes: Sequence[int], gaps: Sequence[int], rates: Sequence[float]) -> list[tuple[int, int]]:
    """Compute the sides of windows and their overlaps for each size and rate: both divided by the rate."""
    pairs = [(int(size / rate), int(gap / rate)) for rate in rates for size, gap in zip(sizes, gaps, strict=True)]
    return list(dict.fromkeys(pairs))


def lay_windows(width: int, height: int, sides: Sequence[tuple[int, int]], img_rate_thr: float) -> list[Window]:
    """Cover an image with windows, row by row.

    Neighbours overlap by the gap or, at the right and lower edge, by more. So what is no longer and no wider than the
    gap is whole in a window.

    Args:
        width, height: Of the image, pixels.
        sides: Side and gap of windows, pixels.
        img_rate_thr: Windows that the image fills by a smaller part of their area are left out, unless all are; then
            those stay that it fills best.
    """
    filled = [min(width, side) * min(height, side) / side**2 for side, _ in sides]
    least = min(img_rate_thr, max(filled)) - _CLOSE
    found = [
        Window(x, y, side)
        for (side, gap), part in zip(sides, filled, strict=True)
        if part >= least
        for y in _starts(height, side, gap)
        for x in _starts(width, side, gap)
    ]
    return list(dict.fromkeys(found))


def _starts(length: int, side: int, gap: int) -> list[int]:
    if length <= side:
        return [0]
    step = side - gap
    return [min(i * step, length - side) for i in range(math.ceil((length - side) / step) + 1)]


def objects_in_windows(
    objects: Sequence[Annotation], width: int, height: int, windows: Sequence[Window], iof_thr: float
) -> list[list[Held]]:
    """Find the objects of each window.

    Args:
        objects: Of the image, each with a part in it.
        width, height: Of the image, pixels.
        windows: See `lay_windows`.
        iof_thr: Smallest share of an object, of its area within the image.
    """
    if not objects:
        return [[] for _ in windows]
    polygons = np.array([one.polygon for one in objects], np.float64).reshape(-1, 4, 2)
    low, high = polygons.min(1).clip(0, (width, height)), polygons.max(1).clip(0, (width, height))
    hulls: dict[int, np.ndarray] = {}
    areas: dict[int, float] = {}
    found = []
    for window in windows:
        start = np.array(window[:2], np.float64)
        stop = np.minimum(start + window.side, (width, height))
        touches = ((low < stop) & (high > start)).all(1)
        inside = ((low >= start) & (high <= stop)).all(1)
        held = []
        for index in np.flatnonzero(touches).tolist():
            share = 1.0
            if not inside[index]:
                if index not in hulls:
                    hulls[index] = _hull(polygons[index])
                    areas[index] = _area_within(hulls[index], np.zeros(2), np.array((width, height)))
                share = _area_within(hulls[index], start, stop) / areas[index] if areas[index] > 0 else 0.0
            if share >= iof_thr:
                held.append(Held(index, min(share, 1.0)))
        found.append(held)
    return found


def moved(one: Annotation, held: Held, window: Window) -> Annotation:
    """Return an object in the pixels of a window; one that an edge cuts keeps all corners, and becomes difficult."""
    polygon = [value - window[place % 2] for place, value in enumerate(one.polygon)]
    difficulty = one.difficulty or (CUT if held.share < WHOLE else 0)
    return dataclasses.replace(one, polygon=polygon, difficulty=difficulty)


def _hull(polygon: np.ndarray) -> np.ndarray:
    """Return the convex hull of a polygon, (N, 2); it stands for a shape that is not convex."""
    order = cv2.convexHull((polygon - polygon.mean(0)).astype(np.float32), returnPoints=False)
    hull: np.ndarray = polygon[np.asarray(order).ravel()]
    return hull


def _area_within(polygon: np.ndarray, start: np.ndarray, stop: np.ndarray) -> float:
    """Compute the area of a convex polygon, (N, 2), within an upright rectangle.

    Sutherland and Hodgman, Reentrant Polygon Clipping, Communications of the ACM 17 (1974), one edge at a time.
    """
    points = (polygon - start).tolist()
    for axis, sign, limit in ((0, 1, 0.0), (1, 1, 0.0), (0, -1, stop[0] - start[0]), (1, -1, stop[1] - start[1])):
        kept: list[list[float]] = []
        for here, after in zip(points, [*points[1:], *points[:1]], strict=True):
            depth, next_depth = sign * (here[axis] - limit), sign * (after[axis] - limit)
            if depth >= 0:
                kept.append(here)
            if depth * next_depth < 0:
                part = depth / (depth - next_depth)
                kept.append([a + part * (b - a) for a, b in zip(here, after, strict=True)])
        points = kept
        if not points:
            return 0.0
    return area_of([value for point in points for value in point])
