"""Let a config test with test-time augmentation, and say how far its views agree."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import nn

from ..datasets.utils.loader_check import reads_images
from ..utils.errors import UsageError
from ..utils.messages import reason_of, warn
from .detection_check import BOX_TOL, LONG, SCORE_TOL, claimed_group
from .equivariance_check import exact_turns
from .inference import Detector

QUARTERS = (0, 90, 180, 270)
TYPE = 'mmrotate_plugin.RotatedTTAModel'
MAP = 'homography_matrix'


def set_augmented_pipeline(cfg: Config) -> None:
    """Give the test data the config's `tta_pipeline`; without one, its own pipeline on the four quarter turns.

    Raises:
        UsageError: If the config has no test data, or data sets with pipelines of their own that are not one and the
            same, or no step that loads an image.
    """
    dataset = (cfg.get('test_dataloader') or {}).get('dataset')
    places = list(_with_pipeline(dataset))
    if not places:
        raise UsageError('--tta: the config has no test_dataloader with a pipeline to make the views from')
    given = cfg.get('tta_pipeline')
    for place in places:
        place['pipeline'] = deepcopy(given) if given is not None else quarter_turns(place['pipeline'])
    if given is None:
        warn('--tta: the config has no tta_pipeline; the test pipeline is run on the four quarter turns of each image')


def quarter_turns(pipeline: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Run a test pipeline on the four quarter turns of the image.

    Args:
        pipeline: Steps, one of which loads the image and the last of which packs it.

    Raises:
        UsageError: If no step loads an image.
    """
    steps = [dict(step) for step in deepcopy(list(pipeline))]
    names = [str(step['type']).rpartition('.')[2] for step in steps]
    loads = [i for i, name in enumerate(names) if reads_images(name) or name == 'LoadImageFromNDArray']
    if not loads:
        raise UsageError('--tta: no step of the test pipeline loads an image, behind which it could be turned')
    for step, name in zip(steps, names, strict=True):
        if name == 'PackDetInputs':
            keys = step.get('meta_keys') or ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
            step['meta_keys'] = (*(key for key in keys if key != MAP), MAP)
    first = loads[0] + 1
    turns = [dict(type='mmrotate_plugin.TurnImage', degrees=degrees) for degrees in QUARTERS]
    views = dict(type='TestTimeAug', transforms=[turns, *([step] for step in steps[first:])])
    return [*steps[:first], views]


def augment_runner(runner: Runner, cfg: Config) -> None:
    """Put the model of a runner, with its weights, into the config's `tta_model`; without one, `RotatedTTAModel`.

    Args:
        runner: Its model may be wrapped for several processes.
        cfg: The config.

    Raises:
        UsageError: If `tta_model` cannot be built.
    """
    model = runner.model
    if isinstance(inner := getattr(model, 'module', None), nn.Module):  # several processes: each tests a part
        model = inner
    runner.model = augmented_model(cfg, model, keep_views=True)


def augmented_model(cfg: Config, model: nn.Module, *, keep_views: bool = False) -> Any:
    """Put a model into the config's `tta_model`; without one, into `RotatedTTAModel`, with its own suppression.

    Args:
        cfg: The config.
        model: The detector, with its weights.
        keep_views: Let a `RotatedTTAModel` keep the detections of each view.

    Raises:
        UsageError: If `tta_model` cannot be built.
    """
    from mmengine.registry import MODELS

    config = deepcopy(dict(cfg.get('tta_model') or {'type': TYPE, 'tta_cfg': _suppression(cfg)}))
    if keep_views and str(config.get('type')).endswith('RotatedTTAModel'):
        config['keep_views'] = True
    try:
        return MODELS.build({**config, 'module': model}).eval()
    except (KeyError, ValueError, TypeError, AttributeError, AssertionError) as error:
        raise UsageError(f'tta_model cannot be built: {reason_of(error)}') from error


class AugmentedDetector(Detector):
    """A `Detector` that merges what it finds on several views of each image, as ``test --tta`` does.

    Args:
        cfg: The config, changed in place by `set_augmented_pipeline`.
        checkpoint, path, device: As `Detector` takes them.

    Raises:
        UsageError: As `Detector`; and if the config cannot be augmented.
    """

    def __init__(self, cfg: Config, checkpoint: Mapping[str, Any], path: str, *, device: torch.device) -> None:
        set_augmented_pipeline(cfg)
        super().__init__(cfg, checkpoint, path, device=device)
        self.augmented = augmented_model(cfg, self.model)

    def test_step(self, data: dict[str, Any]) -> Any:
        """Run the model on a batch of images with their views, and merge the views."""
        # views first, then images, as mmengine's collate function has them
        return self.augmented.test_step({key: list(zip(*values, strict=True)) for key, values in data.items()})


def judge_views(report: Mapping[str, Any], model: nn.Module) -> list[str]:
    """Return what contradicts the claim of a detector that its boxes turn with the image, one sentence each.

    Args:
        report: Of `ViewAgreementMetric`.
        model: The detector, see `claimed_group`.
    """
    group = claimed_group(model)
    if group is None:
        return []
    exact = exact_turns(group)
    wrong = []
    for row in report['views']:
        if row['scale'] != 1 or row['degrees'] % 90 or (int(row['degrees'] // 90), row['mirrored']) not in exact:
            continue
        at = f'{row["degrees"]:g} degrees{", mirrored" if row["mirrored"] else ""}'
        tolerance = BOX_TOL * max(1.0, row['longest'] / LONG)
        if row['lost'] or row['new']:
            wrong.append(f'view at {at}, exact in {group}: {row["lost"]} detections lost and {row["new"]} new')
        elif row['corner']['max'] > tolerance or row['score']['max'] > SCORE_TOL:
            wrong.append(
                f'view at {at}, exact in {group}: corners differ by up to {row["corner"]["max"]:.1e} pixels and scores '
                f'by {row["score"]["max"]:.1e}'
            )
    return wrong


def _with_pipeline(node: Any) -> Any:
    """Yield the configs of data sets with a pipeline, inside of wrappers."""
    if isinstance(node, Mapping):
        if 'pipeline' in node and not isinstance(node.get('dataset'), Mapping):
            yield node
        yield from _with_pipeline(node.get('dataset'))
        for part in node.get('datasets') or ():
            yield from _with_pipeline(part)


def _suppression(cfg: Config) -> dict[str, Any]:
    """Return the limits of the detector's own suppression, for that of its views."""
    model: Any = cfg.model
    while isinstance(model.get('detector'), Mapping):
        model = model['detector']
    test = model.get('test_cfg') or {}
    test = test.get('rcnn') or test
    nms = test.get('nms') or {}
    found: dict[str, Any] = {'nms': {'type': 'nms_rotated'}}
    if isinstance(nms.get('iou_threshold', nms.get('iou_thr')), (int, float)):
        found['nms']['iou_threshold'] = nms.get('iou_threshold', nms.get('iou_thr'))
    if isinstance(test.get('max_per_img'), int) and test['max_per_img'] > 0:
        found['max_per_img'] = test['max_per_img']
    return found
