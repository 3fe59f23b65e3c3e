"""Check that an exported detector detects the same in a process that cannot import this package."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.model import BaseModel
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial.distance import cdist

from ..apis.inference import Detections, Detector
from ..models import ADFResNet
from ..models.utils.fourier_path import without_fourier
from ..utils.contexts import temporary_attributes
from .config_rewrite import Unsupported
from .onnx_network import plain_detector

TINY = 1e-12
ROTATED = 5  # columns of a rotated box; the last is its angle
# share of the detections that may differ: suppression and thresholds choose between values that are equal up to
# round-off, where the order of a sum decides
DECIDED = 0.01


@dataclass
class Prediction(Detections):
    """Detections with the feature maps and the classes that they come from.

    Attributes:
        maps: Outputs of the neck (of the backbone, if there is no neck), (1, C, H, W) each.
        parts: Classes of backbone and neck, with their modules.
        classes: Names of the detector's classes.
    """

    maps: list[NDArray[np.float32]] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Difference:
    """How far two sets of detections are apart.

    Attributes:
        maps: Largest difference of a map of neck or backbone, divided by the largest absolute value of that map.
        boxes: Largest difference of a number of a box among pairs, divided by the longest side of the image; of an
            angle, in radians.
        scores: Largest difference of scores among pairs.
        count: Detections of the first set.
        alone: Detections of either set without a partner of their class within the tolerance.
        tolerance: Tolerance of the comparison.
    """

    maps: float
    boxes: float
    scores: float
    count: int
    alone: int
    tolerance: float

    @property
    def passes(self) -> bool:
        """Whether maps are within the tolerance, and detections too, except for a share of `DECIDED`."""
        return self.maps <= self.tolerance and self.alone <= DECIDED * self.count


def predict_without_us(jobs: Sequence[tuple[Path, Path, Path]]) -> list[Prediction]:
    """Detect by mmdet's `init_detector` and `inference_detector` in a process that cannot import this package or e2cnn.

    Args:
        jobs: Config, checkpoint and image of each detection.

    Returns:
        What was found, in the order of the jobs.

    Raises:
        Unsupported: If that process fails, or weights are missing or left over; the message quotes its last line.
    """
    # passed as text: run as a file, it would find its neighbours
    script = Path(__file__).with_name('_predict_isolated.py').read_text(encoding='utf-8')
    with tempfile.TemporaryDirectory() as folder:
        outs = [Path(folder) / f'{i}.npz' for i in range(len(jobs))]
        arguments = [str(path) for job, out in zip(jobs, outs, strict=True) for path in (*job, out)]
        command = [sys.executable, '-c', script, *arguments]
        environment = {**os.environ, 'CUDA_VISIBLE_DEVICES': ''}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            last = ([line for line in done.stderr.splitlines() if line.strip()] or ['no message'])[-1]
            raise Unsupported(f'the exported config does not work without this package: {last}')
        return [_read(out) for out in outs]


def _read(path: Path) -> Prediction:
    with np.load(path) as data:
        found = {key: data[key] for key in data.files}
    if len(found['wrong']):
        names = ', '.join(found['wrong'][:3])
        raise Unsupported(f'{len(found["wrong"])} weights do not fit the exported model, such as {names}')
    order = np.argsort(-found['scores'], kind='stable')
    maps = [found[f'level{i}'] for i in range(sum(key.startswith('level') for key in found))]
    boxes, labels, scores = (found[key][order] for key in ('boxes', 'labels', 'scores'))
    return Prediction(
        boxes, labels, scores, maps=maps, parts=found['parts'].tolist(), classes=found['classes'].tolist()
    )


def predict_here(detector: Detector, image: NDArray[np.uint8]) -> Prediction:
    """Detect with the detector as it is, by its expanded filters; an `ADFResNet` gives the means.

    Args:
        detector: Also with an `UncertainDetector`, whose detections are those of the detector within.
        image: (H, W) or (H, W, C).
    """
    model: BaseModel = detector.model
    inner = plain_detector(model)
    last = inner.neck if getattr(inner, 'neck', None) is not None else inner.backbone
    maps: list[Any] = []
    hook = last.register_forward_hook(lambda module, inputs, outputs: maps.append(outputs))  # noqa: ARG005
    try:
        with ExitStack() as stack:
            stack.enter_context(without_fourier(inner))
            if inner is not model:
                stack.enter_context(temporary_attributes(model, enabled=False))
            if isinstance(inner.backbone, ADFResNet):
                stack.enter_context(temporary_attributes(inner.backbone, output='mean'))
            found = detector(image)
    finally:
        hook.remove()
    return Prediction(found.boxes, found.labels, found.scores, maps=[level.numpy() for level in maps[0]])


def compare(first: Prediction, second: Prediction, longest_side: float, tolerance: float) -> Difference:
    """Compare maps and detections: pair as many detections of one class as differ by no more than the tolerance.

    Their order does not matter, since equal scores may come in any order.

    Args:
        first, second: The two sets.
        longest_side: Longest side of the image, pixels.
        tolerance: For boxes and scores, in the units of `Difference`.
    """
    boxes = scores = 0.0
    pairs = 0
    for label in np.intersect1d(first.labels, second.labels):
        a, b = (_rows(found, label, longest_side) for found in (first, second))
        near = csr_matrix(cdist(a, b, 'chebyshev') <= tolerance)
        partner = maximum_bipartite_matching(near, perm_type='column')
        paired = partner >= 0
        if paired.any():
            apart = np.abs(a[paired] - b[partner[paired]])
            boxes, scores = max(boxes, float(apart[:, 1:].max())), max(scores, float(apart[:, 0].max()))
        pairs += int(paired.sum())
    alone = len(first.scores) + len(second.scores) - 2 * pairs
    return Difference(_between(first.maps, second.maps), boxes, scores, len(first.scores), alone, tolerance)


def _rows(found: Prediction, label: int, longest_side: float) -> NDArray[np.float64]:
    """Score and box, (N, 1 + 4) or (N, 1 + 6), of the detections of one class, in comparable units."""
    chosen = found.labels == label
    boxes = found.boxes[chosen].astype(np.float64)
    sides, turn = (boxes[:, :4], boxes[:, 4:]) if boxes.shape[1] == ROTATED else (boxes, boxes[:, :0])
    # half a turn gives the same box; the chord between small angles is their difference
    turn = np.concatenate([np.cos(2 * turn), np.sin(2 * turn)], 1) / 2
    return np.concatenate([found.scores[chosen, None], sides / longest_side, turn], 1)


def _between(first: list[NDArray[np.float32]], second: list[NDArray[np.float32]]) -> float:
    if [a.shape for a in first] != [b.shape for b in second]:
        return float('inf')
    # numpy's maximum: Python's may ignore nan
    return float(np.max([np.abs(a - b).max() / max(np.abs(a).max(), TINY) for a, b in zip(first, second, strict=True)]))
