"""Decide which points of a dense head learn which object, by distances in the frame of the object.

Everything here depends on distances, sides, scores and overlaps, so the assignment turns with the image.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...structures.corners import rotate

# half a cell's diagonal: a square of this half side, at any angle, holds a point of the lattice wherever it lies
LEAST = 0.71
SMALL = 1e-4  # of scores and overlaps, so that their products keep an order
NEARER = 1e-4  # overlap that a squared stride of distance outweighs
TIE = 1e-4  # squared strides
FARTHEST = 2.0**2  # likewise, of a point that is given to an object that has none


def candidates(
    points: Tensor, boxes: Tensor, regress_ranges: Sequence[tuple[float, float]], levels: Tensor, radius: float
) -> tuple[Tensor, Tensor]:
    """Find the points that may learn an object.

    An object belongs to the levels whose range holds half its longer side. Its points lie inside the box and within
    `radius` strides of the centre, along each side (centre sampling of FCOS, Tian et al., ICCV 2019, arXiv:1904.01355,
    in the frame of the box). Where the box is narrower than a cell, half a cell's diagonal counts instead of half its
    side, so that ships between two rows of points are seen.

    Args:
        points: (P, 3), x, y and stride, pixels.
        boxes: (N, 5), centre, sides, angle.
        regress_ranges: Smallest (included) and largest (excluded) half side of each level, pixels.
        levels: (P,), number of each point's level.
        radius: In strides.

    Returns:
        Which points are candidates, (P, N), and squared distances from the centres in strides, (P, N), infinite on
        other levels.
    """
    stride = points[:, None, 2]
    ranges = boxes.new_tensor(regress_ranges)[levels][:, None]  # (P, 1, 2)
    reach = boxes[None, :, 2:4].amax(2) / 2
    fits = (ranges[..., 0] <= reach) & (reach < ranges[..., 1])  # (P, N)
    along, across = offsets(points[:, None], boxes[None])
    inside = fits
    for offset, side in ((along, boxes[None, :, 2]), (across, boxes[None, :, 3])):
        inside = inside & (offset.abs() < torch.minimum(side / 2, radius * stride).clamp(min=LEAST * stride))
    distance = (along.square() + across.square()) / stride.square()
    return inside, distance.masked_fill(~fits, torch.inf)


def align(
    inside: Tensor, distance: Tensor, scores: Tensor, quality: Tensor, topk: int, alpha: float, beta: float
) -> tuple[Tensor, Tensor]:
    r"""Assign to each point the object that it does best at, by the predictions so far.

    Task-aligned assignment (Feng et al., TOOD, ICCV 2021, arXiv:2108.07755): with a point's score s for the class of an
    object and the overlap u of its box, each object chooses the `topk` candidates of the largest
    :math:`t = s^\alpha u^\beta`. A point that several choose goes to the one that it overlaps most. An object that lost
    all its points in this gets the nearest one that is not the only one of another.

    Args:
        inside, distance: (P, N), see `candidates`.
        scores, quality: (P, N), s and u, between 0 and 1; they count at candidates.
        topk: Points of an object.
        alpha, beta: Exponents.

    Returns:
        (P,), the number of the object, or -1 for background; and (P,), the score to learn, t scaled so that the best
        point of an object has the largest overlap of its points.
    """
    if not len(inside):  # no object is near any point
        return inside.new_zeros(0, dtype=torch.long), quality.new_zeros(0)
    quality = quality.clamp(min=SMALL)
    merit = (scores.clamp(min=SMALL) ** alpha * quality**beta).masked_fill(~inside, 0)
    least = merit.topk(min(topk, len(merit)), 0).values[-1]
    chosen = inside & (merit >= least)
    # where nothing overlaps yet, the nearer object
    best, owner = (quality - NEARER * distance).masked_fill(~chosen, -torch.inf).max(1)
    owner = _give_back(owner.masked_fill(best.isinf(), -1), distance)
    taken = (owner >= 0).nonzero().flatten()
    own = owner[taken]
    merit = (scores.clamp(min=SMALL) ** alpha * quality**beta)[taken, own]
    zeros = merit.new_zeros(inside.shape[1])
    top = zeros.scatter_reduce(0, own, merit, 'amax')
    most = zeros.scatter_reduce(0, own, quality[taken, own], 'amax')
    aim = merit.new_zeros(len(owner))
    aim[taken] = merit / top[own] * most[own]
    return owner, aim


def offsets(points: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Offsets of points from the centres of boxes, along their first and second sides, pixels; both broadcast."""
    apart = points[..., :2] - boxes[..., :2]
    return rotate(apart[..., 0], apart[..., 1], boxes[..., 4].cos(), -boxes[..., 4].sin())


def inside_any(points: Tensor, boxes: Tensor) -> Tensor:
    """Tell which points, (P,), lie in one of the boxes (N, 5)."""
    along, across = offsets(points[:, None], boxes[None])
    return ((along.abs() < boxes[None, :, 2] / 2) & (across.abs() < boxes[None, :, 3] / 2)).any(1)


def _give_back(owner: Tensor, distance: Tensor) -> Tensor:
    """Give each object without a point the nearest one that it may have, or several that are equally near."""
    counts = torch.bincount(owner[owner >= 0], minlength=distance.shape[1])
    for lost in (counts == 0).nonzero().flatten().tolist():
        spare = (owner < 0) | (counts[owner.clamp(min=0)] > 1)
        far = distance[:, lost].masked_fill(~spare, torch.inf)
        nearest = ((far <= far.min() + TIE) & (far < FARTHEST)).nonzero().flatten()
        owner[nearest] = lost
        counts = torch.bincount(owner[owner >= 0], minlength=distance.shape[1])
    return owner
