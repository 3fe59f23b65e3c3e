"""Fuse the boxes that several views of an image give for one object."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .rotated_iou import Polygons, as_array
from .turns import HORIZONTAL, ROTATED


@dataclass(frozen=True)
class Fused:
    """Fused boxes, best first.

    Attributes:
        boxes: (M, 5) or (M, 4), of the kind that came.
        scores, labels: (M,).
        members: M arrays of indices of the boxes that came, best first.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    members: list[NDArray[np.intp]]

    @property
    def best(self) -> NDArray[np.intp]:
        """Index of the member with the highest score, (M,)."""
        return np.array([rows[0] for rows in self.members], dtype=np.intp)


def fuse_boxes(boxes: Any, scores: Any, labels: Any, views: Any, count: int, iou_thr: float) -> Fused:
    r"""Average the boxes of one object over the views, weighted by their scores.

    Boxes are taken best first; each joins the fused box that it overlaps most, by more than `iou_thr`, or begins one of
    its own. Solovyev, Wang & Gabruseva, Weighted boxes fusion, 2021 (arXiv:1910.13302). Two things are added:

    - A view gives a fused box one member at most. What a detector tells apart in a view stays apart, so that views
      which agree give what each of them gives, at any threshold.
    - A rectangle is (w, h, angle), (h, w, angle + pi / 2), and each of them plus pi. Members are written with an angle
      within pi / 4 of that of the best one before sides are averaged, and the angle is averaged as a direction:

    .. math::
        \theta = \theta_0 + \tfrac12 \operatorname{atan2}\Bigl(\sum_i s_i \sin 2 (\theta_i - \theta_0),
        \sum_i s_i \cos 2 (\theta_i - \theta_0)\Bigr)

    The score is the sum over the members divided by the number of views: a box that half of the views find has half of
    its score.

    Args:
        boxes: (N, 5), or (N, 4) as x1, y1, x2, y2, in one frame; pixels and radians.
        scores: (N,), non-negative.
        labels: (N,); boxes of different classes are never fused.
        views: (N,), number of the view of each box, from 0.
        count: Number of views, with those that found nothing.
        iou_thr: Overlap above which a box joins a fused one.

    Raises:
        ValueError: For boxes of another kind.
    """
    boxes, scores, labels = as_array(boxes), as_array(scores), as_array(labels).astype(np.int64)
    plain, views = _as_rotated(boxes), np.asarray(views)
    polygons = Polygons(plain)
    groups: list[NDArray[np.intp]] = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        groups += _group(plain, polygons, scores, views, rows[np.argsort(-scores[rows], kind='stable')], iou_thr)
    total = np.array([scores[rows].sum() / count for rows in groups])
    order = np.argsort(-total, kind='stable')
    groups = [groups[i] for i in order]
    fused = np.array([_average(plain[rows], scores[rows]) for rows in groups]).reshape(-1, ROTATED)
    if boxes.shape[-1] == HORIZONTAL:
        fused = np.column_stack([fused[:, :2] - fused[:, 2:4] / 2, fused[:, :2] + fused[:, 2:4] / 2])
    best = np.array([rows[0] for rows in groups], dtype=np.intp)
    return Fused(fused, total[order], labels[best], groups)


def fuse_deviations(
    fused: Fused, boxes: Any, scores: Any, std: Any, scores_std: Any, count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Average standard deviations over the members of fused boxes as `fuse_boxes` averages boxes and scores.

    The views share the noise of their image, so that their errors do not cancel, as independent ones would.

    Args:
        fused: Result of `fuse_boxes` for `boxes`, `scores` and `count`.
        std: (N, 5) or (N, 4), in the columns of the boxes.
        scores_std: (N,).

    Returns:
        (M, 5) or (M, 4), and (M,).
    """
    boxes, scores, std, scores_std = as_array(boxes), as_array(scores), as_array(std), as_array(scores_std)
    means = []
    for rows in fused.members:
        part = _swapped(boxes[rows], std[rows]) if boxes.shape[1] == ROTATED else std[rows]
        means.append(_mean(part, scores[rows]))
    totals = np.array([scores_std[rows].sum() / count for rows in fused.members])
    return np.array(means).reshape(-1, std.shape[-1]), totals


@dataclass
class _Group:
    """Boxes taken for one object, and their average so far."""

    members: list[int]
    seen: set[int]
    box: NDArray[np.float64] = field(default_factory=lambda: np.zeros(ROTATED))


def _group(
    boxes: NDArray[np.float64],
    polygons: Polygons,
    scores: NDArray[np.float64],
    views: NDArray[Any],
    order: NDArray[np.intp],
    iou_thr: float,
) -> list[NDArray[np.intp]]:
    """Sort the boxes of one class, best first, into objects."""
    groups: list[_Group] = []
    reach = np.hypot(boxes[:, 2], boxes[:, 3]) / 2
    places = np.zeros((len(order), 3))  # centre and half diagonal of each average
    for row in order:
        apart = np.hypot(*(places[: len(groups), :2] - boxes[row, :2]).T)
        near = np.flatnonzero(apart < places[: len(groups), 2] + reach[row])
        near = np.array([i for i in near if int(views[row]) not in groups[i].seen], dtype=np.intp)
        chosen = None
        if len(near):
            average = Polygons(np.array([groups[i].box for i in near]))
            ious = average.ious(polygons, np.arange(len(near)), np.full(len(near), row))
            if ious.max() > iou_thr:
                chosen = int(near[ious.argmax()])
        if chosen is None:
            chosen = len(groups)
            groups.append(_Group([], set()))
        group = groups[chosen]
        group.members.append(int(row))
        group.seen.add(int(views[row]))
        group.box = _average(boxes[group.members], scores[group.members])
        places[chosen] = *group.box[:2], math.hypot(*group.box[2:4]) / 2
    return [np.array(group.members, dtype=np.intp) for group in groups]


def _average(boxes: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average rectangles (N, 5), the first of which says how the result is written, (5,)."""
    if len(boxes) == 1:
        return boxes[0]
    turn, _ = _turns(boxes)
    w, h = _mean(_swapped(boxes, boxes)[:, 2:4], weights)
    cos, sin = _mean(np.stack([np.cos(2 * turn), np.sin(2 * turn)], axis=1), weights)
    angle = boxes[0, 4] + math.atan2(sin, cos) / 2
    centre = _mean(boxes[:, :2], weights)
    return np.array([*centre, w, h, (angle + math.pi / 2) % math.pi - math.pi / 2])


def _mean(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = weights if weights.sum() > 0 else np.ones(len(values))
    return np.asarray(weights @ values / weights.sum())


def _turns(boxes: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return angles relative to the first box, in [-pi/4, pi/4], and whether w and h change places for it."""
    turn = (boxes[:, 4] - boxes[0, 4] + math.pi / 2) % math.pi - math.pi / 2
    swap = np.abs(turn) > math.pi / 4
    return np.where(swap, turn - np.copysign(math.pi / 2, turn), turn), swap


def _swapped(boxes: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Write values in the columns of boxes, (N, 5), as the first box is written."""
    _, swap = _turns(boxes)
    return np.where(swap[:, None], values[:, [0, 1, 3, 2, 4]], values)


def _as_rotated(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    if not boxes.size:
        return np.zeros((0, ROTATED))
    if boxes.ndim != 2 or boxes.shape[1] not in (HORIZONTAL, ROTATED):
        raise ValueError(f'boxes are {boxes.shape}; weighted boxes must be rotated, (N, 5), or horizontal, (N, 4)')
    if boxes.shape[1] == ROTATED:
        return boxes
    low, high = boxes[:, :2], boxes[:, 2:]
    return np.column_stack([(low + high) / 2, high - low, np.zeros(len(boxes))])
