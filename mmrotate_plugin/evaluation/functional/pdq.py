"""Compute the probability-based detection quality (PDQ) of rotated boxes."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.special import log_ndtr

from ...structures.corners import rotate
from .box_residuals import ROTATED, as_array, as_rotated, box_ious, box_pair, centre_variance

REACH = 4.0  # standard deviations that a detection reaches beyond its edges
CHUNK = 64  # pairs at a time: 3 MB per tensor at 40 x 40 points


class Quality(NamedTuple):
    """PDQ of a data set, and its parts.

    Attributes:
        pdq: Sum of the qualities divided by the sum of the three counts; nan if there is nothing to count.
        spatial, label: Mean qualities of the true positives; nan without any.
        true_positives: Pairs with a quality above 0.
        false_positives: Detections without a partner.
        false_negatives: Objects without a partner.
    """

    pdq: float
    spatial: float
    label: float
    true_positives: int
    false_positives: int
    false_negatives: int


def pdq(images: Iterable[Mapping[str, Any]], *, cells: int = 40, smallest_probability: float = 1e-14) -> Quality:
    r"""Rate how well detections tell where objects are, what they are, and how sure that is.

    .. math::
        \mathrm{PDQ} = \frac{\sum q}{N_{TP} + N_{FP} + N_{FN}}, \qquad q = \sqrt{Q_S Q_L}

    over the pairs of a detection and a ground truth that maximise the sum in each image; :math:`Q_S` is
    `spatial_quality`, the label quality :math:`Q_L` is the detection's score if the labels agree, else 0.
    Hall et al., Probabilistic Object Detection: Definition and Evaluation, WACV 2020 (arXiv:1811.10800).

    It departs from the paper in four ways. The ground truth is the (rotated) box, for foreground and background; the
    paper takes the object's pixels as foreground. The label quality uses the score of the detected class; the paper
    uses that of the true class. Losses are integrated over `cells` x `cells` points in each of the two regions, not
    over pixels, so the time does not depend on the size of boxes. Pairs whose boxes do not overlap have quality 0.
    Hence numbers compare with each other, not with published ones.

    Args:
        images: For each image a dict of arrays or tensors `bboxes` and `bboxes_std` (N, D), `scores` and `labels` (N,),
            `gt_bboxes` (M, D), `gt_labels` (M,), D being 4 or 5.
        cells: Points along each side of a box.
        smallest_probability: Smallest argument of the logarithms, as in the paper's program: a point that is certainly
            missed costs -log of it.

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
        spatial = np.zeros((len(pred), len(truth)))
        label = np.where(labels[:, None] == gt_labels, scores[:, None], 0.0)
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
    mean_spatial, mean_label = found[1:].mean(1).tolist() if hits else (math.nan, math.nan)
    mean_quality = float(found[0].sum()) / total if total else math.nan
    return Quality(mean_quality, mean_spatial, mean_label, hits, extras, misses)


def spatial_quality(pred: Any, std: Any, truth: Any, *, cells: int = 40, smallest: float = 1e-14) -> np.ndarray:
    r"""Compute the spatial quality of pairs, :math:`Q_S = \exp(-(L_{FG} + L_{BG}))`, (K,).

    .. math::
        L_{FG} = -\frac1{|S|} \int_S \log P, \qquad L_{BG} = -\frac1{|S|} \int_{V \setminus S} \log(1 - P)

    with the true box S of area \|S\|, the detection's region V (its box and four standard deviations around it), and
    the probability P that a point lies in the detected box: the product of :math:`\Phi(d_e / s_e)` over its four edges.
    :math:`d_e` is the distance to the edge, inwards. With rotated boxes :math:`s_e^2 = s_c^2 + s_l^2 / 4 + s_a^2 t^2`
    from centre, length and angle, t being the distance along the edge from its middle; the edges of horizontal boxes
    have deviations of their own.

    Args:
        pred, std: (K, 5) or (K, 4), detections and their standard deviations.
        truth: (K, 5) or (K, 4), boxes with an area.
        cells: Points along each side.
        smallest: Smallest argument of the logarithms.

    Raises:
        ValueError: If the kinds of boxes differ.
    """
    pred, truth = box_pair(pred, truth)
    _, std = box_pair(pred, std)
    edges = edge_variance(pred, std)
    turn = std[:, 4] if pred.shape[1] == len(ROTATED) else np.zeros(len(pred))
    rows = (as_rotated(pred), edges, turn, as_rotated(truth))
    boxes, edge, angle, true = (torch.from_numpy(row).split(CHUNK) for row in rows)
    chunks = zip(boxes, edge, angle, true, strict=True)
    return np.concatenate([_quality(*chunk, cells=cells, floor=math.log(smallest)) for chunk in chunks])


def edge_variance(boxes: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Variance of the edges left, top, right and bottom in the box's frame, without the angle's part, (N, 4)."""
    var = std**2
    if boxes.shape[1] != len(ROTATED):
        return var
    along, across = centre_variance(var, boxes[:, 4])
    x, y = along + var[:, 2] / 4, across + var[:, 3] / 4
    return np.stack([x, y, x, y], axis=1)


def _quality(pred: Tensor, edges: Tensor, turn: Tensor, truth: Tensor, *, cells: int, floor: float) -> np.ndarray:
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
    """Centres of the cells of boxes with margins (left, top, right, bottom), (K, cells^2, 2) in the image."""
    steps = (torch.arange(cells, dtype=boxes.dtype) + 0.5) / cells
    unit = torch.cartesian_prod(steps, steps)
    low, high = -boxes[:, 2:4] / 2 - margin[:, :2], boxes[:, 2:4] / 2 + margin[:, 2:]
    x, y = (low[:, None] + unit * (high - low)[:, None]).unbind(2)
    return torch.stack(rotate(x, y, boxes[:, 4:].cos(), boxes[:, 4:].sin()), dim=2) + boxes[:, None, :2]


def _in_frame(points: Tensor, boxes: Tensor) -> Tensor:
    """Positions of points in the boxes' frames, relative to the centre, (K, P, 2)."""
    x, y = (points - boxes[:, None, :2]).unbind(2)
    return torch.stack(rotate(x, y, boxes[:, 4:].cos(), -boxes[:, 4:].sin()), dim=2)


def _log_probability(points: Tensor, boxes: Tensor, edges: Tensor, turn: Tensor) -> Tensor:
    """Log of the probability that points lie in the boxes, (K, P)."""
    place = _in_frame(points, boxes)
    half = boxes[:, None, 2:4] / 2
    inwards = torch.cat([half + place, half - place], dim=2)  # (K, P, 4), left, top, right, bottom
    along = place.flip(2).repeat(1, 1, 2)
    std = (edges[:, None] + (turn[:, None, None] * along).square()).sqrt()
    # without uncertainty a point is inside or outside; on the edge itself (0 / 0) it is half of each
    score = (inwards / std).nan_to_num(nan=0.0, posinf=math.inf, neginf=-math.inf)
    return log_ndtr(score).sum(2)
