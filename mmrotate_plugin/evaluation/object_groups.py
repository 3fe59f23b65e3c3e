"""Break the errors of a detector down by size, aspect ratio and angle of the objects."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..structures.rotated_iou import rotated_iou
from .functional.box_matching import UNMATCHED, match_boxes
from .functional.box_residuals import as_rotated, box_residuals

EDGES: dict[str, tuple[float, ...]] = {
    'size': (0, 16, 32, 64, 128, math.inf),
    'aspect_ratio': (1, 1.5, 2.5, 4, 7, math.inf),
    'angle': (-90, -60, -30, 0, 30, 60, 90),
}
ROUND = 1.2  # aspect ratio below which a box has no angle to speak of


def error_groups(
    images: Sequence[Mapping[str, Any]], *, score_thr: float, iou_thr: float = 0.5
) -> dict[str, list[dict[str, Any]]]:
    """Count found and missed objects and false detections in groups, and measure how well those found fit.

    Detections are matched within their class (`match_boxes`). Groups are those of `EDGES`: the square root of the area
    in pixels; the long side over the short one; the direction of the long side in degrees, clockwise from x, of boxes
    with an aspect ratio of `ROUND` or more. False detections count by their own shape.

    Args:
        images: See `functional.mean_ap.parts_of_class`.
        score_thr: Detections with a smaller score are left out.
        iou_thr: Smallest overlap of a match.

    Returns:
        For each name of `EDGES` a list of dicts: `low`, `high`, `objects`, `found`, `recall`, `false`, `iou` (mean of
        those found), and medians of absolute errors, `centre` (pixels), `size` (relative), `angle` (degrees). Numbers
        about nothing are nan.
    """
    truth, found, false, fits = (np.zeros((0, 3)), np.zeros(0, bool), np.zeros((0, 3)), np.zeros((0, 4)))
    parts = [_of_image(image, score_thr, iou_thr) for image in images]
    if parts:
        truth, found, false, fits = (np.concatenate(column) for column in zip(*parts, strict=True))
    groups: dict[str, list[dict[str, Any]]] = {}
    for column, (name, edges) in enumerate(EDGES.items()):
        of_object, of_false = (_group(values[:, column], edges) for values in (truth, false))
        of_fit = of_object[found]
        groups[name] = [
            {
                'low': edges[i],
                'high': edges[i + 1],
                'objects': int((of_object == i).sum()),
                'found': int((of_fit == i).sum()),
                'recall': _mean(found[of_object == i]),
                'false': int((of_false == i).sum()),
                'iou': _mean(fits[of_fit == i, 0]),
                'centre': _median(fits[of_fit == i, 1]),
                'size': _median(fits[of_fit == i, 2]),
                'angle': _median(fits[of_fit == i, 3]),
            }
            for i in range(len(edges) - 1)
        ]
    return groups


def count_errors(image: Mapping[str, Any], *, score_thr: float, iou_thr: float = 0.5) -> dict[str, int]:
    """Count `objects`, `missed` ones and `false` detections of one image; see `error_groups`."""
    truth, found, false, _ = _of_image(image, score_thr, iou_thr)
    return {'objects': len(truth), 'missed': int((~found).sum()), 'false': len(false)}


def rotated_of(boxes: np.ndarray) -> np.ndarray:
    """Write boxes with 4, 5 or 8 columns as (cx, cy, w, h, angle), (N, 5); w, h are means of opposite sides."""
    if boxes.shape[-1] != 8:
        return as_rotated(boxes)
    corners = boxes.reshape(-1, 4, 2)
    sides = np.roll(corners, -1, axis=1) - corners
    along, across = sides[:, 0] - sides[:, 2], sides[:, 1] - sides[:, 3]
    w, h = (np.linalg.norm(each, axis=1) / 2 for each in (along, across))
    return np.column_stack([corners.mean(1), w, h, np.arctan2(along[:, 1], along[:, 0])])


def _of_image(
    image: Mapping[str, Any], score_thr: float, iou_thr: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return shapes of objects, whether each is found, shapes of false detections, and how well those found fit."""
    kept, counted = image['scores'] >= score_thr, ~image['gt_ignored']
    boxes, scores, labels = (image[name][kept] for name in ('bboxes', 'scores', 'labels'))
    ious = rotated_iou(boxes, image['gt_bboxes'])
    match = match_boxes(ious, scores, labels, image['gt_labels'], image['gt_ignored'], iou_thr)
    detection = np.full(len(counted), -1)
    hits = np.flatnonzero(match >= 0)
    detection[match[hits]] = hits
    detection = detection[counted]
    found = detection >= 0
    boxes, truth = rotated_of(boxes), rotated_of(image['gt_bboxes'])[counted]
    pairs, partners = boxes[detection[found]], truth[found]
    residual = np.abs(box_residuals(pairs, partners)) if len(pairs) else np.zeros((0, 5))
    with np.errstate(divide='ignore', invalid='ignore'):
        size = np.abs(np.sqrt(pairs[:, 2] * pairs[:, 3] / (partners[:, 2] * partners[:, 3])) - 1)
    overlap = ious[detection[found], np.flatnonzero(counted)[found]]
    fits = np.column_stack([overlap, np.hypot(residual[:, 0], residual[:, 1]), size, np.rad2deg(residual[:, 4])])
    fits[_shapes(partners)[:, 1] < ROUND, 3] = np.nan
    return _shapes(truth), found, _shapes(boxes[match == UNMATCHED]), fits


def _shapes(boxes: np.ndarray) -> np.ndarray:
    """Return size, aspect ratio and angle of rotated boxes, (N, 3); the angle of round ones is nan."""
    w, h, angle = boxes[:, 2:].T
    with np.errstate(divide='ignore', invalid='ignore'):
        ratio = np.maximum(w, h) / np.minimum(w, h)
    degrees = (np.rad2deg(np.where(w >= h, angle, angle + math.pi / 2)) + 90) % 180 - 90
    return np.column_stack([np.sqrt(w * h), ratio, np.where(ratio >= ROUND, degrees, np.nan)])


def _group(values: np.ndarray, edges: Sequence[float]) -> np.ndarray:
    """Return the index of the group of each value, -1 for none; the last edge belongs to its group."""
    index = np.searchsorted(edges, values, side='right') - 1
    index[values == edges[-1]] = len(edges) - 2
    return np.where(np.isfinite(values) | (values == math.inf), index, -1)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _median(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else math.nan
