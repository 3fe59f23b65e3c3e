"""Use a trained detector as a function from an image to boxes."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.structures import InstanceData
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..adf import NoMomentRule
from ..engine.checks import before_run
from ..engine.checks.checkpoint_classes import configured_meta, names_and_palette
from ..engine.checks.compiled_operators import check_operators
from ..engine.checks.head_classes import wrong_count
from ..engine.checks.input_images import check_image
from ..models.uncertainty.head_trace import UnsupportedDetector
from ..models.utils.group_check import check_groups
from ..structures import offset_of, tensor_of
from ..utils.errors import ImageError, UsageError
from ..utils.messages import first_line, reason_of, warn
from ..visualization import class_colours
from .checkpoint import load_weights
from .image_pipeline import image_pipeline
from .image_reader import ImageReader, read_image
from .uncertain_config import inner_model

__all__ = [
    'Detections',
    'Detector',
    'ImageError',
    'best_first',
    'build_model',
    'image_pipeline',
    'read_image',
    'select_device',
]


@dataclass
class Detections:
    """Boxes (N, 4), (N, 5) or (N, 8) in pixels of the image, labels (N,), scores (N,), best first.

    An `UncertainDetector` adds standard deviations, of the shapes of boxes and scores, and with `score_map` the largest
    standard deviation of a score at each pixel of the image, (H, W).
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    boxes_std: NDArray[np.float32] | None = None
    scores_std: NDArray[np.float32] | None = None
    score_std_map: NDArray[np.float32] | None = None


def select_device(name: str | None) -> torch.device:
    """Return the device of that name; without a name, a GPU if there is one.

    Raises:
        UsageError: If the name is unknown or the device is not there.
    """
    if name is None:
        return torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"--device '{name}' cannot be used: {first_line(error)}") from error
    return device


def build_model(cfg: Config) -> BaseModel:
    """Build the model of a config; the weights that the config would initialise from are not read.

    Raises:
        UsageError: If a name is not registered, an argument is refused, or the groups of two parts differ.
    """
    from mmdet.registry import MODELS
    from mmengine.registry import init_default_scope

    init_default_scope(cfg.get('default_scope') or 'mmdet')
    detector = inner_model(cfg)
    if detector.get('backbone') and 'init_cfg' in detector.backbone:
        detector.backbone.init_cfg = None
    try:
        # a copy: heads of the DETR family write tensors into what they are built from
        model = revert_sync_batchnorm(MODELS.build(deepcopy(cfg.model)))
        check_groups(model)
    except (KeyError, ValueError, TypeError, AttributeError, AssertionError) as error:
        raise UsageError(f'the model of the config cannot be built: {reason_of(error)}') from error
    return model


class Detector:
    """The model of a config with the weights of a checkpoint.

    mmdet's `init_detector` loads what fits, asks the test data set for its palette and so needs it to exist, and takes
    COCO's names for a checkpoint without any; here the weights must fit and the names come from the checkpoint, else
    from the config. Colours go with names, whatever their order.

    Args:
        cfg: The config; its test pipeline prepares the images.
        checkpoint: As `read_checkpoint` returns it.
        path: Its file, for messages.

    Raises:
        UsageError: If the model cannot be built or the weights do not fit.
    """

    def __init__(self, cfg: Config, checkpoint: Mapping[str, Any], path: str, *, device: torch.device) -> None:
        self.path = path
        self.model = build_model(cfg)
        load_weights(self.model, checkpoint, path)
        self.model.cfg = cfg
        self.model.to(device).eval()
        try:
            check_operators(self.model, training=False)
        except NotImplementedError as error:
            raise UsageError(f'the model cannot run here: {error}') from error
        configured = configured_meta(cfg) or {}
        result = "the checkpoint's names are used"
        before_run.check_classes(cfg, checkpoint, path, configured.get('classes'), whose='the config', result=result)
        names, palette = names_and_palette(cfg, checkpoint)
        self.classes: list[str] = list(names)
        if (text := wrong_count(self.model, names, f"the checkpoint '{path}' or its config")) is not None:
            warn(text)
        self.colours = class_colours(len(self.classes) or 20, palette)
        self.pipeline = image_pipeline(cfg)
        self.read = ImageReader.of(cfg)  # a file, as the test pipeline reads it

    def __call__(self, image: NDArray[np.uint8], *, score_thr: float = 0.0) -> Detections:
        """Detect on one image, (H, W) or (H, W, C), as `read` gives it.

        Raises:
            UsageError: If an `UncertainDetector` holds a detector that it cannot take.
            ImageError: If the test pipeline cannot take its size, or the network its channels.
        """
        check_image(self.model, image, 'the image')
        (sample,) = self.run([self.pipeline({'img': image, 'img_id': 0})])
        return self._detections(sample, image, score_thr)

    def detect_batch(
        self, images: Sequence[NDArray[Any]], *, score_thr: float = 0.0, batch_size: int = 8
    ) -> list[Detections | ImageError]:
        """Detect on images of any sizes, several per pass; each gets what it gets alone, up to round-off.

        A pass takes images that come out of the test pipeline in one size. A smaller one, padded to the size of a
        larger one, would get other detections: padding moves the centre that equivariant layers turn about and counts
        in the statistics of group norms.

        Returns:
            For each image its detections, or the error if the pipeline or the network cannot take it.

        Raises:
            UsageError: As a call does; and if random noise is drawn for a whole batch.
        """
        self.check_batch_size(batch_size)
        found: list[Detections | ImageError | None] = [None] * len(images)
        groups: dict[tuple[int, ...], list[tuple[int, dict[str, Any]]]] = {}
        for i, image in enumerate(images):
            try:
                check_image(self.model, image, 'the image')
                item = self.pipeline({'img': image, 'img_id': 0})
            except ImageError as error:
                found[i] = error
            else:
                groups.setdefault(_size(item['inputs']), []).append((i, item))
        for group in groups.values():
            for start in range(0, len(group), batch_size):
                places, items = zip(*group[start : start + batch_size], strict=True)
                for i, sample in zip(places, self.run(items), strict=True):
                    found[i] = self._detections(sample, images[i], score_thr)
        return [one for one in found if one is not None]

    def check_batch_size(self, batch_size: int) -> None:
        """Refuse a batch size with which an image would not get what it gets alone.

        Raises:
            UsageError: If it is below 1, or above where noise or dropout is sampled.
        """
        if batch_size < 1:
            raise UsageError(f'--batch-size must be 1 or more, not {batch_size}')
        model: Any = self.model
        if batch_size > 1 and getattr(model, 'enabled', False):
            sampled = "method='monte_carlo'" if model.method == 'monte_carlo' else 'dropout_samples'
            if model.method == 'monte_carlo' or model.dropout_samples:
                raise UsageError(
                    f'--batch-size {batch_size}: {sampled} draws random numbers for a whole batch, so an image would '
                    'not get what it gets alone; use 1'
                )

    def run(self, items: Sequence[dict[str, Any]]) -> list[Any]:
        """Detect on what the pipeline returned for one or several images; a data sample for each.

        Raises:
            UsageError: If an `UncertainDetector` holds a detector that it cannot take.
        """
        data = {key: [item[key] for item in items] for key in ('inputs', 'data_samples')}
        try:
            with torch.no_grad():
                return list(self.test_step(data))
        except (NoMomentRule, UnsupportedDetector) as error:
            raise UsageError(f'no uncertainty of this detector: {error}') from error

    def test_step(self, data: dict[str, Any]) -> Any:
        """Run the model on a batch."""
        return self.model.test_step(data)

    def _detections(self, sample: Any, image: NDArray[Any], score_thr: float) -> Detections:
        scores_map = sample.get('score_std_map')
        if scores_map is not None:  # of the network's input
            scores_map = map_on_image(scores_map, sample.metainfo, (image.shape[0], image.shape[1]))
        found = sample.pred_instances
        return best_first(found[found.scores >= score_thr], scores_map)


def _size(inputs: Any) -> tuple[Any, ...]:
    """Return the size of an image behind the pipeline, or those of its views."""
    return tuple(inputs.shape) if isinstance(inputs, Tensor) else tuple(map(_size, inputs))


def map_on_image(values: Tensor, meta: Mapping[str, Any], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Interpolate a map over the network's input at the pixels of the image.

    Args:
        values: (h, w), one for each pixel of the network's input.
        meta: Metainfo of the sample; without an offset in its `scale_factor`, the image fills the whole map.
        shape: (H, W) of the image.

    Returns:
        (H, W), without what lies on the padding.
    """
    offset = offset_of(meta)
    if not any(offset):
        resized = cv2.resize(values.cpu().numpy(), shape[::-1], interpolation=cv2.INTER_LINEAR)
        return np.asarray(resized, np.float32)
    scale = meta['scale_factor']
    axes = [  # of the centres of the image's pixels, from -1 at one border of the map to 1 at the other
        ((torch.arange(side, device=values.device) + 0.5) * scale[i] + offset[i]) * 2 / values.shape[1 - i] - 1
        for i, side in enumerate(shape[::-1])
    ]
    y, x = torch.meshgrid(axes[1], axes[0], indexing='ij')
    at = torch.stack([x, y], -1)[None].to(values)
    out = F.grid_sample(values[None, None], at, mode='bilinear', padding_mode='border', align_corners=False)
    return out[0, 0].cpu().numpy()


def best_first(found: InstanceData, scores_map: NDArray[np.float32] | None = None) -> Detections:
    """Convert the predictions of a detector to arrays, best first."""
    found = found[found.scores.argsort(descending=True)]
    boxes = tensor_of(found.bboxes)
    boxes_std, scores_std = found.get('bboxes_std'), found.get('scores_std')
    return Detections(
        boxes.cpu().numpy(),
        found.labels.cpu().numpy(),
        found.scores.cpu().numpy(),
        None if boxes_std is None else boxes_std.cpu().numpy(),
        None if scores_std is None else scores_std.cpu().numpy(),
        scores_map,
    )
