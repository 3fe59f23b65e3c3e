"""Check that the boxes of a detector turn with the image."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..datasets.transforms.turn_image import corners_of, paint_beyond_disc, turn_image, within_disc
from ..evaluation.functional.box_residuals import as_rotated
from ..evaluation.turned_detections import Found, TurnedPairs, compare_turned
from ..structures import tensor_of
from ..structures.turns import HORIZONTAL, POLYGON, turn_boxes, turned_size
from ..testing import exact_elements
from .equivariance_check import Element, Preparation, exact_turns

SCORE_THR = 0.3
BEST = 100  # detections that count if the weights are random, and scores say nothing
CANDIDATES = 200  # before suppression, likewise
BOX_TOL, SCORE_TOL = 1e-3, 1e-5  # pixels, and score: what round-off may do to an exact turn
LONG = 100  # pixels of a box's longer side, beyond which the tolerance grows with it
HEADS = ('rpn_head', 'bbox_head', 'roi_head', 'mask_head')

Detect = Callable[[NDArray[Any]], Found]


@dataclass(frozen=True)
class Turn:
    """One turn of an image, and what a detector made of it.

    Attributes:
        degrees: Angle, counter-clockwise.
        mirrored: Whether the image was reflected first.
        exact: Whether the turn maps the pixels onto pixels; then the whole image counts, else its disc.
        image: The turned image, (H, W) or (H, W, C).
        expected, found: Detections on the image, turned, and on the turned image.
        pairs: Their comparison.
    """

    degrees: float
    mirrored: bool
    exact: bool
    image: NDArray[Any]
    expected: Found
    found: Found
    pairs: TurnedPairs

    def row(self) -> dict[str, Any]:
        """Return the numbers of the turn, as in the report."""
        facts = {'degrees': self.degrees, 'mirrored': self.mirrored, 'exact': self.exact}
        return facts | self.pairs.summary()


class NothingFound(Exception):
    """There are no detections to compare; the message says what would give some."""


def claimed_group(model: nn.Module) -> str | None:
    """Return the group that backbone, neck and all heads of a detector have in common, or None."""
    parts = [getattr(model, name, None) for name in ('backbone', 'neck', *HEADS)]
    groups = {getattr(part, 'group', None) for part in parts if isinstance(part, nn.Module)}
    heads = any(isinstance(getattr(model, name, None), nn.Module) for name in HEADS)
    group = groups.pop() if heads and len(groups) == 1 else None
    return group if isinstance(group, str) and exact_elements(group) else None


class BoxCheck:
    """Detect on an image and on its turns.

    Args:
        model: A detector of mmdet or mmrotate in eval mode; its thresholds are lowered to `score_thr`.
        preparation: Prepares images for it.
        score_thr: Lowest score of a detection that counts; None for `SCORE_THR`, or, with random weights, that of the
            `BEST` highest scores.
        trained: Whether the weights are not random.
    """

    def __init__(self, model: Any, preparation: Preparation, score_thr: float | None, *, trained: bool = True) -> None:
        self.model, self.pipeline = model, preparation.pipeline
        self.best_only = score_thr is None and not trained
        self.score_thr = 0.0 if self.best_only else SCORE_THR if score_thr is None else score_thr
        lower_thresholds(model, self.score_thr - SCORE_TOL, most=CANDIDATES if self.best_only else None)

    def turns(self, image: NDArray[Any], group: str | None, degrees: Sequence[float]) -> list[Turn]:
        """Compare the detections on all turns of an image, those of `exact_turns` first.

        Other angles are rendered within the disc that stays inside of the image at every angle, and only boxes within
        that disc count. Detectors of horizontal boxes, which no other angle turns into such boxes, are left to exact
        turns.

        Args:
            image: (H, W) or (H, W, C), as read from a file.
            group: Fiber group whose exact turns to take; None for quarter turns. Quarter turns are always among them.
            degrees: Angles of the circle.

        Raises:
            NothingFound: If there is nothing to compare.
        """
        upright = self.detect(image)
        if self.best_only and len(upright.scores):
            self.score_thr = float(np.sort(upright.scores)[-min(BEST, len(upright.scores))])
        self._must_find(upright, image)
        wanted: dict[Element, None] = dict.fromkeys([*exact_turns(None), *exact_turns(group)])
        turns = [self._turn(image, upright, 90.0 * k, flip, exact=True) for k, flip in wanted]
        others = [angle for angle in degrees if angle % 90]
        if upright.boxes.shape[1] == HORIZONTAL or not others:
            return turns
        disc = paint_beyond_disc(image)
        upright = self.detect(disc)
        return turns + [self._turn(disc, upright, angle, False, exact=False) for angle in others]

    def detect(self, image: NDArray[Any]) -> Found:
        """Detect on an image; boxes of four corners become rotated ones."""
        data = self.pipeline({'img': np.ascontiguousarray(image), 'img_id': 0})
        batch = {'inputs': [data['inputs']], 'data_samples': [data['data_samples']]}
        with torch.no_grad():
            (sample,) = self.model.test_step(batch)
        found = sample.pred_instances
        boxes = tensor_of(found.bboxes).cpu().double().numpy()
        if boxes.shape[1] == POLYGON:
            boxes = smallest_rectangles(boxes)
        scores = found.scores.cpu().double().numpy()
        return Found(boxes, found.labels.cpu().numpy(), scores, scores >= self.score_thr)

    def _turn(self, image: NDArray[Any], upright: Found, degrees: float, flip: bool, *, exact: bool) -> Turn:
        size = image.shape[:2]
        turned = turn_image(image, degrees, flip=flip)
        found = self.detect(turned)
        expected = Found(
            turn_boxes(upright.boxes, degrees, size, flip=flip), upright.labels, upright.scores, upright.counts
        )
        if len(found.boxes) == 0:
            found = Found(expected.boxes[:0], found.labels[:0], found.scores[:0], found.counts[:0])
        expected, found = (self._counted(part, turned_size(size, degrees), exact) for part in (expected, found))
        return Turn(degrees, flip, exact, turned, expected, found, compare_turned(expected, found))

    def _counted(self, part: Found, size: Sequence[int], exact: bool) -> Found:
        """Leave out scores clearly below the threshold; count those above it, off the grid within the disc alone."""
        kept = part.scores >= self.score_thr - SCORE_TOL
        counts = part.scores >= self.score_thr
        if not exact:
            counts &= within_disc(corners_of(part.boxes), size).all(1)
        return Found(part.boxes[kept], part.labels[kept], part.scores[kept], counts[kept])

    def _must_find(self, upright: Found, image: NDArray[Any]) -> None:
        if upright.counts.any():
            return
        lower_thresholds(self.model, 0.0, most=CANDIDATES)
        best = self.detect(image).scores.max(initial=0.0)
        if best <= 0:
            raise NothingFound('the detector finds nothing on this image at any score: take another --img')
        raise NothingFound(
            f'no detection has a score of {self.score_thr:g} or more on this image; the best has {best:.3g}: take '
            f'--score-thr {_below(best):g}, or another --img'
        )


def lower_thresholds(model: nn.Module, score_thr: float, *, most: int | None = None) -> None:
    """Let the heads of a detector return all boxes of a score and above.

    Args:
        model: A detector of mmdet or mmrotate.
        score_thr: Lower a head's own threshold to this.
        most: Lower the number of candidates, before and after suppression, to this.
    """
    for module in model.modules():
        cfg = getattr(module, 'test_cfg', None)
        if not isinstance(cfg, Mapping):
            continue
        limits = {'score_thr': max(score_thr, 0.0)} | ({} if most is None else {'nms_pre': most, 'max_per_img': most})
        for name, value in limits.items():
            if isinstance(cfg.get(name), (int, float)):
                cfg[name] = min(cfg[name], value)  # type: ignore[index]  # a dict of mmengine


def judge_boxes(turns: Sequence[Turn], group: str) -> list[str]:
    """Return what contradicts the claim that boxes turn with the image, one sentence each.

    Args:
        turns: As `BoxCheck.turns` returns them.
        group: The claim, see `claimed_group`.
    """
    claimed = [turn for turn in turns if (int(turn.degrees // 90), turn.mirrored) in exact_turns(group) and turn.exact]
    rows = [turn.row() for turn in claimed]
    wrong = []
    lost, new = (max((row[key] for row in rows), default=0) for key in ('lost', 'new'))
    if lost or new:
        wrong.append(f'detections: up to {lost} lost and {new} new at turns that are exact in {group}')
    for turn in claimed:
        pairs, boxes = turn.pairs, as_rotated(turn.expected.boxes[turn.pairs.pairs[:, 0]])
        far = pairs.errors['corner'] > BOX_TOL * np.maximum(1, boxes[:, 2:4].max(1, initial=0) / LONG)
        apart = pairs.errors['score'] > SCORE_TOL
        at = f'at the turn by {turn.degrees:g} degrees{" with a reflection" if turn.mirrored else ""}, exact in {group}'
        if far.any():
            worst = pairs.errors['corner'].max()
            wrong.append(f'detections: corners differ by up to {worst:.1e} pixels {at} (at most {BOX_TOL:g})')
        if apart.any():
            worst = pairs.errors['score'].max()
            wrong.append(f'detections: scores differ by up to {worst:.1e} {at} (at most {SCORE_TOL:g})')
        if far.any() or apart.any():
            break  # the others would say the same
    return wrong


def smallest_rectangles(polygons: NDArray[np.float64]) -> NDArray[np.float64]:
    """Enclose four corners, (N, 8), in the smallest rectangles, (N, 5)."""
    boxes = np.zeros((len(polygons), 5))
    for i, points in enumerate(polygons.reshape(-1, 4, 2)):
        middle = points.mean(0)
        (x, y), sides, angle = cv2.minAreaRect((points - middle).astype(np.float32))
        boxes[i] = (x + middle[0], y + middle[1], *sides, math.radians(angle))
    return boxes


def _below(score: float) -> float:
    """Round a score down to one digit."""
    step = 10.0 ** math.floor(math.log10(score))
    return math.floor(score / step) * step
