"""Read the labels of a data sample."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ...structures.rotated_iou import as_array
from ..errors import EvaluationError


class Truth(NamedTuple):
    """Objects of one image, ignored ones last.

    Attributes:
        bboxes: (M, D).
        labels: (M,).
        ignored: (M,), whether to ignore an object (a difficult one).
    """

    bboxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray


def is_labelled(sample: Mapping[str, Any]) -> bool:
    """Whether the pipeline loaded labels, even if there are no objects."""
    return 'bboxes' in (sample.get('gt_instances') or {})


def truth_of(sample: Mapping[str, Any], columns: int = 5, *, same_kind: bool = False) -> Truth:
    """Read the objects of a sample as the evaluator hands it to metrics; none if it has no labels.

    Args:
        sample: Dict with `gt_instances` and `ignored_instances`.
        columns: Columns of the detections, and of the result where there are no objects.
        same_kind: Refuse boxes of another kind than the detections.

    Raises:
        EvaluationError: If the boxes are of different kinds, or one is not finite.
    """
    boxes, labels, ignored = [], [np.zeros(0)], [np.zeros(0, dtype=bool)]
    for field in ('gt_instances', 'ignored_instances'):
        instances = sample.get(field) or {}
        found = as_array(instances['bboxes']) if 'bboxes' in instances else np.zeros((0, columns))
        if not len(found):  # of any shape
            continue
        if found.ndim != 2 or not np.isfinite(found).all():
            raise EvaluationError(f'{name_of(sample)}: bboxes of {field} are {found.shape} or not finite')
        if same_kind and found.shape[1] != columns:
            raise EvaluationError(
                f'{name_of(sample)}: bboxes of {field} are {found.shape}, and detections have {columns} columns; they '
                'must be boxes of one kind (ConvertBoxType in the test pipeline)'
            )
        boxes.append(found)
        labels.append(as_array(instances['labels']))
        ignored.append(np.full(len(found), field == 'ignored_instances'))
    if len({found.shape[1] for found in boxes}) > 1:
        raise EvaluationError(f'{name_of(sample)}: objects and ignored objects have boxes of two kinds')
    truth = np.concatenate(boxes) if boxes else np.zeros((0, columns))
    return Truth(truth, np.concatenate(labels), np.concatenate(ignored))


def name_of(sample: Mapping[str, Any]) -> str:
    return f'image {sample.get("img_id", "without img_id")}'
