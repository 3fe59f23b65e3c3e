"""Fit variance gains to a detector or its backbone: images to fit on, and the fit."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import DATASETS
from torch import Tensor, nn

from .. import adf
from ..adf.calibration import Calibration, calibrate
from ..engine.checks import before_run
from ..engine.checks.input_images import check_first_image, check_image
from ..equivariant.fields import group_order
from ..models import ADFResNet, ResNet
from ..models.detectors.uncertain_detector import UncertainDetector
from ..models.uncertainty.detector_calibration import DetectorCalibration, TooFewDetections, calibrate_detector
from ..models.uncertainty.fitted_buffers import is_fitted
from ..models.uncertainty.head_trace import UnsupportedDetector
from ..models.uncertainty.image_noise import normalised_variance
from ..utils.errors import ImageError, UsageError
from .inference import Detector

READS = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp')
MIN_SCORE = 0.1  # of detections that boxes are fitted on


def fit_backbone(
    model: BaseModel, images: Tensor, noise_std: float, *, held_out: int, num_samples: int, seed: int
) -> Calibration:
    """Fit the gains of a detector's backbone.

    Args:
        model: The detector.
        images: (N, C, H, W), as the backbone gets them; the last `held_out` of them are for the check.
        noise_std: Of the images, in grey levels.
        held_out: Number of images to check the gains on.
        num_samples: Monte Carlo passes.
        seed: Of the noise.

    Raises:
        UsageError: If the backbone has an operation that no rule for the variance exists for.
    """
    count, backbone = len(images) - held_out, model.backbone
    propagate, plain = runners(backbone)
    try:
        with propagate:
            return calibrate(
                backbone,
                images[:count],
                normalised_variance(noise_std, model.data_preprocessor),
                held_out=images[count:] if held_out else None,
                num_samples=num_samples,
                share=order_of(backbone),
                plain=plain,
                seed=seed,
                progress=True,
            )
    except adf.NoMomentRule as error:
        raise UsageError(f'the backbone, {type(backbone).__name__}, cannot propagate a variance: {error}') from error


def fit_detector(
    model: UncertainDetector,
    images: Tensor,
    noise_std: float,
    *,
    held_out: int,
    num_samples: int,
    seed: int,
    min_score: float = MIN_SCORE,
) -> DetectorCalibration:
    """Fit the gains of backbone, neck, head and boxes; images count as whole ones, even if they were cropped.

    Args:
        model: The detector; the other arguments are those of `fit_backbone`.
        min_score: Lowest score of a detection that counts in the fit of boxes.

    Raises:
        UsageError: If the detector cannot be traced or finds too little.
    """
    from mmdet.structures import DetDataSample

    size = tuple(images.shape[-2:])
    meta: dict[str, Any] = {'img_shape': size, 'ori_shape': size, 'pad_shape': size, 'batch_input_shape': size}
    meta |= {'scale_factor': (1.0, 1.0), 'flip': False}
    try:
        return calibrate_detector(
            model,
            images,
            [DetDataSample(metainfo={**meta, 'img_id': i}) for i in range(len(images))],
            normalised_variance(noise_std, model.data_preprocessor),
            num_held_out=held_out,
            num_samples=num_samples,
            share=order_of(model.backbone),
            min_score=min_score,
            seed=seed,
            progress=True,
        )
    except (adf.NoMomentRule, UnsupportedDetector, TooFewDetections) as error:
        raise UsageError(f'the detector cannot be calibrated: {error}') from error


def order_of(backbone: nn.Module) -> int:
    """Return the order of an equivariant backbone's group: the number of orientations that share a gain."""
    group = getattr(backbone, 'group', None)
    return group_order(group) if isinstance(group, str) else 1


def without_gains(state: Mapping[str, Any]) -> 'OrderedDict[str, Any]':
    """Drop the gains of an earlier calibration, and the errors that were fitted to its deviations."""
    kept = OrderedDict((key, value) for key, value in state.items() if not is_fitted(key))
    vars(kept)['_metadata'] = getattr(state, '_metadata', {})  # torch's attribute of state dicts; notes the group
    return kept


def runners(backbone: nn.Module) -> tuple[AbstractContextManager[None], Callable[[Tensor], Any] | None]:
    """Return how to propagate through a backbone, and how to run it plainly.

    Returns:
        A context in which the backbone maps a Gaussian to Gaussians, and a call for the plain network; None if that is
        the backbone itself.
    """
    if not isinstance(backbone, ADFResNet):
        return nullcontext(), None

    @contextmanager
    def propagating() -> Iterator[None]:
        chosen = backbone.variance, backbone.output
        backbone.variance, backbone.output = 'diagonal' if chosen[0] == 'none' else chosen[0], 'gaussian'
        try:
            yield
        finally:
            backbone.variance, backbone.output = chosen

    return propagating(), partial(ResNet.forward, backbone)


def load_images(
    cfg: Config, detector: Detector, config: str, *, folder: str | None, num_images: int, held_out: int
) -> list[Tensor]:
    """Load images, evenly spread over a folder or the validation data, as the backbone gets them, (C, H, W) each.

    Args:
        cfg: The config.
        detector: Its detector.
        config: File of the config, for messages.
        folder: With images; None for the val_dataloader of the config.
        num_images: Images to fit on.
        held_out: Further images, which come last.

    Raises:
        UsageError: If there are too few, or they cannot be read.
    """
    if folder is not None:
        source, where, load = _from_folder(Path(folder), detector)
    else:
        source, where, load = _from_data_set(cfg, detector, config)
    wanted = num_images + held_out
    if source < wanted:
        raise UsageError(
            f'{where} has {source} images, but --num-images {num_images} and --held-out {held_out} ask for {wanted}'
        )
    # held-out images are spread evenly too: neighbours, crops of one scene, would make both halves alike
    chosen = [i * source // wanted for i in range(wanted)]
    last = {round((j + 0.5) * wanted / held_out - 0.5) for j in range(held_out)}
    order = sorted(range(wanted), key=lambda i: i in last)
    try:
        return [normalised(load(chosen[i]), detector.model.data_preprocessor) for i in order]
    except (ImageError, OSError) as error:
        raise UsageError(f'{where}: {error}') from error


Source = tuple[int, str, Callable[[int], Any]]  # number of images, what to call them, and how to load one


def _from_folder(folder: Path, detector: Detector) -> Source:
    if not folder.is_dir():
        raise UsageError(f"--images '{folder}' is not a folder")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in READS)

    def load(i: int) -> Any:
        image = detector.read(files[i])
        check_image(detector.model, image, f"'{files[i]}'")
        return detector.pipeline({'img': image, 'img_id': 0})

    return len(files), f"--images '{folder}'", load


def _from_data_set(cfg: Config, detector: Detector, config: str) -> Source:
    if cfg.get('val_dataloader') is None:
        raise UsageError(f"config '{config}' has no val_dataloader: name a folder with --images")
    try:
        dataset = DATASETS.build(cfg.val_dataloader.dataset)
    except (KeyError, ValueError, IndexError, OSError) as error:
        raise UsageError(
            f'the data set of val_dataloader cannot be read: {error}; name a folder with --images instead'
        ) from error
    before_run.check_heads(detector.model, dataset, 'val_dataloader')
    check_first_image(detector.model, dataset)
    return len(dataset), 'the data set of val_dataloader', dataset.__getitem__


def normalised(sample: Mapping[str, Any], preprocessor: nn.Module) -> Tensor:
    """Normalise an image, without padding, which would have no noise."""
    height, width = sample['inputs'].shape[-2:]
    batch = {'inputs': [sample['inputs']], 'data_samples': [sample['data_samples']]}
    inputs: Tensor = preprocessor(batch, False)['inputs']
    return inputs[0, :, :height, :width]


def crop(images: Sequence[Tensor], size: int | None) -> Tensor:
    """Crop images to one size, around their centres.

    Args:
        images: (C, H, W) each.
        size: Largest side; None for no limit.

    Returns:
        (N, C, H, W).
    """
    sides = [min(min(image.shape[d] for image in images), size or 10**9) for d in (1, 2)]
    cut = []
    for image in images:
        top, left = ((image.shape[d + 1] - sides[d]) // 2 for d in (0, 1))
        cut.append(image[:, top : top + sides[0], left : left + sides[1]])
    return torch.stack(cut)
