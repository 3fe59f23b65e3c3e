"""Gather what a report needs from a runner: detections, facts about the model, pictures."""

import platform
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch import nn

from ...adf._eval_mode import eval_mode
from ...evaluation.functional.ground_truth import is_labelled, truth_of
from ...models.utils.complexity import count_macs
from ...models.utils.detector_parts import parts
from ...structures.box_maps import detection_frame
from ...structures.rotated_iou import as_array
from ...utils.messages import first_line

PACKAGES = ('torch', 'numpy', 'e2cnn')
EITHER = {  # the original or its fork
    'mmengine': ('onedl-mmengine', 'mmengine'),
    'mmcv': ('onedl-mmcv', 'mmcv', 'mmcv-lite'),
    'mmdet': ('onedl-mmdetection', 'mmdet'),
    'mmrotate': ('onedl-mmrotate', 'mmrotate'),
}

Image = dict[str, Any]


def read_image(sample: Any) -> Image | None:
    """Read detections and objects of a data sample; None for one of another task, or without labels.

    Raises:
        ValueError: If boxes are not finite, or of a kind that is none.
    """
    values = sample if isinstance(sample, Mapping) else sample.to_dict()
    pred = values.get('pred_instances')
    if pred is None or 'bboxes' not in pred or not is_labelled(values):
        return None
    image: Image = {name: as_array(pred[name]) for name in ('bboxes', 'scores', 'labels')}
    columns = image['bboxes'].shape[1] if image['bboxes'].ndim == 2 else 5
    image['bboxes_std'] = as_array(pred['bboxes_std']) if 'bboxes_std' in pred else None
    if not np.isfinite(image['scores']).all() or not np.isfinite(image['bboxes']).all():
        raise ValueError('detections have a box or score that is not finite')
    truth = truth_of(values, columns)
    path = values.get('img_path')
    return image | {
        'img_id': Path(path).name if path else values.get('img_id'),
        'gt_bboxes': truth.bboxes,
        'gt_labels': truth.labels,
        'gt_ignored': truth.ignored,
    }


def eval_mode_of(evaluator: Evaluator) -> str:
    """Return how the metric of a run counts average precision: as DOTA does unless it says 'area'."""
    modes = [getattr(metric, 'eval_mode', None) for metric in evaluator.metrics]
    return 'area' if 'area' in modes else '11points'


def picture_of(dataset: Any, images: Sequence[Image], index: int, score_thr: float) -> np.ndarray:
    """Draw an image of a data set: ground truth beside the detections with this score or more."""
    from ..hooks.detection_pictures_hook import sample_picture

    data, image = dataset[index], images[index]
    inputs, sample = data['inputs'], data['data_samples']
    if isinstance(sample, (list, tuple)):  # views of test-time augmentation
        view = next((i for i, one in enumerate(sample) if _is_upright(one.metainfo)), 0)
        inputs, sample = inputs[view], sample[view]
    found = {name: torch.from_numpy(image[name]) for name in ('bboxes', 'scores')}
    sample.pred_instances = InstanceData(**found, labels=torch.from_numpy(image['labels']).long())
    meta = dataset.metainfo
    return sample_picture(
        inputs, sample, classes=meta.get('classes', ()), palette=meta.get('palette'), score_thr=score_thr
    )


def _is_upright(meta: Mapping[str, Any]) -> bool:
    """Tell whether a view shows the image as it is."""
    try:
        return bool(np.array_equal(detection_frame(meta), np.eye(3)))
    except (KeyError, ValueError):  # of mmdet's own DetTTAModel
        return not meta.get('flip')


def facts_of(runner: Runner, shape: Sequence[int] | None) -> dict[str, Any]:
    """Describe the run: model, parameters, multiply-adds, device, seed, versions, config.

    Args:
        runner: Its model is run once, in eval mode, on an empty image.
        shape: (C, H, W) of an image as the network takes it; without, multiply-adds are not counted.
    """
    model = getattr(runner.model, 'module', runner.model)
    detector = getattr(model, 'detector', model)
    parameter = next(model.parameters())
    threads = f'CPU, {torch.get_num_threads()} threads'
    device = torch.cuda.get_device_name(parameter.device) if parameter.is_cuda else threads
    facts: dict[str, Any] = {
        'name': Path(runner.cfg.filename).stem if runner.cfg.filename else runner.experiment_name,
        'written': datetime.now().isoformat(' ', 'minutes'),
        'model': ' in '.join(dict.fromkeys((type(detector).__name__, type(model).__name__))),
        'claim': claim_of(detector),
        'parameters': sum(p.numel() for p in model.parameters()),
        'device': device,
        'seed': runner.seed,
        'versions': versions(),
        'config': runner.cfg.pretty_text,
        'notes': [],
    }
    if shape is not None:
        facts['input'] = ' x '.join(map(str, shape))
        x = torch.zeros(1, *shape, device=parameter.device, dtype=parameter.dtype)
        try:
            with eval_mode(detector):
                if getattr(detector, 'roi_head', None) is None:
                    facts['macs'] = count_macs(detector, lambda: detector(x, mode='tensor'))
                else:  # its second stage needs regions
                    counts = {name: count_macs(part, run) for name, part, run in parts(detector, x)}
                    facts['macs'], facts['macs_of'] = sum(counts.values()), ', '.join(counts)
        except Exception as error:  # torch before 2.1 has no counter
            facts['macs'], facts['macs_reason'] = None, first_line(error) or type(error).__name__
    return facts


def claim_of(model: nn.Module) -> str:
    """Say which equivariance a model claims; nothing if it claims none."""
    group = getattr(getattr(model, 'backbone', model), 'group', None)
    if group is None:
        return ''
    any_angle = getattr(getattr(model, 'bbox_head', None), 'any_angle', False)
    return f'equivariance under {group}{", and its boxes at any angle" if any_angle else ""}'


def versions() -> dict[str, str]:
    """Return the versions of what the run stands on, by name."""
    found = {'mmrotate_plugin': import_module('mmrotate_plugin').__version__, 'Python': platform.python_version()}
    for name, choices in {**{name: (name,) for name in PACKAGES}, **EITHER}.items():
        for choice in choices:
            try:
                found[name] = f'{metadata.version(choice)}{"" if choice == name else f" ({choice})"}'
                break
            except metadata.PackageNotFoundError:
                continue
    return found
