"""Compare the detections on a turned image with the turned detections on the image."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from ..structures.corners import box_corners
from ..structures.rotated_iou import rotated_iou
from .functional.box_residuals import as_rotated

SQUARE = 1.2  # the longer side over the shorter, below which a box has no direction to speak of
SAME = 0.5  # smallest overlap of two detections that are taken for one
TIE = 0.01  # of the difference of scores, to tell boxes apart that lie on each other
ERRORS = ('centre', 'size', 'angle', 'score', 'corner')


@dataclass(frozen=True)
class Found:
    """Detections on one image.

    Attributes:
        boxes: (N, 5) as cx, cy, w, h, angle, or (N, 4) as x1, y1, x2, y2; pixels and radians.
        labels, scores: (N,).
        counts: (N,), whether a detection is compared. The others may only be the partner of one that is, so that no
            threshold or border comes between the two of a pair.
    """

    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    scores: NDArray[np.float64]
    counts: NDArray[np.bool_]


@dataclass(frozen=True)
class TurnedPairs:
    """How two sets of detections differ.

    Attributes:
        pairs: (K, 2) indices of expected and found detections; the expected ones count.
        lost: (L,) indices of expected detections without a partner.
        new: (M,) indices of found detections without a partner.
        errors: For each of `ERRORS`, (K,): distance of the centres, pixels; the worse relative difference of the two
            sides; angle between the longer sides, degrees, nan for near-squares; absolute difference of the scores;
            largest distance of two corners, pixels, in the best of the orders that go round.
    """

    pairs: NDArray[np.intp]
    lost: NDArray[np.intp]
    new: NDArray[np.intp]
    errors: Mapping[str, NDArray[np.float64]]

    def summary(self) -> dict[str, Any]:
        """Return numbers: `detections` that were expected, `matched`, `lost`, `new`, `near_squares`, and errors.

        Each of the errors has a `median` and a `max`; nan without pairs.
        """
        return summarise(len(self.pairs), len(self.lost), len(self.new), self.errors)


def summarise(matched: int, lost: int, new: int, errors: Mapping[str, NDArray[np.float64]]) -> dict[str, Any]:
    """Summarise pairs of one image or of several, see `TurnedPairs.summary`."""
    numbers: dict[str, Any] = {
        'detections': matched + lost,
        'matched': matched,
        'lost': lost,
        'new': new,
        'near_squares': int(np.isnan(errors['angle']).sum()),
    }
    for name, values in errors.items():
        there = values[~np.isnan(values)]
        numbers[name] = {
            'median': float(np.median(there)) if len(there) else math.nan,
            'max': float(there.max()) if len(there) else math.nan,
        }
    return numbers


def compare_turned(expected: Found, found: Found) -> TurnedPairs:
    """Pair the detections of each class one to one, by the largest sum of overlaps, and measure the pairs.

    Two detections are a pair if they overlap by half or more. Kuhn, The Hungarian method, 1955.

    Args:
        expected: Detections on the image, turned.
        found: Detections on the turned image, boxes of the same kind.
    """
    partner = np.full(len(expected.boxes), -1)
    taken = np.zeros(len(found.boxes), bool)
    for label in np.intersect1d(expected.labels, found.labels):
        rows, columns = np.flatnonzero(expected.labels == label), np.flatnonzero(found.labels == label)
        ious = rotated_iou(expected.boxes[rows], found.boxes[columns])
        apart = np.abs(expected.scores[rows, None] - found.scores[columns])
        chosen = linear_sum_assignment(np.where(ious >= SAME, ious - TIE * apart, 0), maximize=True)
        for i, j in zip(*chosen, strict=True):
            if ious[i, j] >= SAME:
                partner[rows[i]], taken[columns[j]] = columns[j], True
    there = np.flatnonzero((partner >= 0) & expected.counts)
    pairs = np.stack([there, partner[there]], axis=1)
    return TurnedPairs(
        pairs,
        np.flatnonzero((partner < 0) & expected.counts),
        np.flatnonzero(~taken & found.counts),
        pair_errors(expected, found, pairs),
    )


def pair_errors(expected: Found, found: Found, pairs: NDArray[np.intp]) -> dict[str, NDArray[np.float64]]:
    """Measure pairs, see `TurnedPairs`."""
    before, after = (as_rotated(part.boxes[pairs[:, i]]) for i, part in enumerate((expected, found)))
    (sides, square, angle), (other_sides, other_square, other_angle) = _long_edge(before), _long_edge(after)
    turn = np.degrees(np.abs((other_angle - angle + math.pi / 2) % math.pi - math.pi / 2))
    with np.errstate(divide='ignore', invalid='ignore'):
        size = np.abs(other_sides / sides - 1).max(1, initial=0)
    corners, other = box_corners(before), box_corners(after)
    shifts = [np.linalg.norm(np.roll(other, i, axis=1) - corners, axis=2).max(1) for i in range(4)]
    return {
        'centre': np.linalg.norm(after[:, :2] - before[:, :2], axis=1),
        'size': size,
        'angle': np.where(square | other_square, math.nan, turn),
        'score': np.abs(found.scores[pairs[:, 1]] - expected.scores[pairs[:, 0]]),
        'corner': np.min(shifts, axis=0),
    }


def _long_edge(boxes: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    """Return the sides, longer first (N, 2), whether a box is nearly square, and the angle of the longer side."""
    w, h, angle = boxes[:, 2], boxes[:, 3], boxes[:, 4]
    sides = np.stack([np.maximum(w, h), np.minimum(w, h)], axis=1)
    return sides, sides[:, 0] < SQUARE * sides[:, 1], np.where(w >= h, angle, angle + math.pi / 2)
