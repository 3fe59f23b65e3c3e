"""Match detections with objects."""

from typing import Any

import numpy as np

from ...structures.rotated_iou import as_array

UNMATCHED, IGNORED = -1, -2


def match_boxes(
    ious: np.ndarray, scores: Any, labels: Any, truth_labels: Any, ignored: Any, iou_thr: float = 0.5
) -> np.ndarray:
    """Match detections with ground truth as the VOC challenge does.

    In order of falling scores, each detection goes to the object of its class that it overlaps most, if by `iou_thr` or
    more. If that object has a detection already, this one is unmatched; if the object is to be ignored, so are all its
    detections. Everingham et al., IJCV 2010.

    Args:
        ious: (N, M) overlaps of detections and objects.
        scores, labels: (N,), of the detections.
        truth_labels, ignored: (M,), classes of the objects, and whether to ignore them.
        iou_thr: Smallest overlap of a match.

    Returns:
        (N,) indices of objects, UNMATCHED or IGNORED.
    """
    scores, labels, truth_labels = as_array(scores), as_array(labels), as_array(truth_labels)
    ignored = as_array(ignored).astype(bool)
    found = np.full(len(scores), UNMATCHED)
    if not len(truth_labels) or not len(scores):
        return found
    overlaps = np.where(labels[:, None] == truth_labels, ious, -1.0)
    best, most, taken = overlaps.argmax(1), overlaps.max(1), np.zeros(len(truth_labels), dtype=bool)
    order = np.argsort(-scores, kind='stable')
    for i in order[most[order] >= iou_thr]:
        j = best[i]
        if ignored[j]:
            found[i] = IGNORED
        elif not taken[j]:
            found[i], taken[j] = j, True
    return found
