"""Compute overlaps of boxes as areas of polygons in float64, for every way to write a box."""

from typing import Any

import numpy as np
import torch

from .box_tensor import tensor_of
from .corners import box_corners

KINDS = {4: 'hbox (x1, y1, x2, y2)', 5: 'rbox (cx, cy, w, h, angle)', 8: 'qbox (x1, y1, ..., x4, y4)'}
CHUNK = 20_000  # pairs at a time: 5 MB per array of their polygons


def as_array(values: Any) -> np.ndarray:
    """Convert an array, a tensor on any device, a sequence or OpenMMLab's boxes to float64."""
    values = tensor_of(values)
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().double()  # NumPy has no bfloat16
    return np.asarray(values, dtype=np.float64)


def rotated_iou(boxes1: Any, boxes2: Any, *, is_aligned: bool = False) -> np.ndarray:
    """Compute the intersection over union of boxes of any kind, by clipping polygons in float64.

    A rectangle has many parametrisations: (w, h, angle), (h, w, angle + pi / 2), each plus any multiple of pi; its
    corners may begin with any of them. All give the same overlap. mmcv's `box_iou_rotated` computes in float32 and
    loses corners where edges coincide: a box overlaps itself by anything from 0 to 1, a thin one by more than 1. GEOS
    (shapely 2.1) gets about one in 2,000 overlaps of a rectangle and its second parametrisation wrong.

    Each pair is moved to the origin before it is clipped, so coordinates may be large. A box without area overlaps
    nothing, itself included. Four corners that do not form a convex polygon stand for their convex hull.

    Args:
        boxes1, boxes2: Arrays, tensors or OpenMMLab's boxes with 4, 5 or 8 columns, see `KINDS`; pixels and radians.
            The two may be of different kinds. An empty array of any shape means no boxes.
        is_aligned: Compare row by row instead of all with all.

    Returns:
        (N, M), or (N,) if aligned; between 0 and 1.

    Raises:
        ValueError: For another number of columns, values that are not finite, or (`is_aligned`) different lengths.
    """
    first, second = Polygons(boxes1), Polygons(boxes2)
    if is_aligned:
        if len(first) != len(second):
            raise ValueError(f'boxes1 has {len(first)} boxes and boxes2 has {len(second)}; aligned ones must be pairs')
        return first.ious(second, np.arange(len(first)), np.arange(len(first)))
    return first.all_ious(second)


class Polygons:
    """Boxes as centres and the corners around them.

    Args:
        boxes: See `rotated_iou`.

    Attributes:
        centre: (N, 2).
        corners: (N, 4, 2), relative to the centre, from x towards y.
        area: (N,), 0 if a side is 0 or negative.
    """

    def __init__(self, boxes: Any) -> None:
        boxes = as_array(boxes)
        if not boxes.size:
            boxes = np.zeros((0, 5))
        if boxes.ndim != 2 or boxes.shape[1] not in KINDS:
            raise ValueError(f'boxes are {boxes.shape}; they must have the columns of {" or ".join(KINDS.values())}')
        finite = np.isfinite(boxes).all(1)
        if not finite.all():
            bad = int(finite.argmin())
            raise ValueError(f'box {bad} is {boxes[bad].tolist()}; all coordinates must be finite')
        if boxes.shape[1] == 8:
            corners = boxes.reshape(-1, 4, 2)
            self.centre = corners.mean(1)
            self.corners = convex_quads(corners - self.centre[:, None])
            self.area = shoelace(self.corners)
            return
        if boxes.shape[1] == 5:
            self.centre, sides, angle = boxes[:, :2], boxes[:, 2:4].clip(0), boxes[:, 4]
        else:
            self.centre = boxes[:, :2] / 2 + boxes[:, 2:] / 2
            sides, angle = (boxes[:, 2:] - boxes[:, :2]).clip(0), np.zeros(len(boxes))
        self.corners = box_corners(np.column_stack([np.zeros_like(sides), sides, angle]))
        self.area = sides.prod(1)

    def __len__(self) -> int:
        return len(self.centre)

    def __getitem__(self, rows: np.ndarray) -> 'Polygons':
        part = object.__new__(Polygons)
        part.centre, part.corners, part.area = self.centre[rows], self.corners[rows], self.area[rows]
        return part

    def neighbours(self, other: 'Polygons') -> tuple[np.ndarray, np.ndarray]:
        """Return indices (K,) and (K,) of the pairs whose upright bounds meet; the others do not overlap."""
        low, high = (self.centre + part(self.corners, axis=1) for part in (np.min, np.max))
        other_low, other_high = (other.centre + part(other.corners, axis=1) for part in (np.min, np.max))
        found: list[np.ndarray] = [np.zeros((2, 0), dtype=int)]
        step = max(1, 2_000_000 // max(1, len(other)))
        for start in range(0, len(self), step):
            part = slice(start, start + step)
            meet = np.logical_and.reduce(
                [(low[part, None, d] <= other_high[:, d]) & (high[part, None, d] >= other_low[:, d]) for d in (0, 1)]
            )
            found.append(np.stack(meet.nonzero()) + [[start], [0]])
        i, j = np.concatenate(found, axis=1)
        return i, j

    def all_ious(self, other: 'Polygons') -> np.ndarray:
        """Compute the overlaps of all with all, (N, M)."""
        ious = np.zeros((len(self), len(other)))
        i, j = self.neighbours(other)
        ious[i, j] = self.ious(other, i, j)
        return ious

    def ious(self, other: 'Polygons', i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Compute the overlaps of the pairs (i, j), (K,)."""
        ious = np.zeros(len(i))
        pairs = np.flatnonzero((self.area[i] > 0) & (other.area[j] > 0))
        for rows in np.array_split(pairs, len(pairs) // CHUNK + 1) if len(pairs) else ():
            a, b = i[rows], j[rows]
            offset = other.centre[b] - self.centre[a]
            both = shoelace(clip(self.corners[a], other.corners[b] + offset[:, None]))
            both = np.minimum(both, np.minimum(self.area[a], other.area[b]))
            ious[rows] = both / (self.area[a] + other.area[b] - both)
        return ious


def clip(polygons: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Cut convex polygons by convex windows, edge by edge.

    A corner on a window's edge is kept, or replaced by its neighbour's crossing at most a rounding error away, so edges
    that coincide do no harm. Sutherland & Hodgman, Reentrant polygon clipping, CACM 1974.

    Args:
        polygons: (K, N, 2).
        windows: (K, M, 2), from x towards y.

    Returns:
        (K, L, 2); corners are repeated as padding, so that nothing left has no area.
    """
    for corner in range(windows.shape[1]):
        start, end = windows[:, corner], windows[:, (corner + 1) % windows.shape[1]]
        inside = cross((end - start)[:, None], polygons - start[:, None])  # (K, N), a distance times the edge's length
        following, beyond = np.roll(polygons, -1, axis=1), np.roll(inside, -1, axis=1)
        crosses = (inside < 0) != (beyond < 0)
        share = np.divide(inside, inside - beyond, out=np.zeros_like(inside), where=crosses)
        crossing = polygons + share[:, :, None] * (following - polygons)
        points = np.stack([polygons, crossing], axis=2).reshape(len(polygons), -1, 2)
        keep = np.stack([inside >= 0, crosses], axis=2).reshape(len(polygons), -1)
        count = keep.sum(1)
        order = np.argsort(~keep, axis=1, kind='stable')[:, : max(1, count.max(initial=0))]
        order = np.where(np.arange(order.shape[1]) < count[:, None], order, order[:, :1])
        polygons = np.take_along_axis(points, order[:, :, None], axis=1)
    return polygons


def convex_quads(corners: np.ndarray) -> np.ndarray:
    """Order the convex hulls of four points around the origin from x towards y, (N, 4, 2); triangles repeat a point."""
    angle = np.arctan2(corners[:, :, 1], corners[:, :, 0])
    corners = np.take_along_axis(corners, np.argsort(angle, axis=1, kind='stable')[:, :, None], axis=1)
    before, after = np.roll(corners, 1, axis=1), np.roll(corners, -1, axis=1)
    dent = cross(corners - before, after - corners) < 0
    return np.where(dent[:, :, None], before, corners)


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Compute cross products of vectors, (..., 2), in the plane."""
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def shoelace(polygons: np.ndarray) -> np.ndarray:
    """Compute the areas of polygons (N, M, 2) near the origin, (N,)."""
    return np.abs(cross(polygons, np.roll(polygons, -1, axis=1)).sum(1)) / 2
