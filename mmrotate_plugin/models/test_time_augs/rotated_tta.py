"""Detect on several views of an image, and merge the detections in the frame of the image."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmdet.models.test_time_augs import DetTTAModel
from mmengine.structures import InstanceData
from torch import nn

from ...registry import MODELS
from ...structures import tensor_of
from ...structures.box_fusion import fuse_boxes, fuse_deviations
from ...structures.box_maps import detection_frame, map_boxes, map_deviations, scale_of, turn_of
from ...structures.rotated_iou import as_array
from ...structures.rotated_nms import rotated_nms
from ...utils.errors import UsageError
from ...utils.typecheck import typed

SUPPRESSIONS = ('nms_rotated', 'nms')
FUSION = 'weighted_boxes'
IOU_THR = {**dict.fromkeys(SUPPRESSIONS, 0.1), FUSION: 0.55}
MOST = 2000  # detections per image, as mmrotate's heads keep


@MODELS.register_module()
class RotatedTTAModel(DetTTAModel):
    """Test-time augmentation for boxes of any kind: turns, reflections and scales.

    It takes the place of mmdet's `DetTTAModel`, which brings back reflected horizontal boxes only. `tta_pipeline` makes
    the views with mmcv's `TestTimeAug`, from `TurnImage`, mmdet's `RandomFlip` and `Resize`, `SymmetricResize` and any
    other transform that multiplies its map onto `homography_matrix`, which must be among the `meta_keys` of
    `PackDetInputs`. Detections are moved by the inverse of that map, in float64. One view must show the image as it is,
    at any scale: the result has its ground truth and metainfo.

    `nms_rotated` and `nms` keep the best of boxes that overlap, by overlaps in float64 (`rotated_nms`): mmcv's
    operators may give a box and its copy from another view an overlap of 0, and keep both. `weighted_boxes` averages
    the boxes of an object (`fuse_boxes`). Standard deviations of an `UncertainDetector` are kept by both.

    Args:
        module: The detector, or its config.
        tta_cfg: `nms`, a dict with `type` ('nms_rotated', 'nms' or 'weighted_boxes') and `iou_threshold` (default 0.1,
            and 0.55 for weighted boxes); and `max_per_img` (default 2000).
        keep_views: Put the detections of each view, in the frame of the image, into the result as `tta_views`, a list
            of dicts with `degrees`, `mirrored`, `scale`, `bboxes`, `labels` and `scores`; the view that shows the image
            as it is comes first. `ViewAgreementMetric` compares them.
        data_preprocessor: That of the detector, if its config has none.

    Shape:
        - Input of `test_step`: what `TestTimeAug` and `pseudo_collate` make, for each view the images and the samples.
        - Output: a data sample for each image, best first.

    Raises:
        TypeError, ValueError: For arguments of another kind or out of range.
        UsageError: When predicting, if the map of a view is not known or no turn, or no view shows the image as it is.
    """

    @typed
    def __init__(
        self,
        module: Mapping[str, Any] | nn.Module,
        tta_cfg: Mapping[str, Any] | None = None,
        *,
        keep_views: bool = False,
        data_preprocessor: Mapping[str, Any] | nn.Module | None = None,
    ) -> None:
        cfg = dict(tta_cfg or {})
        nms = dict(cfg.pop('nms', {'type': SUPPRESSIONS[0]}))
        most = cfg.pop('max_per_img', MOST)
        kind = nms.pop('type', SUPPRESSIONS[0])
        if kind not in IOU_THR:
            raise ValueError(f'tta_cfg.nms.type={kind!r} must be one of {", ".join(map(repr, IOU_THR))}')
        iou_thr = nms.pop('iou_threshold', IOU_THR[kind])
        if not isinstance(iou_thr, (int, float)) or not 0 <= iou_thr <= 1:
            raise ValueError(f'tta_cfg.nms.iou_threshold={iou_thr!r} must be between 0 and 1')
        if type(most) is not int or most < 1:
            raise ValueError(f'tta_cfg.max_per_img={most!r} must be a positive integer')
        if rest := [*cfg, *(f'nms.{name}' for name in nms)]:
            raise ValueError(f'tta_cfg.{rest[0]} is unknown; tta_cfg has nms.type, nms.iou_threshold and max_per_img')
        super().__init__(tta_cfg=tta_cfg, module=module, data_preprocessor=data_preprocessor)
        self.kind, self.iou_thr, self.max_per_img, self.keep_views = kind, float(iou_thr), most, keep_views

    def _merge_single_sample(self, data_samples: Sequence[Any]) -> Any:
        """Merge the detections on the views of one image.

        Args:
            data_samples: One for each view, with `pred_instances`.

        Returns:
            The data sample of the view that shows the image as it is, with the merged `pred_instances` and, as
            `tta_view`, the number of the view.
        """
        maps = [_map_of(sample, number) for number, sample in enumerate(data_samples, 1)]
        upright = [i for i, matrix in enumerate(maps) if np.array_equal(matrix, np.eye(3))]
        if not upright:
            turns = '; '.join(f'{_name(matrix)}' for matrix in maps)
            raise UsageError(
                f'tta_pipeline: none of the {len(maps)} views shows the image as it is ({turns}): add one without turn '
                'and reflection, such as TurnImage(degrees=0) or RandomFlip(prob=0.0)'
            )
        order = [upright[0], *(i for i in range(len(maps)) if i != upright[0])]
        result = data_samples[upright[0]]
        result.set_metainfo({'tta_view': upright[0]})
        views = [_bring_back(data_samples[i].pred_instances, maps[i]) for i in order]
        if self.keep_views:
            pairs = zip(order, views, strict=True)
            result.set_field([_record(data_samples[i], maps[i], found) for i, found in pairs], 'tta_views')
        result.pred_instances = self._merge(views)
        return result

    def _merge(self, views: Sequence[InstanceData]) -> InstanceData:
        number = np.repeat(np.arange(len(views)), [len(found) for found in views])
        found = [found for found in views if len(found)]
        if not found:
            return views[0]
        everything = InstanceData.cat(found)
        boxes, scores, labels = (as_array(everything[name]) for name in ('bboxes', 'scores', 'labels'))
        if self.kind != FUSION:
            kept = rotated_nms(boxes, scores, self.iou_thr, labels)[: self.max_per_img]
            return everything[torch.as_tensor(kept, device=everything.scores.device)]
        count = len(views)
        try:
            fused = fuse_boxes(boxes, scores, labels, number, count, self.iou_thr)
        except ValueError as error:
            raise UsageError(f"tta_cfg.nms.type='{FUSION}': {error}; 'nms_rotated' takes any kind") from error
        merged = everything[torch.as_tensor(fused.best, device=everything.scores.device)]
        _set(merged, 'bboxes', fused.boxes)
        _set(merged, 'scores', fused.scores)
        for end in ('', '_data', '_model'):
            if f'bboxes_std{end}' in everything:
                std, scores_std = as_array(everything[f'bboxes_std{end}']), as_array(everything[f'scores_std{end}'])
                box_std, score_std = fuse_deviations(fused, boxes, scores, std, scores_std, count)
                _set(merged, f'bboxes_std{end}', box_std)
                _set(merged, f'scores_std{end}', score_std)
        return merged[: self.max_per_img]


def _map_of(sample: Any, number: int) -> Any:
    """Return the map from the image to the frame in which a view's detections are."""
    try:
        return detection_frame(sample.metainfo)
    except KeyError as error:
        raise UsageError(
            "tta_pipeline: PackDetInputs must have 'homography_matrix' among its meta_keys, which says how a view was "
            'turned, and a step such as SymmetricResize or TurnImage must have written it'
        ) from error
    except ValueError as error:
        raise UsageError(
            f'tta_pipeline: view {number}: {error}: turn and reflect before Resize and SymmetricResize, and scale both '
            'axes alike (keep_ratio=True)'
        ) from error


def _name(matrix: Any) -> str:
    degrees, flip = turn_of(matrix)
    return f'{degrees:g} degrees{", mirrored" if flip else ""}'


def _bring_back(found: InstanceData, matrix: Any) -> InstanceData:
    """Move detections back by the map of their view."""
    if 'masks' in found:
        raise UsageError('test-time augmentation moves boxes, and this detector gives masks, which it does not move')
    if not len(found) or np.array_equal(matrix, np.eye(3)):
        return found
    back = np.linalg.inv(matrix)
    _set(found, 'bboxes', map_boxes(as_array(found.bboxes), back))
    for name in [name for name in found.keys() if name.startswith('bboxes_std')]:  # noqa: SIM118  # not a dict
        _set(found, name, map_deviations(as_array(found[name]), back))
    return found


def _set(found: InstanceData, name: str, values: Any) -> None:
    """Replace a field, of its device and type; mmdet and mmrotate may hold boxes in a class of their own."""
    old = found[name]
    new = tensor_of(old).new_tensor(values)
    if tensor_of(old) is old:
        found.set_field(new, name)
    else:
        old.tensor = new


def _record(sample: Any, matrix: Any, found: InstanceData) -> dict[str, Any]:
    degrees, mirrored = turn_of(matrix)
    factors = np.ravel(sample.metainfo.get('scale_factor') or (1.0, 1.0))[:2].astype(np.float64)
    boxes = tensor_of(found.bboxes).clone()
    scale = float(np.sqrt(factors.prod())) * scale_of(matrix)
    return dict(degrees=degrees, mirrored=mirrored, scale=scale, bboxes=boxes, labels=found.labels, scores=found.scores)
