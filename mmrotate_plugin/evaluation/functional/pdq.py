"""Probability-based detection quality, for rotated boxes."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.special import log_ndtr

from .box_residuals import ROTATED, as_array, as_rotated, box_ious, box_pair, centre_variance

REACH = 4.0  # standard deviations that a detection reaches beyond its edges
CHUNK = 64  # pairs at a time: 3 MB for each tensor at 40 x 40 points


class Quality(NamedTuple):
    """PDQ of a data set, and what it is made of.

    Attributes:
        pdq: Sum of the qualities over the sum of the three counts; nan if there is nothing to count.
        spatial, label: Mean qualities of the true positives; nan without any.
        true_positives: Pairs of a quality above 0.
        false_positives: Detections without a partner.
        false_negatives: Ground truth without one.
    """

    pdq: float
    spatial: float
    label: float
    true_positives: int
    false_positives: int
    false_negatives: int


def pdq(images: Iterable[Mapping[str, Any]], *, cells: int = 40, smallest_probability: float = 1e-14) -> Quality:
    r"""How well detections say where objects are, what they are, and how sure of it they are.

    .. math::
        \mathrm{PDQ} = \frac{\sum q}{N_{TP} + N_{FP} + N_{FN}}, \qquad q = \sqrt{Q_S Q_L}

    over the pairs of a detection and a ground truth that maximise the sum in each image; :math:`Q_S` is
    `spatial_quality`, the label quality :math:`Q_L` is the detection's score if the labels agree, else 0.
    Hall et al., Probabilistic Object Detection: Definition and Evaluation, WACV 2020 (arXiv:1811.10800).

    It departs from the paper in four things. The ground truth is the (rotated) box, for foreground and background; the
    paper has the object's pixels for the foreground. The label quality knows the score of the detected class alone;
    the paper asks for that of the true class. Losses are integrated over `cells` x `cells` points for each of the two
    regions, instead of the image's pixels, so the time does not depend on the sizes of boxes. Pairs whose boxes do not
    overlap have quality 0. So numbers compare with each other, not with published ones.

    Args:
        images: For each image arrays or tensors `bboxes` and `bboxes_std` (N, D), `scores` and `labels` (N,),
            `gt_bboxes` (M, D), `gt_labels` (M,), D being 4 or 5.
        cells: Points along each side of a box.
        smallest_probability: Of the logarithms, as in the paper's program; a pixel missed for sure costs -log of it.

    Raises:
        ValueError: For arguments out of range, or boxes of two kinds.
    """
    if cells < 1:
        raise ValueError(f'cells={cells} must be 1 or more')
    if not 0 < smallest_probability < 1:
        raise ValueError(f'smallest_probability={smallest_probability} must be between 0 and 1')
    from scipy.optimize import linear_sum_assignment

    pairs, misses, extras = [], 0, 0
    for image in images:
        pred, truth = box_pair(image['bboxes'], image['gt_bboxes'])
        scores, labels, gt_labels = (as_array(image[name]) for name in ('scores', 'labels', 'gt_labels'))
        spatial, label = np.zeros((2, len(pred), len(truth)))
        label[...] = np.where(labels[:, None] == gt_labels, scores[:, None], 0)
        i, j = np.nonzero((box_ious(pred, truth) > 0) & (label > 0))
        std = as_array(image['bboxes_std'])
        spatial[i, j] = spatial_quality(pred[i], std[i], truth[j], cells=cells, smallest=smallest_probability)
        quality = np.sqrt(spatial * label)
        i, j = linear_sum_assignment(quality, maximize=True)
        i, j = i[quality[i, j] > 0], j[quality[i, j] > 0]
        pairs.append(np.stack([quality[i, j], spatial[i, j], label[i, j]]))
        extras, misses = extras + len(pred) - len(i), misses + len(truth) - len(i)
    found = np.concatenate([np.zeros((3, 0)), *pairs], axis=1)
    hits = found.shape[1]
    total = hits + extras + misses
    spatial, label = found[1:].mean(1).tolist() if hits else (math.nan, math.nan)
    return Quality(float(found[0].sum()) / total if total else math.nan, spatial, label, hits, extras, misses)


def spatial_quality(pred: Any, std: Any, truth: Any, *, cells: int = 40, smallest: float = 1e-14) -> np.ndarray:
    r"""Spatial quality of pairs, :math:`Q_S = \exp(-(L_{FG} + L_{BG}))`, (K,).

    .. math::
        L_{FG} = -\frac1{|S|} \int_S \log P, \qquad L_{BG} = -\frac1{|S|} \int_{V \setminus S} \log(1 - P)

    with the true box S of area \|S\|, the detection's region V (its box and four standard deviations around it), and
    the probability P of a point to be in the detected box: the product of :math:`\Phi(d_e / s_e)` over its four edges.
    :math:`d_e` is the distance to the edge, inwards. With rotated boxes :math:`s_e^2 = s_c^2 + s_l^2 / 4 + s_a^2 t^2`
    from centre, length and angle, t being the distance along the edge from its middle; horizontal ones have their
    edges' own.

    Args:
        pred, std: (K, 5) or (K, 4), detections and their standard deviations.
        truth: (K, 5) or (K, 4), with areas.
        cells: Points along each side.
        smallest: Probability at which logarithms end.

    Raises:
        ValueError: If the kinds of boxes differ.
    """
    pred, truth = box_pair(pred, truth)
    _, std = box_pair(pred, std)
    edges = edge_variance(pred, std)
    turn = std[:, 4] if pred.shape[1] == len(ROTATED) else np.zeros(len(pred))
    rows = (torch.from_numpy(x) for x in (as_rotated(pred), edges, turn, as_rotated(truth)))
    parts = zip(*(row.split(CHUNK) for row in rows), strict=True)
    return np.concatenate([_quality(*part, cells, math.log(smallest)) for part in parts])


def edge_variance(boxes: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Variance of the edges' places, (N, 4): left, top, right, bottom in the box's frame, without the angle's part."""
    var = std**2
    if boxes.shape[1] != len(ROTATED):
        return var
    along, across = centre_variance(var, boxes[:, 4])
    x, y = along + var[:, 2] / 4, across + var[:, 3] / 4
    return np.stack([x, y, x, y], axis=1)


def _quality(pred: Tensor, edges: Tensor, turn: Tensor, truth: Tensor, cells: int, floor: float) -> np.ndarray:
    log_p = _log_probability(_points(truth, torch.zeros_like(edges), cells), pred, edges, turn)
    foreground = log_p.clamp_min(floor).mean(1)

    farthest = edges + (turn[:, None] * pred[:, [3, 2, 3, 2]] / 2).square()
    margin = REACH * farthest.sqrt()
    points = _points(pred, margin, cells)
    outside = (_in_frame(points, truth).abs() > truth[:, None, 2:4] * (0.5 + 1e-9)).any(2)
    log_q = torch.log1p(-_log_probability(points, pred, edges, turn).exp()).clamp_min(floor)
    region = (pred[:, 2:4] + margin[:, :2] + margin[:, 2:]).prod(1)
    background = (log_q * outside).mean(1) * region / truth[:, 2:4].prod(1)
    return (foreground + background).exp().numpy()


def _points(boxes: Tensor, margin: Tensor, cells: int) -> Tensor:
    """Middles of the cells of boxes with margins (left, top, right, bottom), (K, cells^2, 2) in the image."""
    steps = (torch.arange(cells, dtype=boxes.dtype) + 0.5) / cells
    unit = torch.cartesian_prod(steps, steps)
    low, high = -boxes[:, 2:4] / 2 - margin[:, :2], boxes[:, 2:4] / 2 + margin[:, 2:]
    x, y = (low[:, None] + unit * (high - low)[:, None]).unbind(2)
    cos, sin = boxes[:, 4:].cos(), boxes[:, 4:].sin()
    return torch.stack([cos * x - sin * y, sin * x + cos * y], dim=2) + boxes[:, None, :2]


def _in_frame(points: Tensor, boxes: Tensor) -> Tensor:
    """Points in the boxes' frames, from the centre, (K, P, 2)."""
    x, y = (points - boxes[:, None, :2]).unbind(2)
    cos, sin = boxes[:, 4:].cos(), boxes[:, 4:].sin()
    return torch.stack([cos * x + sin * y, cos * y - sin * x], dim=2)


def _log_probability(points: Tensor, boxes: Tensor, edges: Tensor, turn: Tensor) -> Tensor:
    """Log of the probability that points lie in the boxes, (K, P)."""
    place = _in_frame(points, boxes)
    half = boxes[:, None, 2:4] / 2
    inwards = torch.cat([half + place, half - place], dim=2)  # (K, P, 4), left, top, right, bottom
    along = place.flip(2).repeat(1, 1, 2)
    std = (edges[:, None] + (turn[:, None, None] * along).square()).sqrt()
    # without uncertainty a point is inside or outside; on the edge itself it is both
    score = (inwards / std).nan_to_num(nan=0.0, posinf=math.inf, neginf=-math.inf)
    return log_ndtr(score).sum(2)
