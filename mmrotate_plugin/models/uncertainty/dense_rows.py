"""Follow the detections of dense heads back to the places of the maps that they were decoded from."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from ...structures import tensor_of
from ...utils.contexts import temporary_attributes
from .kept_rows import Reader, Rows, follows

FOLLOWED = {
    '_predict_by_feat_single': ('BaseDenseHead._predict_by_feat_single', 'RotatedFCOSHead._predict_by_feat_single'),
    '_bbox_post_process': ('BaseDenseHead._bbox_post_process',),
}
LOGITS, BOXES, ANGLES, FACTORS = 'cls_score_list', 'bbox_pred_list', 'angle_pred_list', 'score_factor_list'


@dataclass
class _Image:
    """What a head was given for an image, and what it made of it."""

    given: dict[str, Any]
    candidates: InstanceData | None = None  # scores and labels before suppression
    kept: Tensor | None = None  # (N,) the candidates that became detections
    found: InstanceData | None = None


class DenseReader(Reader):
    """Follow the detections of mmdet's dense heads, also with mmrotate's branch for the angle.

    The head's own suppression says which candidates survive; the head's own selection, made once more, says from which
    places of the maps the candidates are.
    """

    @classmethod
    def follows(cls, head: Any) -> bool:
        """Tell whether a head decodes its outputs as the heads do that this reader knows."""
        own_activation = getattr(getattr(head, 'loss_cls', None), 'custom_cls_channels', False)
        return not own_activation and follows(head, FOLLOWED)

    @contextmanager
    def reading(self, head: Any) -> Iterator[None]:
        """Observe a head while it predicts once; what it predicts stays the same."""
        self.head = head
        self.images: list[_Image] = []
        decode, self.post_process = head._predict_by_feat_single, head._bbox_post_process
        signature = inspect.signature(decode)

        def single(*args: Any, **kwargs: Any) -> Any:
            self.images.append(_Image(signature.bind(*args, **kwargs).arguments))
            return decode(*args, **kwargs)

        def post_process(results: InstanceData, *args: Any, **kwargs: Any) -> Any:
            image = self.images[-1]
            image.candidates = InstanceData(scores=results.scores, labels=results.labels)
            results.candidate = torch.arange(len(results.scores), device=results.scores.device)
            image.found = self.post_process(results, *args, **kwargs)
            image.kept = image.found.pop('candidate')
            return image.found

        with temporary_attributes(head, _predict_by_feat_single=single, _bbox_post_process=post_process):
            yield

    def rows(self) -> list[Rows | None]:
        """Rows of each image, in their order; None where the head did what this reader cannot follow."""
        return [self._rows(image) for image in self.images]

    def _rows(self, image: _Image) -> Rows | None:
        given, classes = image.given, self.head.cls_out_channels
        kinds = [kind for kind in (LOGITS, BOXES, ANGLES, FACTORS) if given.get(kind, [None])[0] is not None]
        starts = {kind: [self.start(part) for part in given[kind]] for kind in kinds}
        if (
            image.candidates is None
            or image.found is None
            or any(start is None for some in starts.values() for start in some)
        ):
            return None
        level, index, labels, scores = _candidates(self.head, given)
        if not (torch.equal(labels, image.candidates.labels) and torch.equal(scores, image.candidates.scores)):
            return None
        level, index, labels = level[image.kept], index[image.kept], labels[image.kept]

        sizes = [(part.shape[0] // classes, part[0].numel()) for part in given[LOGITS]]
        anchors, pixels = index.new_tensor(sizes).T[:, level]
        places, widths = [], []
        for kind in kinds:
            width = given[kind][0].shape[0] // sizes[0][0]
            column = torch.arange(width, device=index.device)
            if kind == LOGITS and self.head.use_sigmoid_cls:
                column = labels[:, None]  # no other class matters
            channel = (index % anchors)[:, None] * width + column  # (N, K)
            start = index.new_tensor(starts[kind])[level]
            places.append(channel * pixels[:, None] + (start + index // anchors)[:, None])
            widths.append(places[-1].shape[1])
        counts = index.new_tensor([0, *map(len, given['mlvl_priors'])]).cumsum(0)
        priors = _joined(given['mlvl_priors'])[counts[level] + index]
        decode = partial(self._decode, given, dict(zip(kinds, widths, strict=True)), priors, labels)
        return Rows(torch.cat(places, 1), decode, tensor_of(image.found.bboxes), image.found.scores)

    def _decode(
        self, given: dict[str, Any], widths: dict[str, int], priors: Any, labels: Tensor, raw: Tensor, which: Tensor
    ) -> tuple[Tensor, Tensor]:
        head, meta, labels = self.head, given['img_meta'], labels[which]
        parts = dict(zip(widths, raw.split(list(widths.values()), 1), strict=True))
        boxes = parts[BOXES]
        if ANGLES in parts:
            boxes = torch.cat([boxes, head.angle_coder.decode(parts[ANGLES], keepdim=True)], -1)
        boxes = head.bbox_coder.decode(priors[which], boxes, max_shape=meta['img_shape'])
        if ANGLES in parts:
            from mmrotate.structures.bbox import RotatedBoxes

            boxes = RotatedBoxes(boxes)
        if head.use_sigmoid_cls:
            scores = parts[LOGITS][:, 0].sigmoid()
        else:
            scores = parts[LOGITS].softmax(-1).gather(1, labels[:, None])[:, 0]
        results = InstanceData(bboxes=boxes, scores=scores, labels=labels)
        if FACTORS in parts:
            results.score_factors = parts[FACTORS][:, 0].sigmoid()
        rescale = given.get('rescale', False)
        found = self.post_process(results, cfg=ConfigDict(), rescale=rescale, with_nms=False, img_meta=meta)
        return tensor_of(found.bboxes), found.scores


def _candidates(head: Any, given: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Select candidates as a dense head does; level, index among the priors of the level, class, score of each."""
    from mmdet.models.utils import filter_scores_and_topk

    cfg = head.test_cfg if given.get('cfg') is None else given['cfg']
    parts = []
    for number, logits in enumerate(given[LOGITS]):
        flat = logits.permute(1, 2, 0).reshape(-1, head.cls_out_channels)
        scores = flat.sigmoid() if head.use_sigmoid_cls else flat.softmax(-1)[:, :-1]
        scores, labels, index, _ = filter_scores_and_topk(scores, cfg.get('score_thr', 0), cfg.get('nms_pre', -1))
        parts.append((torch.full_like(index, number), index, labels, scores))
    level, index, labels, scores = (torch.cat(some) for some in zip(*parts, strict=True))
    return level, index, labels, scores


def _joined(priors: list[Any]) -> Any:
    from mmdet.structures.bbox import cat_boxes

    return cat_boxes(priors)
