"""Detection on images that are too large for one pass: overlapping patches, merged by the detector's own NMS."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from mmengine.config import Config
from numpy.typing import NDArray

from ..adf import NoMomentRule
from ..adf.progress import track
from ..models.uncertainty.tracing import UnsupportedDetector
from . import cli
from .inference import Detections, Detector, best_first

SMALLEST = 32  # pixels; a patch below that has no map left at the usual strides


class _NothingError(Exception):
    """No patch has a detection; holds none of them."""


class PatchDetector:
    """A `Detector` that goes over an image patch by patch, with mmrotate's `inference_detector_by_patches`.

    Beside the image, memory holds one batch of patches and the detections above the threshold. A box that two patches
    see is found twice, and non-maximum suppression with the detector's own settings keeps the better one, so the
    overlap should be as long as the longest object: one that no patch has whole is found in parts.

    Args:
        detector: With a pipeline that takes arrays. An uncertain one gives deviations of its boxes, but no heat map.
        size: Side of a patch, pixels; where the image is smaller it is padded.
        overlap: Of neighbouring patches, pixels.
        batch_size: Patches at a time.
        show: Whether a bar on stderr tells the progress; None for terminals only.

    Raises:
        UsageError: If a number is out of range, mmrotate is missing, or the detector has no NMS to merge with.
    """

    def __init__(
        self, detector: Detector, *, size: int, overlap: int, batch_size: int = 1, show: bool | None = None
    ) -> None:
        if size < SMALLEST:
            raise cli.UsageError(f'--patch-size must be {SMALLEST} pixels or more, not {size}')
        if not 1 <= overlap < size:  # mmrotate wants one
            raise cli.UsageError(f'--patch-overlap must be 1 or more and below the patch size {size}, not {overlap}')
        if batch_size < 1:
            raise cli.UsageError(f'--patch-batch-size must be 1 or more, not {batch_size}')
        try:
            from mmrotate.apis import inference_detector_by_patches
            from mmrotate.datasets.transforms import LoadPatchFromNDArray
            from mmrotate.utils import slide_window
        except ImportError as error:
            raise cli.UsageError(f'--patch-size needs mmrotate, which cannot be imported: {error}') from error
        self.detector = detector
        self.size, self.step, self.batch_size, self.show = size, size - overlap, batch_size, show
        self.nms = nms_of(detector.model.cfg)
        load = LoadPatchFromNDArray()
        self.pipeline = lambda data: detector.pipeline(load(data))
        self._detect, self._slide = inference_detector_by_patches, slide_window

    def __call__(self, image: NDArray[np.uint8], *, score_thr: float = 0.0) -> Detections:
        """Detect on one image (H, W, 3) of any size."""
        height, width = image.shape[:2]
        count = len(self._slide(width, height, [self.size], [self.step]))
        batches = math.ceil(count / self.batch_size)
        bar = track(batches, f'{count} patches', self.show)
        next(bar)
        done = kept = 0

        def after_batch(_module: Any, _inputs: Any, outputs: list[Any]) -> None:
            nonlocal done, kept
            for sample in outputs:  # what is below the threshold suppresses nothing that is above it
                found = sample.pred_instances
                sample.pred_instances = found[found.scores >= score_thr]
                kept += len(sample.pred_instances)
                sample.pop('score_std_map', None)  # of this patch alone, and large
            done += 1
            next(bar, None)
            if done == batches and not kept:
                raise _NothingError(sample.pred_instances)  # mmcv's NMS over classes needs a box

        handle = self.detector.model.register_forward_hook(after_batch)
        try:
            merged = self._detect(
                self.detector.model, image, [self.size], [self.step], [1.0], dict(self.nms), self.pipeline,
                self.batch_size,
            )  # fmt: skip
            found = merged.pred_instances
        except _NothingError as nothing:
            found = nothing.args[0]
        except (NoMomentRule, UnsupportedDetector) as error:
            raise cli.UsageError(f'no uncertainty of this detector: {error}') from error
        finally:
            handle.remove()
            bar.close()
        return best_first(found)


def nms_of(cfg: Config) -> dict[str, Any]:
    """Settings of the last NMS of a config's detector.

    Raises:
        UsageError: If it has none.
    """
    model: Mapping[str, Any] = cfg.model
    while 'test_cfg' not in model and isinstance(model.get('detector'), Mapping):  # a detector around another
        model = model['detector']
    test = model.get('test_cfg') or {}
    nms = (test.get('rcnn') or test).get('nms')
    if not isinstance(nms, Mapping) or 'iou_threshold' not in nms:
        raise cli.UsageError("--patch-size: the config's model.test_cfg has no nms with an iou_threshold to merge with")
    return dict(nms)
