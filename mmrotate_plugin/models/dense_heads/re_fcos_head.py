"""A one-stage head whose outputs are fields, so that its detections turn with the image."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.utils import multi_apply
from mmdet.registry import MODELS as MMDET_MODELS
from mmdet.utils import reduce_mean
from torch import Tensor, nn

from ...registry import MODELS
from ...utils.typecheck import typed
from ..any_angle import resolve
from ..backbones._blocks import _checkpointed
from ..layers import Cfg
from ..utils.switch_check import describe
from ..utils.weight_check import note_group, refuse_another_head
from ._arguments import check_arguments, check_inputs
from .box_coder import BoxFieldCoder, directors, elongation
from .outputs import build_output, build_tower, init_output, init_tower, prior_bias
from .points import LatticePoints
from .targets import make_targets

RANGES = ((-1, 64), (64, 128), (128, 256), (256, 512), (512, 1e8))
NORM: Cfg = {'type': 'GN', 'num_groups': 8}
ACTIVATION: Cfg = {'type': 'ReLU'}
LEAST_WEIGHT = 0.05  # of a box in its losses: the first ones overlap nothing
LOSSES: dict[str, Cfg] = {
    'loss_cls': {'type': 'mmdet.QualityFocalLoss', 'use_sigmoid': True, 'beta': 2.0, 'loss_weight': 1.0},
    'loss_bbox': {'type': 'mmdet.GIoULoss', 'loss_weight': 1.0},
    'loss_angle': {'type': 'mmdet.MSELoss', 'loss_weight': 1.0},
}


@MODELS.register_module()
class ReFCOSHead(BaseDenseHead):
    r"""Anchor-free head on several levels, whose towers and outputs are fields of a group of rotations.

    The dense scheme is that of FCOS (Tian et al., ICCV 2019, arXiv:1904.01355). What it says at a point turns with the
    image: scores and the logarithms of the sides are invariant (frequency 0), the offset of the centre is a
    vector (frequency 1), the angle of the longer side a director :math:`(\cos 2a, \sin 2a)` (frequency 2; see
    `BoxFieldCoder`). Points lie on the lattice of `LatticePoints`, the assignment and the losses depend on distances in
    the frames of the objects. So a quarter turn of the image turns the detections, to round-off, if the features are
    fields and the sides of the image are multiples of all strides plus one.

    With ``group=None`` it is an ordinary head with the same outputs, assignment and losses.

    It stands where mmdet's and mmrotate's dense heads do: `mmdet.FCOS`, `mmdet.SingleStageDetector`, ...

    Which point learns which object is decided by what the head says so far (`assignment.align`), among points near the
    centre. A score learns the class and the overlap at once, so there is no centre-ness.

    Losses: `loss_cls` of all points, whose target is a score between 0 and 1; `loss_bbox` of boxes in the frame of the
    target, (x1, y1, x2, y2) as if the angle were right; `loss_angle` of the directors, weighted by how long the target
    is, as a square has no angle.

    Args:
        num_classes: Number of classes of the data.
        in_channels: Tensor channels of each input level; with a group, a multiple of its order.
        feat_channels: Tensor channels of the towers, likewise.
        stacked_convs: Convolutions of each of the two towers.
        strides: Stride of each level, pixels.
        regress_ranges: Smallest and largest half of the longer side of the objects of each level, pixels.
        center_sample_radius: Farthest a point may lie from the centre of its object along a side, in strides.
        topk: Points that learn one object.
        alpha, beta: Exponents of score and overlap in the choice of these.
        box_type: 'rbox' for rotated boxes, 'hbox' for horizontal ones.
        group: Fiber group of the inputs, such as 'C8' or 'D8', of 5 rotations or more; None for an ordinary head.
        conv_cfg, norm_cfg, act_cfg: Layers of the towers, as in mmcv's `ConvModule`; with a group, their equivariant
            versions are built. By default, convolutions, group norm of 8 groups, and ReLU. Levels share all but batch
            norms (`outputs.TowerBlock`).
        any_angle: Preset of `ReResNet` by this name, for the towers: a band limit of 2 and no offset in `conv_cfg`, and
            `ennFourierReLU`. It needs a group.
        loss_cls: A loss of mmdet that learns a score between 0 and 1; quality focal loss by default.
        loss_bbox: A loss of boxes (x1, y1, x2, y2); GIoU loss by default.
        loss_angle: A loss of directors, for rotated boxes only; squared error by default.
        with_cp: Recompute the towers in the backward pass to save memory.
        train_cfg: Given by detectors; it has no options here.
        test_cfg: `nms_pre`, `score_thr`, `nms`, `max_per_img`, `min_bbox_size`, as for mmdet's dense heads.
        init_cfg: mmengine's initialisation config, in place of the head's own.

    Shape:
        - Input: for each level (B, in_channels, H_i, W_i), orientation fastest.
        - Output: two lists over levels: logits (B, num_classes, H_i, W_i), and boxes (B, 6, H_i, W_i), or 4 for 'hbox',
          in the columns of `BoxFieldCoder`.

    Raises:
        ValueError: If an argument is out of range, the group has less than 5 rotations or does not divide a width, or
            the levels differ in number from the strides. The message names what came and what would work.
    """

    @typed
    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        feat_channels: int = 256,
        stacked_convs: int = 4,
        strides: Sequence[int] = (8, 16, 32, 64, 128),
        regress_ranges: Sequence[Sequence[float]] = RANGES,
        center_sample_radius: float = 2.5,
        topk: int = 10,
        alpha: float = 0.5,
        beta: float = 4.0,
        box_type: str = 'rbox',
        group: str | None = None,
        conv_cfg: Cfg | None = None,
        norm_cfg: Cfg | None = NORM,
        act_cfg: Cfg | None = None,
        any_angle: bool = False,
        loss_cls: Cfg | None = None,
        loss_bbox: Cfg | None = None,
        loss_angle: Cfg | None = None,
        with_cp: bool = False,
        train_cfg: Cfg | None = None,
        test_cfg: Cfg | None = None,
        init_cfg: Cfg | list[Cfg] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        losses = {'loss_cls': loss_cls, 'loss_bbox': loss_bbox}
        check_arguments(
            num_classes, in_channels, feat_channels, stacked_convs, strides, regress_ranges, center_sample_radius,
            topk, alpha, beta, box_type, group, any_angle, loss_cls, loss_angle,
        )  # fmt: skip
        self.num_classes = self.cls_out_channels = num_classes
        self.in_channels, self.feat_channels, self.stacked_convs = in_channels, feat_channels, stacked_convs
        self.strides, self.regress_ranges = list(strides), [(float(low), float(high)) for low, high in regress_ranges]
        self.center_sample_radius, self.box_type, self.group = center_sample_radius, box_type, group
        self.topk, self.alpha, self.beta = topk, alpha, beta
        self.with_cp, self.train_cfg, self.test_cfg = with_cp, train_cfg, test_cfg
        self.prior_generator = LatticePoints(strides)
        self.bbox_coder = BoxFieldCoder(box_type)
        self.use_sigmoid_cls = True
        if box_type == 'rbox':
            losses['loss_angle'] = loss_angle
        for name, cfg in losses.items():
            setattr(self, name, MMDET_MODELS.build(LOSSES[name] if cfg is None else cfg))
        parts = resolve(any_angle, conv_cfg, act_cfg, usual_act=ACTIVATION)
        self.switches = describe(parts, parts.act_cfg)
        conv_cfg = parts.conv_cfg
        tower = (in_channels, feat_channels, stacked_convs, len(strides), group, conv_cfg, norm_cfg, parts.act_cfg)
        self.cls_convs, self.reg_convs = build_tower(*tower), build_tower(*tower)
        width = feat_channels if stacked_convs else in_channels
        self.conv_cls = build_output(width, [0] * num_classes, group, conv_cfg)
        self.conv_reg = build_output(width, self.bbox_coder.frequencies, group, conv_cfg)
        # logarithms of the usual sides in strides, for each level
        self.level_sizes = nn.Parameter(torch.full((len(strides), self.bbox_coder.invariant), math.log(2.0)))

        self._register_state_dict_hook(note_group)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, metadata: dict, *args: Any) -> None:
        refuse_another_head(self, state, prefix, metadata)
        super()._load_from_state_dict(state, prefix, metadata, *args)

    def init_weights(self) -> None:
        """Initialise by `init_cfg`; without one, as FCOS does, with scores of 0.01."""
        super().init_weights()
        if self.init_cfg:
            return
        for tower in (self.cls_convs, self.reg_convs):
            init_tower(tower)
        init_output(self.conv_cls, prior_bias(0.01))
        init_output(self.conv_reg)

    def forward(self, x: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Compute logits and boxes of all levels."""
        check_inputs(x, self.strides, self.in_channels, self.group)
        return multi_apply(self.forward_single, x, self.level_sizes, range(len(x)))

    def forward_single(self, x: Tensor, level_size: Tensor, level: int) -> tuple[Tensor, Tensor]:
        """Do the same for one level, in float32 under autocast; `level_size` are the logarithms of its usual sides."""
        classes, boxes = self._tower(self.cls_convs, x, level), self._tower(self.reg_convs, x, level)
        size = self.bbox_coder.encode_size
        usual = F.pad(level_size, (2, size - 2 - len(level_size)))[:, None, None]
        pred = _whole(self.conv_reg(boxes))[:, :size] + usual
        return _whole(self.conv_cls(classes)), pred

    def _tower(self, blocks: nn.ModuleList, x: Tensor, level: int) -> Tensor:
        for block in blocks:
            step = partial(block, level=level)
            x = _checkpointed(block, step, x) if self.with_cp and torch.is_grad_enabled() else step(x)
        return x

    def loss_by_feat(
        self,
        cls_scores: Sequence[Tensor],
        bbox_preds: Sequence[Tensor],
        batch_gt_instances: Sequence[Any],
        batch_img_metas: Sequence[dict[str, Any]],  # noqa: ARG002  as mmdet calls it
        batch_gt_instances_ignore: Sequence[Any] | None = None,
    ) -> dict[str, Tensor]:
        """Compute the losses from the outputs of `forward`.

        Args:
            cls_scores, bbox_preds: Outputs of `forward`.
            batch_gt_instances: Objects of each image, with `bboxes` and `labels`.
            batch_img_metas: Not needed.
            batch_gt_instances_ignore: Objects that are neither hits nor misses: background points inside of them do
                not count.

        Raises:
            ValueError: If the boxes are not of the head's type.
        """
        logits, preds = _joined(cls_scores), _joined(bbox_preds)
        sizes = [level.shape[-2:] for level in cls_scores]
        points = self.prior_generator.grid_priors(sizes, logits.dtype, logits.device)
        targets = make_targets(self, points, logits, preds, batch_gt_instances, batch_gt_instances_ignore)
        count = reduce_mean(targets.scores.sum()).clamp(min=1.0)
        aims = (targets.labels, targets.scores)
        losses = {'loss_cls': self.loss_cls(logits.flatten(0, 1), aims, weight=targets.weights, avg_factor=count)}
        pred = preds.flatten(0, 1)[targets.positive]
        if len(pred) == 0:
            names = ['loss_bbox', 'loss_angle'] if self.box_type == 'rbox' else ['loss_bbox']
            return {**losses, **dict.fromkeys(names, preds.sum() * 0)}
        weight = targets.scores[targets.positive].clamp(min=LEAST_WEIGHT)
        total = reduce_mean(weight.sum()).clamp(min=1.0)
        found, true = self.bbox_coder.in_frame(targets.points, pred, targets.boxes)
        losses['loss_bbox'] = self.loss_bbox(found, true, weight=weight, avg_factor=total)
        if self.box_type == 'rbox':
            weight = (weight * elongation(targets.boxes))[:, None].expand(-1, 2)
            losses['loss_angle'] = self.loss_angle(pred[:, 4:], directors(targets.boxes), weight, avg_factor=total)
        return losses

    def decoded(self, cls_scores: Sequence[Tensor], bbox_preds: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Decode the outputs of `forward` at all P points, as an ONNX file does; suppression is left to the runtime.

        Returns:
            Boxes (B, P, 5), centre, sides and angle (for 'hbox' (B, P, 4), x1, y1, x2, y2), in pixels and radians, and
            scores (B, P, num_classes) between 0 and 1.
        """
        preds = _joined(bbox_preds)
        sizes = [level.shape[-2:] for level in cls_scores]
        points = torch.cat(self.prior_generator.grid_priors(sizes, preds.dtype, preds.device))
        return self.bbox_coder.boxes(points, preds), _joined(cls_scores).sigmoid()


def _whole(x: Tensor) -> Tensor:
    """Undo autocast: positions in pixels need more digits than float16 has."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _joined(levels: Sequence[Tensor]) -> Tensor:
    """Join the levels, (B, C, H_i, W_i) each, to (B, points, C)."""
    return torch.cat([level.flatten(2).transpose(1, 2) for level in levels], 1)
