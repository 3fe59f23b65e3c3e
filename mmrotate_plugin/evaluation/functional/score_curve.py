"""Precision, recall and F1 as functions of the score from which detections count."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .mean_ap import Ranking


class ScoreCurve(NamedTuple):
    """What a threshold of the score gives.

    Attributes:
        threshold: (N,), the scores that occur, falling. Detections with this score or more count.
        recall, precision, f1: (N,).
    """

    threshold: np.ndarray
    recall: np.ndarray
    precision: np.ndarray
    f1: np.ndarray


class Best(NamedTuple):
    """The threshold with the largest F1, and what it gives; nan without detections or objects."""

    threshold: float
    recall: float
    precision: float
    f1: float


def score_curve(rankings: Sequence[Ranking]) -> ScoreCurve:
    r"""Compute the curves of one class, or of several together (each detection and object counts once).

    With n detections of the threshold's score or more, t of them hits, and m objects: precision t / n, recall t / m,
    :math:`F_1 = 2 t / (n + m)`. Detections of equal scores enter together, so that their order does not matter.

    Args:
        rankings: See `rank_detections`, one for each class.
    """
    scores = np.concatenate([np.zeros(0), *(one.scores for one in rankings)])
    hits = np.concatenate([np.zeros(0, dtype=bool), *(one.hits for one in rankings)])
    objects = sum(one.objects for one in rankings)
    order = np.argsort(-scores, kind='stable')
    scores, true, number = scores[order], hits[order].cumsum(), np.arange(1, len(scores) + 1)
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)[: len(scores)])
    recall = true[last] / objects if objects else np.full(len(last), np.nan)
    return ScoreCurve(scores[last], recall, true[last] / number[last], 2 * true[last] / (number[last] + objects))


def best_threshold(curve: ScoreCurve) -> Best:
    """Return the threshold with the largest F1; of several, the highest."""
    if not len(curve.f1) or np.isnan(curve.recall).any():
        return Best(math.nan, math.nan, math.nan, math.nan)
    i = int(curve.f1.argmax())
    return Best(*(float(values[i]) for values in curve))
