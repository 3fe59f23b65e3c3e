"""Compute the average precision of detections as DOTA and VOC do."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ...structures.rotated_iou import Polygons
from .box_matching import IGNORED, match_boxes

Image = Mapping[str, np.ndarray]
RECALLS = np.arange(0.0, 1.1, 0.1)  # the levels of DOTA's program, with its rounding: 0.30000000000000004


class Part(NamedTuple):
    """Detections and objects of one class in one image.

    Attributes:
        scores, areas: (N,), of the detections.
        ious: (N, M) overlaps of detections and objects.
        truth_areas, ignored: (M,), of the objects.
    """

    scores: np.ndarray
    areas: np.ndarray
    ious: np.ndarray
    truth_areas: np.ndarray
    ignored: np.ndarray


class ClassAP(NamedTuple):
    """How well the objects of a class are found.

    Attributes:
        objects: Number of objects that count: not ignored, and within the range of areas.
        ignored: Number of the others.
        detections: Number of all detections, also of those that neither hit nor miss.
        recall: Fraction of the objects that are found; nan without objects.
        ap: Average precision; nan without objects.
    """

    objects: int
    ignored: int
    detections: int
    recall: float
    ap: float


class Ranking(NamedTuple):
    """Detections of one class over all images, the best score first.

    Attributes:
        scores: (N,), falling, of the detections that hit or miss.
        hits: (N,), whether a detection hits.
        objects, ignored, detections: See `ClassAP`.
    """

    scores: np.ndarray
    hits: np.ndarray
    objects: int
    ignored: int
    detections: int


def parts_of_class(images: Iterable[Image], label: int) -> list[Part]:
    """Compute the overlaps in all images, once for all thresholds.

    Args:
        images: For each image a dict of arrays `bboxes` (N, D), `scores` and `labels` (N,), `gt_bboxes` (M, D),
            `gt_labels` and `gt_ignored` (M,). The boxes are of any kind that `rotated_iou` takes.
        label: Label of the class.
    """
    parts = []
    for image in images:
        found, true = image['labels'] == label, image['gt_labels'] == label
        if found.any() or true.any():
            boxes, truth = Polygons(image['bboxes'][found]), Polygons(image['gt_bboxes'][true])
            scores, ignored = image['scores'][found], image['gt_ignored'][true]
            parts.append(Part(scores, boxes.area, boxes.all_ious(truth), truth.area, ignored))
    return parts


def rank_detections(
    parts: Sequence[Part], iou_thr: float = 0.5, *, side_range: Sequence[float] | None = None
) -> Ranking:
    """Match the detections of a class image by image (`match_boxes`), and rank them over all images.

    A detection matched to an ignored object is neither a hit nor a miss.

    Args:
        parts, iou_thr, side_range: See `class_ap`.
    """
    low, high = (-1.0, math.inf) if side_range is None else (side_range[0] ** 2, side_range[1] ** 2)
    objects = ignored = 0
    scores, hits = [np.zeros(0)], [np.zeros(0, dtype=bool)]
    for part in parts:
        left_out = part.ignored | ~((low <= part.truth_areas) & (part.truth_areas < high))
        ignored, objects = ignored + int(left_out.sum()), objects + int((~left_out).sum())
        one = np.zeros(len(part.scores)), np.zeros(len(left_out))  # of one class
        found = match_boxes(part.ious, part.scores, *one, left_out, iou_thr)
        counts = (found >= 0) | ((found != IGNORED) & (low <= part.areas) & (part.areas < high))
        scores.append(part.scores[counts])
        hits.append(found[counts] >= 0)
    order = np.argsort(-np.concatenate(scores), kind='stable')
    detections = sum(len(part.scores) for part in parts)
    return Ranking(np.concatenate(scores)[order], np.concatenate(hits)[order], objects, ignored, detections)


def class_ap(
    parts: Sequence[Part], iou_thr: float = 0.5, *, mode: str = '11points', side_range: Sequence[float] | None = None
) -> ClassAP:
    """Compute the average precision of a class over all images, from `rank_detections`.

    Args:
        parts: See `parts_of_class`.
        iou_thr: Smallest overlap of a hit.
        mode: '11points', the mean of the best precision at recalls of 0, 0.1, ..., 1 (VOC 2007, DOTA); 'area', the area
            below the curve (VOC 2010 and later).
        side_range: Pixels, (low, high): objects of an area outside [low^2, high^2) are ignored, and so are unmatched
            detections of such an area.
    """
    return ap_of(rank_detections(parts, iou_thr, side_range=side_range), mode)


def ap_of(ranking: Ranking, mode: str = '11points') -> ClassAP:
    """Compute the average precision of ranked detections; see `class_ap`."""
    _, hits, objects, ignored, detections = ranking
    if not objects:
        return ClassAP(0, ignored, detections, math.nan, math.nan)
    true = hits.cumsum()
    recall, precision = true / objects, true / np.arange(1, len(true) + 1)
    ap = average_precision(recall, precision, mode)
    return ClassAP(objects, ignored, detections, float(hits.sum() / objects), ap)


def average_precision(recall: np.ndarray, precision: np.ndarray, mode: str) -> float:
    """Summarise a curve, (N,) and (N,), recall ascending; 0 without detections."""
    best = np.maximum.accumulate(np.append(precision, 0.0)[::-1])[::-1]  # best precision at this recall or above
    if mode == '11points':
        return float(best[np.searchsorted(recall, RECALLS)].mean())
    return float((np.diff(recall, prepend=0.0) * best[:-1]).sum())


def mean_ap(classes: Iterable[ClassAP]) -> float:
    """Mean over the classes that have objects; nan if none has."""
    aps = [one.ap for one in classes if one.objects]
    return float(np.mean(aps)) if aps else math.nan
