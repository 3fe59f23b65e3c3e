"""Suppress detections that overlap a better one, by the overlaps of `rotated_iou`."""

from typing import Any

import numpy as np

from .rotated_iou import Polygons, as_array

ROWS = 500  # boxes whose overlaps are computed at a time


def rotated_nms(boxes: Any, scores: Any, iou_thr: float, labels: Any = None) -> np.ndarray:
    """Keep the best of boxes that overlap, of any kind that `rotated_iou` takes.

    mmcv's `nms_rotated` and `nms_quadri` compute overlaps in float32, which may be 0 for a box and its copy, so that
    both stay.

    Args:
        boxes: (N, 4), (N, 5) or (N, 8).
        scores: (N,). Among equal scores the first wins.
        iou_thr: Boxes that overlap a better one by more are removed.
        labels: (N,); boxes of different classes do not suppress each other. None: all have one class.

    Returns:
        Indices of the boxes that stay, best first.

    Raises:
        ValueError: If the lengths differ, or values are not finite.
    """
    polygons, scores = Polygons(boxes), as_array(scores)
    labels = np.zeros(len(scores)) if labels is None else as_array(labels)
    if not len(polygons) == len(scores) == len(labels):
        raise ValueError(f'{len(polygons)} boxes, {len(scores)} scores and {len(labels)} labels; there must be as many')
    if not np.isfinite(scores).all():
        raise ValueError('scores are not finite')
    order = np.argsort(-scores, kind='stable')
    stays = np.ones(len(order), dtype=bool)  # by rank
    for start in range(0, len(order), ROWS):
        ranks = np.arange(start, min(start + ROWS, len(order)))
        ranks = ranks[stays[ranks]]
        rest = np.arange(start, len(order))
        rest = rest[stays[rest]]
        i, j = polygons[order[ranks]].neighbours(polygons[order[rest]])
        i, j = ranks[i], rest[j]
        later = (i < j) & (labels[order[i]] == labels[order[j]])
        i, j = i[later], j[later]
        over = polygons.ious(polygons, order[i], order[j]) > iou_thr
        i, j = i[over], j[over]
        for rank, losers in zip(*_groups(i, j), strict=True):  # in order of rank
            if stays[rank]:
                stays[losers] = False
    return order[stays]


def _groups(keys: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Group values by their keys, keys ascending."""
    order = np.argsort(keys, kind='stable')
    found, first = np.unique(keys[order], return_index=True)
    return found, np.split(values[order], first[1:]) if len(found) else []
