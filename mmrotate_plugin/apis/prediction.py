"""Detect on images, folders, patterns, lists and videos: `for result in predict(detector, source)`."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engine.checks.input_images import check_image
from ..utils import safe_load
from ..utils.errors import ImageError, UsageError
from ..utils.messages import warn
from .checkpoint import read_checkpoint
from .config import load_config
from .inference import Detections, Detector, select_device
from .large_images import PatchDetector
from .prediction_result import Prediction
from .prediction_sources import Given, Source, find_sources
from .test_time_augmentation import AugmentedDetector
from .uncertain_config import add_uncertainty, is_uncertain
from .video_frames import Video

AHEAD = 4  # batches whose images are read at a time, to find some of one size
OVERLAP = 5  # patches overlap by a fifth of their side


@dataclass(frozen=True)
class Outcome:
    """What came of an image, of a frame of a video, or of a whole video.

    Attributes:
        source: The image or video.
        prediction: Of the image or frame; None if there is an error, and at the end of a video.
        error: Why the image or the rest of the video could not be used.
        last: Whether nothing more comes of the source.
        known: Whether an interrupted call has detected on the frame.
    """

    source: Source
    prediction: Prediction | None = None
    error: ImageError | None = None
    last: bool = True
    known: bool = False


@dataclass(frozen=True)
class Options:
    """How to detect.

    Attributes:
        score_thr: Lowest score of a detection.
        batch_size: Images per pass.
        patch_size: Side of the patches of large images, pixels; None detects on whole images.
        patch_overlap: Overlap of neighbouring patches, pixels; None for a fifth of the side.
        patch_batch_size: Patches per pass.
    """

    score_thr: float = 0.3
    batch_size: int = 1
    patch_size: int | None = None
    patch_overlap: int | None = None
    patch_batch_size: int | None = None


def load_detector(
    config: str | os.PathLike[str],
    checkpoint: str | os.PathLike[str],
    *,
    device: str | None = None,
    cfg_options: Sequence[str] | None = None,
    uncertainty: bool = False,
    noise_std: float | str | None = None,
    method: str | None = None,
    tta: bool = False,
) -> Detector:
    """Load a trained detector.

    Args:
        config: File of the config, or 'mmrotate_plugin::NAME'.
        checkpoint: File of the weights. One that holds more than weights is refused.
        device: 'cpu', 'cuda:1', ...; a GPU if there is one.
        cfg_options: Values of the config to override, ``['model.test_cfg.max_per_img=500']``.
        uncertainty: Give standard deviations of boxes and scores, by an `UncertainDetector`.
        noise_std: Noise of the images in grey levels, or 'estimate'; needs `uncertainty`.
        method: 'propagated', 'jacobian' or 'monte_carlo'; needs `uncertainty`.
        tta: Merge what is found on several views of each image as ``test --tta`` does, by `tta_model` and
            `tta_pipeline` of the config, by default the four quarter turns.

    Raises:
        UsageError: If a file is missing or wrong, or they do not fit each other.
    """
    for name, value in (('noise_std', noise_std), ('method', method)):
        if value is not None and not uncertainty:
            raise UsageError(f'{name}={value!r} needs uncertainty=True')
    with safe_load.loading():
        cfg = load_config(os.fspath(config), cfg_options)
        if uncertainty:
            add_uncertainty(cfg, noise_std=noise_std, method=method)
        elif is_uncertain(cfg.model):
            cfg.model.enabled = False
        path = os.fspath(checkpoint)
        kind = AugmentedDetector if tta else Detector
        return kind(cfg, read_checkpoint(path), path, device=select_device(device))


def predict(
    detector: Detector,
    source: Given,
    *,
    score_thr: float = 0.3,
    batch_size: int = 1,
    patch_size: int | None = None,
    patch_overlap: int | None = None,
    patch_batch_size: int | None = None,
    on_error: Callable[[Path, ImageError], None] | None = None,
) -> Iterator[Prediction]:
    """Detect on one or many images and videos, in order.

    Args:
        detector: From `load_detector`.
        source: An image, a video, a folder, a pattern such as ``'scenes/**/*.tif'``, a text file with a path in each
            line, an array (H, W) or (H, W, C), or several of these.
        score_thr: Lowest score of a detection.
        batch_size: Images per pass. Images of one size share a pass; each gets what it gets alone, up to round-off.
        patch_size: Go over large images in patches of this side, pixels, see `PatchDetector`.
        patch_overlap: Overlap of neighbouring patches, pixels; a fifth of the side if None.
        patch_batch_size: Patches per pass, 1 if None.
        on_error: Called with each file that cannot be used, and why; by default a warning is logged. The others follow.

    Yields:
        A `Prediction` for each image, and for each frame of a video.

    Raises:
        UsageError: If there is nothing to detect on, or an argument cannot work.
    """
    options = Options(score_thr, batch_size, patch_size, patch_overlap, patch_batch_size)
    finder, told = make_finder(detector, options), set[str]()
    for outcome in outcomes(detector, finder, find_sources(source), options):
        if outcome.prediction is not None:
            yield outcome.prediction
        elif outcome.error is not None and outcome.source.name not in told:  # of a video the first
            told.add(outcome.source.name)
            if on_error is None:
                warn(f'{outcome.error}; left out')
            else:
                on_error(outcome.source.path, outcome.error)


def make_finder(detector: Detector, options: Options, *, show: bool | None = None) -> PatchDetector | None:
    """Check the options, and make the detector of large images if there is a patch size.

    Raises:
        UsageError: If one cannot work.
    """
    if not 0 <= options.score_thr <= 1:
        raise UsageError(f'--score-thr must be from 0 to 1, not {options.score_thr}')
    if options.patch_size is None:
        if (options.patch_overlap, options.patch_batch_size) != (None, None):
            raise UsageError('--patch-overlap and --patch-batch-size need --patch-size')
        detector.check_batch_size(options.batch_size)
        return None
    if options.batch_size != 1:
        raise UsageError(f'--batch-size {options.batch_size}: with --patch-size, --patch-batch-size is what counts')
    overlap = options.patch_size // OVERLAP if options.patch_overlap is None else options.patch_overlap
    batch_size = 1 if options.patch_batch_size is None else options.patch_batch_size
    return PatchDetector(detector, size=options.patch_size, overlap=overlap, batch_size=batch_size, show=show)


def outcomes(
    detector: Detector,
    finder: PatchDetector | None,
    sources: Sequence[Source],
    options: Options,
    known: Callable[[Source], Iterable[Detections | ImageError]] = lambda _: (),
) -> Iterator[Outcome]:
    """Detect on all sources, in order; a broken one does not stop the others.

    Args:
        detector, finder, sources, options: What detects, on what, and how.
        known: Returns what is known of the first frames of a video; they are read, but not detected on.
    """
    read = (part for source in sources for part in _read(detector, source, known(source)))
    ahead = 1 if options.batch_size == 1 else AHEAD * options.batch_size
    while chunk := list(islice(read, ahead)):
        new = [outcome.prediction for outcome in chunk if not outcome.known]
        images = [prediction.image for prediction in new if prediction is not None]
        found = iter(_detect(detector, finder, images, options))
        for outcome in chunk:
            prediction = outcome.prediction
            if prediction is None or outcome.known:
                yield outcome
                continue
            what = next(found)
            if isinstance(what, ImageError):
                frame = '' if prediction.frame is None else f', frame {prediction.frame}'
                error = ImageError(f"'{outcome.source.path}'{frame}: {what}")
                yield dataclasses.replace(outcome, prediction=None, error=error)
            else:
                prediction.found = what
                yield outcome


def _detect(
    detector: Detector, finder: PatchDetector | None, images: Sequence[NDArray[Any]], options: Options
) -> list[Detections | ImageError]:
    if options.batch_size > 1 and images:
        return detector.detect_batch(images, score_thr=options.score_thr, batch_size=options.batch_size)
    found: list[Detections | ImageError] = []
    for image in images:
        try:
            check_image(detector.model, image, 'the image')
            found.append((finder or detector)(image, score_thr=options.score_thr))
        except ImageError as error:
            found.append(error)
    return found


def _read(detector: Detector, source: Source, known: Iterable[Detections | ImageError]) -> Iterator[Outcome]:
    """Read the images of a source; what is found in them comes later, unless it is known."""
    nothing = Detections(np.zeros((0, 5), np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32))

    def one(image: NDArray[Any], frame: int | None = None, found: Detections = nothing) -> Prediction:
        return Prediction(source.path, image, found, detector.classes, frame, detector.colours)

    try:
        if source.kind == 'image':
            image = detector.read(source.path) if source.pixels is None else source.pixels
            yield Outcome(source, one(image))
            return
        earlier = iter(known)
        for number, frame in enumerate(Video(source.path)):
            found = next(earlier, None)
            if isinstance(found, ImageError):
                yield Outcome(source, error=found, last=False, known=True)
            else:
                yield Outcome(source, one(frame, number, found or nothing), last=False, known=found is not None)
    except ImageError as error:
        yield Outcome(source, error=error)
    else:
        yield Outcome(source)
