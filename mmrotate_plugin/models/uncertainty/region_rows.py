"""Follow the detections of two-stage detectors back to the regions that they were decoded from."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.structures import InstanceData
from torch import Tensor

from ...structures import tensor_of
from ...utils.contexts import temporary_attributes
from .kept_rows import Reader, Rows, follows

FOLLOWED = {'_predict_by_feat_single': ('BBoxHead._predict_by_feat_single',)}


class RegionReader(Reader):
    """Follow the detections of mmdet's heads of regions, also of a cascade, whose logits are averaged.

    A detection has the score of its class in its region to the bit. Where several regions have this score, such as 1,
    the one with the nearest box is the one.
    """

    @classmethod
    def follows(cls, head: Any) -> bool:
        """Tell whether a head decodes its outputs as the heads do that this reader knows."""
        return follows(head, FOLLOWED) and head.with_reg and not head.custom_cls_channels

    @contextmanager
    def reading(self, head: Any) -> Iterator[None]:
        """Observe a head while it predicts once; what it predicts stays the same."""
        self.head = head
        self.images: list[tuple[dict[str, Any], InstanceData]] = []
        decode = head._predict_by_feat_single
        signature = inspect.signature(decode)

        def single(*args: Any, **kwargs: Any) -> Any:
            found = decode(*args, **kwargs)
            self.images.append((signature.bind(*args, **kwargs).arguments, found))
            return found

        with temporary_attributes(head, _predict_by_feat_single=single):
            yield

    def rows(self) -> list[Rows | None]:
        """Rows of each image, in their order; None where the head did what this reader cannot follow."""
        return [self._rows(given, found) for given, found in self.images]

    def _rows(self, given: dict[str, Any], found: InstanceData) -> Rows | None:
        logits, deltas, labels = given['cls_score'], given['bbox_pred'], found.labels
        start = self.start(deltas)
        if start is None:
            return None
        same = found.scores[:, None] == logits.softmax(-1)[:, labels].T  # (N, regions)
        if not same.any(1).all():
            return None
        if int(same.sum()) > len(same):
            number, region = same.nonzero().T
            raw = deltas[region[:, None], self._columns(labels[number])]
            boxes, _ = self._decode(given, logits[region], raw, region, labels[number])
            distance = torch.full_like(same, torch.inf, dtype=boxes.dtype)
            distance[number, region] = (boxes - found.bboxes[number]).abs().amax(1)
            region = distance.argmin(1)
        else:
            region = same.nonzero()[:, 1]  # one for each detection; also of no regions
        # all regions of the batch lie one behind the other in each output
        box_start = self.starts[-1]
        before = (start - box_start) // deltas.shape[1]
        classes = torch.arange(logits.shape[1], device=labels.device)
        stages = [first + (before + region[:, None]) * logits.shape[1] + classes for first in self.starts[:-1]]
        place = torch.cat([*stages, start + region[:, None] * deltas.shape[1] + self._columns(labels)], 1)

        def decode(raw: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
            *parts, box = raw.split([logits.shape[1]] * len(stages) + [self.head.bbox_coder.encode_size], 1)
            return self._decode(given, sum(parts) / float(len(parts)), box, region[which], labels[which])

        return Rows(place, decode, found.bboxes, found.scores)

    def _columns(self, labels: Tensor) -> Tensor:
        """Columns, (N, K), of the raw boxes of some classes."""
        size = self.head.bbox_coder.encode_size
        own = torch.zeros_like(labels) if self.head.reg_class_agnostic else labels
        return own[:, None] * size + torch.arange(size, device=labels.device)

    def _decode(
        self, given: dict[str, Any], logits: Tensor, deltas: Tensor, regions: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Decode raw outputs of some regions, (M, classes) and (M, K), as the head does."""
        from mmdet.structures.bbox import scale_boxes

        meta = given['img_meta']
        boxes = self.head.bbox_coder.decode(given['roi'][regions, 1:], deltas, max_shape=meta['img_shape'])
        if given.get('rescale', False):
            boxes = scale_boxes(boxes, [1 / scale for scale in meta['scale_factor']])
        return tensor_of(boxes), logits.softmax(-1).gather(1, labels[:, None])[:, 0]
