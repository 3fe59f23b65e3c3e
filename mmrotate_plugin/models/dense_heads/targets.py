"""What the points of a batch shall learn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...structures import tensor_of
from .assignment import FARTHEST, align, candidates, inside_any
from .box_coder import canonical, directors, elongation, overlaps

if TYPE_CHECKING:
    from .re_fcos_head import ReFCOSHead

COLUMNS = {'rbox': 5, 'hbox': 4}


@dataclass
class Targets:
    """Targets of the P points of each of B images.

    Attributes:
        labels: (B * P,), the class, or the number of classes for background.
        scores: (B * P,), the score of that class to learn; 0 for background.
        weights: (B * P,), 0 where neither counts.
        positive: (N,), the points of objects, in the order of `labels`.
        points: (N, 3), x, y and stride of these.
        boxes: (N, 5), centre, sides, angle of their objects; of rotated boxes, the first side is the longer one.
    """

    labels: Tensor
    scores: Tensor
    weights: Tensor
    positive: Tensor
    points: Tensor
    boxes: Tensor


def make_targets(
    head: 'ReFCOSHead',
    levels: Sequence[Tensor],
    logits: Tensor,
    preds: Tensor,
    instances: Sequence[Any],
    ignored: Sequence[Any] | None,
) -> Targets:
    """Assign the points to the objects of each image.

    Args:
        head: Its classes, box type, ranges and options of the assignment count.
        levels: (P_i, 3) points of each level.
        logits, preds: (B, P, C), what the head says.
        instances: Objects of each image: `bboxes` and `labels`.
        ignored: Objects that do not count, `bboxes`; None for none.

    Raises:
        ValueError: If boxes are not of the head's type.
    """
    points = torch.cat(list(levels))
    numbers = torch.cat([torch.full((len(p),), i, device=points.device) for i, p in enumerate(levels)])
    parts: list[tuple[Tensor, ...]] = []
    for image, objects in enumerate(instances):
        boxes = to_rotated(objects.bboxes, head.box_type).to(points)
        label = torch.full((len(points),), head.num_classes, dtype=torch.long, device=points.device)
        target, score = points.new_zeros(len(points), 5), points.new_zeros(len(points))
        if len(boxes):
            inside, distance = candidates(points, boxes, head.regress_ranges, numbers, head.center_sample_radius)
            wanted = inside | (distance < FARTHEST)
            near = wanted.any(1).nonzero().flatten()  # few of the points of a large image
            quality = _quality(head, points[near], preds[image, near].detach(), boxes, wanted[near])
            said = logits[image, near].detach().sigmoid()[:, objects.labels]
            options = (head.topk, head.alpha, head.beta)
            owner, score[near] = align(inside[near], distance[near], said, quality, *options)
            near, owner = near[owner >= 0], owner[owner >= 0]
            label[near], target[near] = objects.labels[owner], boxes[owner]
        weight = points.new_ones(len(points))
        left_out = None if ignored is None or ignored[image] is None else ignored[image].get('bboxes')
        if left_out is not None and len(left_out):
            hidden = inside_any(points, to_rotated(left_out, head.box_type).to(points))
            weight[hidden & (label == head.num_classes)] = 0
        parts.append((label, score, weight, target))
    labels, scores, weights, found = (torch.cat(part) for part in zip(*parts, strict=True))
    positive = (labels < head.num_classes).nonzero().flatten()
    return Targets(labels, scores, weights, positive, points[positive % len(points)], found[positive])


def _quality(head: 'ReFCOSHead', points: Tensor, preds: Tensor, boxes: Tensor, wanted: Tensor) -> Tensor:
    """Overlaps of predicted boxes (P, C) and objects (N, 5) in the frames of these, (P, N); 0 where not wanted."""
    point, number = wanted.nonzero(as_tuple=True)
    pred, box = preds[point], boxes[number]
    quality = overlaps(*head.bbox_coder.in_frame(points[point], pred, box))
    if head.box_type == 'rbox':
        alike = (F.normalize(pred[:, 4:], dim=1) * directors(box)).sum(1)
        quality = quality * (1 - elongation(box) * (1 - alike) / 2)
    out = quality.new_zeros(wanted.shape)
    out[point, number] = quality
    return out


def to_rotated(boxes: Any, box_type: str) -> Tensor:
    """Write boxes as (N, 5): centre, sides, angle; of rotated boxes, the first side is the longer one.

    Args:
        boxes: Tensor, or mmdet's or mmrotate's boxes.
        box_type: 'rbox' or 'hbox'.

    Raises:
        ValueError: If they have another number of columns.
    """
    boxes = tensor_of(boxes)
    if boxes.shape[-1] != COLUMNS[box_type]:
        raise ValueError(
            f"box_type='{box_type}' needs boxes of {COLUMNS[box_type]} numbers, but those of the data have "
            f"{boxes.shape[-1]}: write box_type='{_kind(boxes.shape[-1])}', or let the pipeline convert them "
            "(mmrotate.ConvertBoxType for 'rbox', box_type='hbox' of LoadAnnotations)"
        )
    if box_type == 'rbox':
        return canonical(boxes)
    return torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2], boxes[:, :1] * 0], 1)


def _kind(columns: int) -> str:
    return 'hbox' if columns == COLUMNS['hbox'] else 'rbox'
