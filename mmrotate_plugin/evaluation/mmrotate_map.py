"""Mend mmrotate's own evaluation while the commands of this package run it.

Each entry of `_mended` is a fault of onedl-mmrotate 1.2.1 or of the mmcv operator that it calls. A test in
tests/evaluation/test_mmrotate_map.py fails once the host is right; then remove the entry.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from multiprocessing import dummy
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import torch

from ..structures.rotated_iou import rotated_iou

_COLUMNS = {'rbox': 5, 'qbox': 8}


@contextmanager
def mended_evaluation() -> Iterator[None]:
    """Make mmrotate's own metrics, where a user's config names them, count right, and in threads."""
    patches = [mock.patch.object(*patch) for patch in _mended()]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


def _mended() -> Iterator[tuple[ModuleType, str, Any]]:
    """Yield modules, names in them, and what to put there."""
    for name in ('mmrotate.evaluation.functional.mean_ap', 'mmrotate.evaluation.metrics.rotated_coco_metric'):
        try:
            module = import_module(name)
        except ImportError:
            continue
        # it computes overlaps in float32, which depend on how a box is written; see `rotated_iou`
        for operator, columns in (('box_iou_rotated', 5), ('box_iou_quadri', 8)):
            if hasattr(module, operator):
                yield module, operator, _right_iou(getattr(module, operator), columns)
        # it forgets ignored objects in images without others: detections there count as false
        if hasattr(module, 'get_cls_results'):
            yield module, 'get_cls_results', class_results
        # each evaluation starts four processes that import torch and mmrotate: 45 s on two cores for six images
        if hasattr(module, 'get_context'):
            yield module, 'get_context', lambda _: dummy  # its Pool is one of threads


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
    """Return detections, objects and ignored objects of a class in each image, as mmrotate's `get_cls_results` does."""

    def chosen(annotation: Mapping[str, Any], suffix: str) -> np.ndarray:
        labels = np.asarray(annotation.get(f'labels{suffix}', ()))
        if not len(labels):
            return np.zeros((0, _COLUMNS[box_type]))
        return np.asarray(annotation[f'bboxes{suffix}'], dtype=np.float64)[labels == class_id]

    found = [image[class_id] for image in det_results]
    return found, [chosen(one, '') for one in annotations], [chosen(one, '_ignore') for one in annotations]
