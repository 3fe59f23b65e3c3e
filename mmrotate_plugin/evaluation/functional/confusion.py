"""Count which classes are taken for which, background included."""

from collections.abc import Iterable

import numpy as np

from ...structures.rotated_iou import rotated_iou
from .mean_ap import Image


def confusion_matrix(
    images: Iterable[Image], num_classes: int, *, score_thr: float = 0.3, iou_thr: float = 0.5
) -> np.ndarray:
    """Count pairs of an object and a detection, whatever their classes.

    In each image, pairs are formed in the order of falling overlap, down to `iou_thr`; each object and each detection
    is in one pair at most. Of pairs with equal overlaps, the detection that comes first, then the object that comes
    first, has its turn. Detections without a partner that overlap an ignored object by `iou_thr` are left out, as
    ignored objects are.

    Args:
        images: See `parts_of_class`.
        num_classes: Number of classes C; labels are 0 to C - 1.
        score_thr: Detections with a smaller score are left out.
        iou_thr: Smallest overlap of a pair.

    Returns:
        (C + 1, C + 1) counts: rows are classes of objects, columns of detections; the last of both is background, so
        the last column holds missed objects, and the last row false detections.
    """
    matrix = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    for image in images:
        kept, counted = image['scores'] >= score_thr, ~image['gt_ignored']
        found, true = image['labels'][kept].astype(int), image['gt_labels'][counted].astype(int)
        ious = rotated_iou(image['bboxes'][kept], image['gt_bboxes'])
        partner = pair_by_overlap(ious[:, counted], iou_thr)
        paired = partner >= 0
        np.add.at(matrix, (true[partner[paired]], found[paired]), 1)
        missed = np.ones(len(true), dtype=bool)
        missed[partner[paired]] = False
        np.add.at(matrix[:, -1], true[missed], 1)
        false = ~paired & ~(ious[:, ~counted] >= iou_thr).any(1)
        np.add.at(matrix[-1], found[false], 1)
    return matrix


def pair_by_overlap(ious: np.ndarray, iou_thr: float) -> np.ndarray:
    """Form pairs in the order of falling overlap.

    Args:
        ious: (N, M) overlaps of detections and objects.
        iou_thr: Smallest overlap of a pair.

    Returns:
        (N,) indices of objects, -1 without a partner.
    """
    partner, taken = np.full(len(ious), -1), np.zeros(ious.shape[1], dtype=bool)
    rows, columns = np.nonzero(ious >= iou_thr)
    for i in np.argsort(-ious[rows, columns], kind='stable'):
        if partner[rows[i]] < 0 and not taken[columns[i]]:
            partner[rows[i]], taken[columns[i]] = columns[i], True
    return partner
