"""A trained detector as a function from an image to boxes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from numpy.typing import NDArray
from torch import nn

from ..datasets.broken import lacks_end
from ..models.groups import check_groups
from ..visualization import class_colours
from . import cli


class ImageError(ValueError):
    """A file that is no image, or only a part of one."""


@dataclass
class Detections:
    """Boxes (N, 4), (N, 5) or (N, 8) in pixels of the image, labels (N,), scores (N,), best first."""

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image as (H, W, 3) in OpenCV's channel order.

    Raises:
        ImageError: If it cannot be decoded, or was cut off; OpenCV alone would return grey where data are missing.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"'{path}' cannot be read: {error.strerror}") from error
    if not data:
        raise ImageError(f"'{path}' is an empty file")
    if lacks_end(data, data):
        raise ImageError(f"'{path}' is broken: its end is missing after {len(data)} bytes")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise ImageError(f"'{path}' cannot be decoded: {error.err}") from error
    if image is None:
        raise ImageError(f"'{path}' is not an image that OpenCV can read")
    return image


def select_device(name: str | None) -> torch.device:
    """The device of that name; without a name, a GPU if there is one.

    Raises:
        UsageError: If the name is unknown or the device is not there.
    """
    if name is None:
        return torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise cli.UsageError(f"--device '{name}' cannot be used: {cli.first_line(error)}") from error
    return device


def build_model(cfg: Config) -> nn.Module:
    """The model of a config, its weights still to come: what the config would initialise from is not read.

    Raises:
        UsageError: If a name is not registered, an argument is refused, or the groups of two parts differ.
    """
    from mmdet.registry import MODELS
    from mmengine.model import revert_sync_batchnorm
    from mmengine.registry import init_default_scope

    init_default_scope(cfg.get('default_scope') or 'mmdet')
    if cfg.model.get('backbone') and 'init_cfg' in cfg.model.backbone:
        cfg.model.backbone.init_cfg = None
    try:
        model = revert_sync_batchnorm(MODELS.build(cfg.model))
        check_groups(model)
    except (KeyError, ValueError, TypeError) as error:
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        raise cli.UsageError(f'the model of the config cannot be built: {text}') from error
    return model


class Detector:
    """The model of a config with the weights of a checkpoint.

    mmdet's `init_detector` loads what fits, asks the test data set for its palette and so needs it to exist, and takes
    COCO's names for a checkpoint without any; here the weights must fit and the names come from the checkpoint, else
    from the config.

    Args:
        cfg: The config; its test pipeline prepares the images.
        checkpoint: As `cli.read_checkpoint` returns it.
        path: Its file, for messages.

    Raises:
        UsageError: If the model cannot be built or the weights do not fit.
    """

    def __init__(self, cfg: Config, checkpoint: Mapping[str, Any], path: str, *, device: torch.device) -> None:
        self.model = build_model(cfg)
        cli.load_weights(self.model, checkpoint, path)
        self.model.cfg = cfg
        self.model.to(device).eval()
        meta = checkpoint['meta'].get('dataset_meta') or {'CLASSES': checkpoint['meta'].get('CLASSES')}
        meta = {key.lower(): value for key, value in meta.items()}
        configured = ((cfg.get('test_dataloader') or {}).get('dataset') or {}).get('metainfo') or {}
        self.classes: list[str] = list(meta.get('classes') or configured.get('classes') or ())
        self.colours = class_colours(len(self.classes) or 20, configured.get('palette') or meta.get('palette') or None)
        self.pipeline = image_pipeline(cfg)

    def __call__(self, image: NDArray[np.uint8], *, score_thr: float = 0.0) -> Detections:
        """Detect on one image (H, W, 3)."""
        from mmdet.apis import inference_detector

        found = inference_detector(self.model, image, test_pipeline=self.pipeline).pred_instances
        found = found[found.scores >= score_thr]
        found = found[found.scores.argsort(descending=True)]
        boxes = getattr(found.bboxes, 'tensor', found.bboxes)
        return Detections(boxes.cpu().numpy(), found.labels.cpu().numpy(), found.scores.cpu().numpy())


def image_pipeline(cfg: Config) -> Any:
    """The test pipeline for an array instead of a file, without the steps that want annotations."""
    from mmcv.transforms import Compose
    from mmdet.utils import get_test_pipeline_cfg

    try:
        steps = [dict(step) for step in get_test_pipeline_cfg(cfg.copy())]
    except (AttributeError, KeyError, TypeError, RuntimeError) as error:
        raise cli.UsageError('the config has no test_dataloader with a pipeline to prepare images') from error
    names = [str(step['type']).rpartition('.')[2] for step in steps]
    kept = [
        step
        for step, name in zip(steps, names, strict=True)
        if not (name.startswith('Load') or name == 'ConvertBoxType')
    ]
    return Compose([{'type': 'mmdet.LoadImageFromNDArray'}, *kept])
