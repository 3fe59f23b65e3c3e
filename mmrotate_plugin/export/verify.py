"""Whether an exported detector detects the same, where this package cannot be imported."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engine.inference import Detections, Detector
from ..models import ADFResNet
from .network import plain_detector
from .walk import Unsupported

TINY = 1e-12
TURN = 5  # columns of a rotated box; the last is its angle


@dataclass
class Prediction(Detections):
    """Detections of the exported files, and what made them.

    Attributes:
        maps: What the neck (without one, the backbone) puts out, (1, C, H, W) each.
        parts: Classes of backbone and neck, with their modules.
        classes: Names.
    """

    maps: list[NDArray[np.float32]]
    parts: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Difference:
    """How far two sets of detections are apart.

    Attributes:
        maps: Largest difference of a map of neck or backbone, over the largest absolute value of that map.
        boxes: Largest difference of a number of a box, over the longest side of the image; of angles in radians.
        scores: Largest difference of scores.
        count: Detections of the first set.
        alone: Detections of either set that have no partner of their class in the other.
    """

    maps: float
    boxes: float
    scores: float
    count: int
    alone: int

    def within(self, tolerance: float) -> bool:
        return not self.alone and max(self.maps, self.boxes, self.scores) <= tolerance


def predict_without_us(config: Path, checkpoint: Path, image: Path) -> Prediction:
    """Detect by mmdet's `init_detector` and `inference_detector` in a process that cannot import this package or e2cnn.

    Raises:
        Unsupported: If it fails there, or weights are missing or left over; the message has the last line.
    """
    out = config.parent / '.prediction.npz'
    script = Path(__file__).with_name('child.py').read_text(encoding='utf-8')  # as a file, it would find its neighbours
    command = [sys.executable, '-c', script, str(config), str(checkpoint), str(image), str(out)]
    environment = {**os.environ, 'CUDA_VISIBLE_DEVICES': ''}
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            last = ([line for line in done.stderr.splitlines() if line.strip()] or ['no message'])[-1]
            raise Unsupported(f'the exported config does not work without this package: {last}')
        with np.load(out) as data:
            found = {key: data[key] for key in data.files}
    finally:
        out.unlink(missing_ok=True)
    if len(found['wrong']):
        names = ', '.join(found['wrong'][:3])
        raise Unsupported(f'{len(found["wrong"])} weights do not fit the exported model, such as {names}')
    order = np.argsort(-found['scores'], kind='stable')
    maps = [found[f'level{i}'] for i in range(sum(key.startswith('level') for key in found))]
    boxes, labels, scores = (found[key][order] for key in ('boxes', 'labels', 'scores'))
    return Prediction(boxes, labels, scores, maps, found['parts'].tolist(), found['classes'].tolist())


def predict_here(detector: Detector, image: NDArray[np.uint8]) -> Prediction:
    """Detect with the detector as it is; of an `ADFResNet` and in an `UncertainDetector`, the means."""
    model = detector.model
    inner = plain_detector(model)
    last = inner.neck if getattr(inner, 'neck', None) is not None else inner.backbone
    changed = [(model, 'enabled', False)] if inner is not model else []
    if isinstance(inner.backbone, ADFResNet):
        changed.append((inner.backbone, 'output', 'mean'))
    before = [(module, name, getattr(module, name)) for module, name, _ in changed]
    maps: list[Any] = []
    hook = last.register_forward_hook(lambda module, inputs, outputs: maps.append(outputs))  # noqa: ARG005
    try:
        for module, name, value in changed:
            setattr(module, name, value)
        found = detector(image)
    finally:
        hook.remove()
        for module, name, value in before:
            setattr(module, name, value)
    return Prediction(found.boxes, found.labels, found.scores, [level.numpy() for level in maps[0]])


def compare(first: Prediction, second: Prediction, longest_side: float) -> Difference:
    """Compare the maps; pair detections of one class, nearest first, and measure their differences.

    Equal scores may come in any order, so the order decides nothing.
    """
    boxes = scores = 0.0
    alone = 0
    for label in np.union1d(first.labels, second.labels):
        a, b = (_rows(found, label, longest_side) for found in (first, second))
        distance = np.abs(a[:, None] - b[None]).max(-1)
        for _ in range(min(len(a), len(b))):
            i, j = np.unravel_index(distance.argmin(), distance.shape)
            boxes = max(boxes, float(np.abs(a[i, :-1] - b[j, :-1]).max()))
            scores = max(scores, float(np.abs(a[i, -1] - b[j, -1])))
            distance[i], distance[:, j] = np.inf, np.inf
        alone += abs(len(a) - len(b))
    return Difference(_between(first.maps, second.maps), boxes, scores, len(first.scores), alone)


def _rows(found: Prediction, label: int, longest_side: float) -> NDArray[np.float64]:
    """Boxes and scores of one class in comparable units."""
    units = np.full(found.boxes.shape[1], float(longest_side))
    if len(units) == TURN:
        units[-1] = 1
    chosen = found.labels == label
    return np.concatenate([found.boxes[chosen] / units, found.scores[chosen, None]], 1)


def _between(first: list[NDArray[np.float32]], second: list[NDArray[np.float32]]) -> float:
    if [a.shape for a in first] != [b.shape for b in second]:
        return float('inf')
    return max(float(np.abs(a - b).max() / max(np.abs(a).max(), TINY)) for a, b in zip(first, second, strict=True))
