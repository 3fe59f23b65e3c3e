"""Prepare images that are in memory as the test pipeline of a config prepares files."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
from mmengine.config import Config

from ..utils.errors import ImageError, UsageError
from ..utils.messages import reason_of


def image_pipeline(cfg: Config) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Build the test pipeline for an array instead of a file, without the steps that need annotations.

    It raises ImageError for images that a step cannot take, such as one whose shorter side is resized to nothing.

    Args:
        cfg: A config with a `test_dataloader`; mmcv's `TestTimeAug` may be a step of its pipeline.

    Raises:
        UsageError: If there is no such pipeline, or a step cannot be built.
    """
    from mmcv.transforms import Compose
    from mmdet.utils import get_test_pipeline_cfg

    try:
        steps = [dict(step) for step in get_test_pipeline_cfg(cfg.copy())]
    except (AttributeError, KeyError, TypeError, RuntimeError) as error:
        raise UsageError('the config has no test_dataloader with a pipeline to prepare images') from error
    if untyped := [step for step in steps if 'type' not in step]:
        raise UsageError(f"a step of the test pipeline has no 'type': {str(untyped[0])[:200]}")
    try:
        pipeline = Compose([{'type': 'mmdet.LoadImageFromNDArray'}, *_without_files(steps)])
    except (KeyError, ValueError, TypeError, AttributeError, AssertionError) as error:
        raise UsageError(f'the test pipeline cannot be built: {reason_of(error)}') from error

    def prepare(data: dict[str, Any]) -> dict[str, Any]:
        height, width = data['img'].shape[:2]
        try:
            return pipeline(data)
        except cv2.error as error:
            raise ImageError(
                f"an image of {width} x {height} pixels cannot go through the config's test pipeline; is a side too "
                f'short for its resizing? ({error.err} in {error.func})'
            ) from error

    return prepare


def _without_files(steps: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Leave out what reads images or labels, in the views of `TestTimeAug` too."""
    kept = []
    for step in map(dict, steps):
        name = str(step['type']).rpartition('.')[2]
        if name.startswith('Load') or name == 'ConvertBoxType':
            continue
        if name == 'TestTimeAug':
            views = [_without_files(choices) for choices in step.get('transforms') or ()]
            step['transforms'] = [choices for choices in views if choices]
        kept.append(step)
    return kept
