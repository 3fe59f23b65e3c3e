"""Compute all that a report says about the detections of a data set, from their boxes and scores."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import ndtri

from ..structures.rotated_iou import rotated_iou
from .angle_curve import THRESHOLDS
from .functional.box_matching import IGNORED, match_boxes
from .functional.box_residuals import box_residuals, coordinates
from .functional.calibration_scores import NORMAL_COVERAGE, calibration_error, coverage, score_calibration_error
from .functional.confusion import confusion_matrix
from .functional.mean_ap import ap_of, parts_of_class, rank_detections
from .functional.score_curve import ScoreCurve, best_threshold, score_curve
from .object_groups import count_errors, error_groups

POINTS = 400  # of a curve in the numbers; the curves themselves have one for each score
BINS = 10
DEFAULT_SCORE = 0.3  # where F1 has no best threshold


def measure_detections(
    images: Sequence[Mapping[str, Any]],
    classes: Sequence[str],
    *,
    iou_thr: float = 0.5,
    score_thr: float | None = None,
    eval_mode: str = '11points',
    worst: int = 8,
) -> dict[str, Any]:
    """Count average precisions, curves, confusions, errors by shape, the worst images, and calibration.

    Args:
        images: For each image the arrays of `functional.mean_ap.parts_of_class`, and `img_id`; where known,
            `bboxes_std`, (N, D).
        classes: Names, by label.
        iou_thr: Smallest overlap of a hit, for all but the average precisions.
        score_thr: Detections below it are left out of confusions, errors and the worst images; by default the threshold
            with the largest F1 over all classes.
        eval_mode: See `functional.mean_ap.class_ap`.
        worst: Number of images to name, those with the most errors.

    Returns:
        Numbers, texts and lists of them. Numbers about nothing are nan.
    """
    names = list(classes)
    rows, rankings, means = [], [], []
    for label, name in enumerate(names):
        parts = parts_of_class(images, label)
        found = {thr: ap_of(rank_detections(parts, thr), eval_mode) for thr in THRESHOLDS}
        rankings.append(rank_detections(parts, iou_thr))
        aps = [one.ap for one in found.values()]
        one = found[0.5]
        curve = score_curve(rankings[-1:])
        rows.append(
            {
                'name': name,
                'objects': one.objects,
                'ignored': one.ignored,
                'detections': one.detections,
                'AP50': one.ap,
                'AP75': found[0.75].ap,
                'AP50_95': float(np.mean(aps)),
                'best': best_threshold(curve)._asdict(),
                'curve': thinned(curve),
            }
        )
        if one.objects:
            means.append((one.ap, found[0.75].ap, float(np.mean(aps))))
    values = np.mean(means, axis=0).tolist() if means else [math.nan] * 3
    mean = dict(zip(('AP50', 'AP75', 'AP50_95'), values, strict=True))
    together = score_curve(rankings)
    best = best_threshold(together)
    if score_thr is None:
        score_thr = DEFAULT_SCORE if math.isnan(best.threshold) else best.threshold
    errors = [count_errors(image, score_thr=score_thr, iou_thr=iou_thr) for image in images]
    order = sorted(range(len(errors)), key=lambda i: -(errors[i]['missed'] + errors[i]['false']))
    return {
        'images': len(images),
        'objects': sum(row['objects'] for row in rows),
        'detections': sum(row['detections'] for row in rows),
        'iou_thr': iou_thr,
        'score_thr': score_thr,
        'eval_mode': eval_mode,
        **mean,
        'best': best._asdict(),
        'curve': thinned(together),
        'classes': rows,
        'confusion': confusion_matrix(images, len(names), score_thr=score_thr, iou_thr=iou_thr).tolist(),
        'groups': error_groups(images, score_thr=score_thr, iou_thr=iou_thr),
        'worst': [
            {'index': i, 'image': str(images[i].get('img_id', i)), **errors[i]}
            for i in order[:worst]
            if errors[i]['missed'] + errors[i]['false']
        ],
        'scores': score_reliability(
            np.concatenate([np.zeros(0), *(one.scores for one in rankings)]),
            np.concatenate([np.zeros(0, dtype=bool), *(one.hits for one in rankings)]),
        ),
        'boxes': box_reliability(images, iou_thr=iou_thr),
    }


def thinned(curve: ScoreCurve, points: int = POINTS) -> dict[str, list[float]]:
    """Keep points of a curve, evenly spread over its ranks, and the one with the largest F1."""
    number = len(curve.threshold)
    kept = np.linspace(0, max(number - 1, 0), min(points, number)).round().astype(int)
    rows: np.ndarray = np.unique(kept)
    if number > points:
        rows = np.union1d(rows, [int(curve.f1.argmax())])
    return {name: values[rows].tolist() if number else [] for name, values in curve._asdict().items()}


def score_reliability(scores: np.ndarray, hits: np.ndarray, num_bins: int = BINS) -> dict[str, Any]:
    """Compare scores with the precision of detections of that score.

    Args:
        scores, hits: (N,), between 0 and 1; whether each is right.
        num_bins: Number of bins of equal width.

    Returns:
        `error`, see `score_calibration_error`; `bins`, with `low`, `high`, `count`, `score` and `precision`, the means.
        Nothing if scores are no probabilities.
    """
    if len(scores) and (scores.min() < 0 or scores.max() > 1):
        return {}
    index = np.minimum((scores * num_bins).astype(int), num_bins - 1)
    bins = []
    for i in range(num_bins):
        rows = index == i
        means = [float(values[rows].mean()) if rows.any() else math.nan for values in (scores, hits)]
        edges = {'low': i / num_bins, 'high': (i + 1) / num_bins, 'count': int(rows.sum())}
        bins.append({**edges, 'score': means[0], 'precision': means[1]})
    return {'error': score_calibration_error(scores, hits, num_bins), 'bins': bins}


def box_reliability(images: Sequence[Mapping[str, Any]], *, iou_thr: float = 0.5) -> dict[str, Any]:
    """Compare the standard deviations of matched boxes with their residuals, coordinate by coordinate.

    Args:
        images: See `measure_detections`; those without `bboxes_std` are left out.
        iou_thr: Smallest overlap of a match.

    Returns:
        `levels`, probabilities; for each coordinate its `name`, `error` (`calibration_error`), `coverage` of 1, 2 and 3
        standard deviations, and `found`, the fraction of residuals below the predicted quantile of each level; `pairs`,
        their number; `expected`, what a Gaussian covers. Nothing if there are no deviations or no pairs.
    """
    residuals, stds = [], []
    for image in images:
        boxes, truth = image['bboxes'], image['gt_bboxes']
        if image.get('bboxes_std') is None or boxes.shape[1:] != truth.shape[1:]:
            continue
        ious = rotated_iou(boxes, truth)
        match = match_boxes(ious, image['scores'], image['labels'], image['gt_labels'], image['gt_ignored'], iou_thr)
        rows = np.flatnonzero((match != IGNORED) & (match >= 0))
        residuals.append(box_residuals(boxes[rows], truth[match[rows]]))
        stds.append(image['bboxes_std'][rows])
    if not sum(map(len, residuals)):
        return {}
    residual, std = np.concatenate(residuals), np.concatenate(stds)
    levels = np.arange(1, 20) / 20
    found = [
        {
            'name': name,
            'error': calibration_error(residual[:, i], std[:, i]),
            'coverage': [coverage(residual[:, i], std[:, i], sigmas) for sigmas in NORMAL_COVERAGE],
            'found': (residual[:, i, None] <= std[:, i, None] * ndtri(levels)).mean(0).tolist(),
        }
        for i, name in enumerate(coordinates(residual.shape[1]))
    ]
    expected = list(NORMAL_COVERAGE.values())
    return {'pairs': len(residual), 'levels': levels.tolist(), 'coordinates': found, 'expected': expected}
