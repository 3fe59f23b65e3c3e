"""Whether an exported detector detects the same, where this package cannot be imported."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial.distance import cdist

from ..apis.inference import Detections, Detector
from ..equivariant.conv import _SteerableConv
from ..models import ADFResNet
from .config_rewrite import Unsupported
from .onnx_network import plain_detector

TINY = 1e-12
ROTATED = 5  # columns of a rotated box; the last is its angle
# share of the detections that may be others: non-maximum suppression and thresholds decide, and between values that are
# equal up to round-off any change of the order of a sum decides
DECIDED = 0.01


@dataclass
class Prediction(Detections):
    """Detections of the exported files, and what made them.

    Attributes:
        maps: What the neck (without one, the backbone) puts out, (1, C, H, W) each.
        parts: Classes of backbone and neck, with their modules.
        classes: Names.
    """

    maps: list[NDArray[np.float32]] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Difference:
    """How far two sets of detections are apart.

    Attributes:
        maps: Largest difference of a map of neck or backbone, over the largest absolute value of that map.
        boxes: Largest difference of a number of a box, over the longest side of the image (of angles in radians), among
            pairs.
        scores: Largest difference of scores among pairs.
        count: Detections of the first set.
        alone: Detections of either set that have no partner of their class within the tolerance.
        tolerance: Of the comparison.
    """

    maps: float
    boxes: float
    scores: float
    count: int
    alone: int
    tolerance: float

    @property
    def passes(self) -> bool:
        """Maps within the tolerance, and so are detections but for `DECIDED`."""
        return self.maps <= self.tolerance and self.alone <= DECIDED * self.count


def predict_without_us(jobs: Sequence[tuple[Path, Path, Path]]) -> list[Prediction]:
    """Detect by mmdet's `init_detector` and `inference_detector` in a process that cannot import this package or e2cnn.

    Args:
        jobs: Config, checkpoint and image, each.

    Raises:
        Unsupported: If it fails there, or weights are missing or left over; the message has the last line.
    """
    # given as text: run as a file, it would find its neighbours
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
    """Detect with the detector as it is; of an `ADFResNet` and in an `UncertainDetector`, the means."""
    model = detector.model
    inner = plain_detector(model)
    last = inner.neck if getattr(inner, 'neck', None) is not None else inner.backbone
    changed: list[tuple[Any, str, Any]] = [(_SteerableConv, 'fourier', False)]  # by the filters that are exported
    if inner is not model:
        changed.append((model, 'enabled', False))
    if isinstance(inner.backbone, ADFResNet):
        changed.append((inner.backbone, 'output', 'mean'))
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in changed]
    maps: list[Any] = []
    hook = last.register_forward_hook(lambda module, inputs, outputs: maps.append(outputs))  # noqa: ARG005
    try:
        for owner, name, value in changed:
            setattr(owner, name, value)
        found = detector(image)
    finally:
        hook.remove()
        for owner, name, value in before:
            setattr(owner, name, value)
    return Prediction(found.boxes, found.labels, found.scores, maps=[level.numpy() for level in maps[0]])


def compare(first: Prediction, second: Prediction, longest_side: float, tolerance: float) -> Difference:
    """Compare the maps; pair as many detections as differ by no more than the tolerance, in one class.

    Equal scores may come in any order, so the order decides nothing.

    Args:
        first, second: The two.
        longest_side: Of the image, pixels.
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
    """Score and box of the detections of one class in comparable units."""
    chosen = found.labels == label
    boxes = found.boxes[chosen].astype(np.float64)
    sides, turn = (boxes[:, :4], boxes[:, 4:]) if boxes.shape[1] == ROTATED else (boxes, boxes[:, :0])
    # half a turn more is the same box; the chord between small angles is their difference
    turn = np.concatenate([np.cos(2 * turn), np.sin(2 * turn)], 1) / 2
    return np.concatenate([found.scores[chosen, None], sides / longest_side, turn], 1)


def _between(first: list[NDArray[np.float32]], second: list[NDArray[np.float32]]) -> float:
    if [a.shape for a in first] != [b.shape for b in second]:
        return float('inf')
    # numpy's maximum: Python's may pass over what is not a number
    return float(np.max([np.abs(a - b).max() / max(np.abs(a).max(), TINY) for a, b in zip(first, second, strict=True)]))
