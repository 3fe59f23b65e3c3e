"""mmrotate's evaluation, mended while the package's tools run it.

Each entry of `_mended` is a fault of onedl-mmrotate 1.2.1 or of mmcv's operator below it; a test beside it
(tests/evaluation/test_mmrotate_map.py) fails once the host is right, and then the entry goes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from multiprocessing.pool import ThreadPool
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import torch

from . import EvaluationError
from .functional import rotated_iou

_COLUMNS = {'rbox': 5, 'qbox': 8}


class _Threads:
    Pool = ThreadPool


@contextmanager
def mended_evaluation() -> Iterator[None]:
    """Let mmrotate's own metrics, where a user's config names them, count right, and in threads.

    Raises:
        UsageError: In place of an EvaluationError.
    """
    from ..utils.errors import UsageError

    patches = [mock.patch.object(*patch) for patch in _mended()]
    for patch in patches:
        patch.start()
    try:
        yield
    except EvaluationError as error:
        raise UsageError(str(error)) from error
    finally:
        for patch in patches:
            patch.stop()


def _mended() -> Iterator[tuple[ModuleType, str, Any]]:
    """Modules, names in them, and what is right."""
    for name in ('mmrotate.evaluation.functional.mean_ap', 'mmrotate.evaluation.metrics.rotated_coco_metric'):
        try:
            module = import_module(name)
        except ImportError:
            continue
        # float32 overlaps that depend on how a box is written; see `rotated_iou`
        for operator, columns in (('box_iou_rotated', 5), ('box_iou_quadri', 8)):
            if hasattr(module, operator):
                yield module, operator, _right_iou(getattr(module, operator), columns)
        # ignored objects are forgotten in images that hold no others: what is found there counts as false
        if hasattr(module, 'get_cls_results'):
            yield module, 'get_cls_results', class_results
        # four new processes per evaluation each import torch and mmrotate again: 45 s on two cores for six images
        if hasattr(module, 'get_context'):
            yield module, 'get_context', lambda _: _Threads


def _right_iou(original: Callable[..., Any], columns: int) -> Callable[..., Any]:
    def iou(boxes1: torch.Tensor, boxes2: torch.Tensor, mode: str = 'iou', aligned: bool = False, **others: Any) -> Any:
        if mode != 'iou' or not others.get('clockwise', True):
            return original(boxes1, boxes2, mode, aligned, **others)
        first, second = boxes1[:, :columns], boxes2[:, :columns]  # a column of scores may follow
        return torch.from_numpy(rotated_iou(first, second, is_aligned=aligned)).to(boxes1)

    return iou


def class_results(
    det_results: Sequence[Sequence[np.ndarray]], annotations: Sequence[Mapping[str, Any]], class_id: int, box_type: str
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Detections, objects and ignored objects of a class in each image, as mmrotate's `get_cls_results` gives them."""

    def chosen(annotation: Mapping[str, Any], suffix: str) -> np.ndarray:
        labels = np.asarray(annotation.get(f'labels{suffix}', ()))
        if not len(labels):
            return np.zeros((0, _COLUMNS[box_type]))
        return np.asarray(annotation[f'bboxes{suffix}'], dtype=np.float64)[labels == class_id]

    found = [image[class_id] for image in det_results]
    return found, [chosen(one, '') for one in annotations], [chosen(one, '_ignore') for one in annotations]
