"""Decide which points of a dense head learn which object, by distances in the frame of the object.

Everything here depends on distances, sides and areas, so the assignment turns with the image.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...structures.corners import rotate

# half a cell's diagonal: a square of this half side, at any angle, holds a point of the lattice wherever it lies
LEAST = 0.71
CROWDING = 0.7
TIE = 1e-4  # squared strides


def assign_points(
    points: Tensor, boxes: Tensor, regress_ranges: Sequence[tuple[float, float]], levels: Tensor, radius: float
) -> Tensor:
    r"""Assign to each point the object that it learns, if any.

    1. An object belongs to the levels whose range holds half its longer side.
    2. Its points lie inside the box and within `radius` strides of the centre, along each side (centre sampling of
       FCOS, Tian et al., ICCV 2019, arXiv:1904.01355, in the frame of the box). Where the box is narrower than a cell,
       half a cell's diagonal counts instead of half its side, so that ships between two rows of points are seen.
    3. A point of several objects goes to the one with the least :math:`\log A + c d^2`, A the area and d the distance
       of the centre in strides: the smaller one, as in FCOS, but of equal neighbours the nearer one.
    4. An object that lost all points in this gets the nearest one back, unless it is another's only one.

    Args:
        points: (P, 3), x, y and stride, pixels.
        boxes: (N, 5), N > 0: centre, sides, angle.
        regress_ranges: Smallest (included) and largest (excluded) half side of each level, pixels.
        levels: (P,), number of each point's level.
        radius: In strides.

    Returns:
        (P,), the number of the object, or -1 for background.
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
    cost = boxes[:, 2:4].clamp(min=1e-3).log().sum(1)[None] + CROWDING * distance
    least, owner = cost.masked_fill(~inside, torch.inf).min(1)
    return _give_back(owner.masked_fill(least.isinf(), -1), distance.masked_fill(~fits, torch.inf))


def offsets(points: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Offsets of points from the centres of boxes, along their first and second sides, pixels; both broadcast."""
    apart = points[..., :2] - boxes[..., :2]
    return rotate(apart[..., 0], apart[..., 1], boxes[..., 4].cos(), -boxes[..., 4].sin())


def inside_any(points: Tensor, boxes: Tensor) -> Tensor:
    """Tell which points, (P,), lie in one of the boxes (N, 5)."""
    along, across = offsets(points[:, None], boxes[None])
    return ((along.abs() < boxes[None, :, 2] / 2) & (across.abs() < boxes[None, :, 3] / 2)).any(1)


def _give_back(owner: Tensor, distance: Tensor) -> Tensor:
    """Give each object without a point its nearest ones: several, where they are equally near."""
    counts = torch.bincount(owner[owner >= 0], minlength=distance.shape[1]).tolist()
    for lost in [number for number, count in enumerate(counts) if count == 0]:
        far = distance[:, lost]
        for point in (far <= far.min() + TIE).nonzero().flatten().tolist():
            holder = int(owner[point])
            if far[point].isinf() or (holder >= 0 and counts[holder] == 1):
                continue
            if holder >= 0:
                counts[holder] -= 1
            counts[lost] += 1
            owner[point] = lost
    return owner
