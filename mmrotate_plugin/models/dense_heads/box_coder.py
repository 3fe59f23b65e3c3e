"""Boxes as fields: an offset that is a vector, sizes that are invariant, an angle that is a director."""

import math
from typing import Any

import torch
from torch import Tensor

from .assignment import offsets

BOX_TYPES = ('rbox', 'hbox')
LARGEST = math.log(1000 / 16)  # of a side's logarithm: mmdet's wh_ratio_clip, here in strides
SIDES = slice(2, 4)


class BoxFieldCoder:
    r"""Decode what a head says at a point: numbers that turn linearly with the image.

    =======  ==================================================  =======================
    columns  rotated boxes (`rbox`)                              frequency
    =======  ==================================================  =======================
    0, 1     offset of the centre from the point, in strides     1 (vector)
    2, 3     logarithms of the sides, in strides                 0, 0
    4, 5     :math:`(\cos 2a, \sin 2a)` times any positive       2 (director)
             number, a the angle of the first side
    =======  ==================================================  =======================

    A horizontal box (`hbox`) has columns 0 to 3. A quarter turn swaps its sides. So column 2 is the mean of the
    logarithms, and column 3 half their difference, which changes its sign: the first component of a director.

    Args:
        box_type: 'rbox' or 'hbox'.

    Attributes:
        encode_size: Number of columns.
        frequencies: Of the fields that hold the columns.
        invariant: Number of the columns from 2 on that are invariant.
    """

    def __init__(self, box_type: str) -> None:
        self.box_type = box_type
        rotated = box_type == 'rbox'
        self.encode_size = 6 if rotated else 4
        # of the fields; a horizontal box leaves out the second component of the last
        self.frequencies = [1, 0, 0, 2] if rotated else [1, 0, 2]
        self.invariant = self.frequencies.count(0)

    def sides(self, pred: Tensor, stride: Tensor) -> Tensor:
        """Decode the sides, (..., 2) in pixels, between 1/62.5 and 62.5 strides.

        Args:
            pred: (..., encode_size).
            stride: (..., 1), pixels.
        """
        logs = pred[..., SIDES]
        if self.box_type == 'hbox':
            mean, half = logs.unbind(-1)
            logs = torch.stack([mean + half, mean - half], -1)
        return logs.clamp(-LARGEST, LARGEST).exp() * stride

    def boxes(self, priors: Tensor, pred: Tensor) -> Tensor:
        """Decode predictions to plain numbers.

        Args:
            priors: (N, 3): x, y and stride in pixels.
            pred: (..., N, encode_size).

        Returns:
            (..., N, 5), centre, sides and an angle in (-pi/2, pi/2], radians; for 'hbox' (..., N, 4), x1, y1, x2, y2.
        """
        stride = priors[:, 2:]
        centre = priors[:, :2] + pred[..., :2] * stride
        sides = self.sides(pred, stride)
        if self.box_type == 'rbox':
            angle = torch.atan2(pred[..., 5:], pred[..., 4:5]) / 2
            return torch.cat([centre, sides, angle], -1)
        return torch.cat([centre - sides / 2, centre + sides / 2], -1)

    def decode(self, priors: Tensor, pred: Tensor, max_shape: tuple[int, ...] | None = None) -> Any:
        """Decode predictions to boxes of the hosts.

        Args:
            priors: (N, 3): x, y and stride in pixels.
            pred: (N, encode_size).
            max_shape: (height, width) to clip horizontal boxes to.

        Returns:
            mmrotate's `RotatedBoxes` (N, 5); or, for 'hbox', a tensor (N, 4).
        """
        boxes = self.boxes(priors, pred)
        if self.box_type == 'rbox':
            from mmrotate.structures.bbox import RotatedBoxes

            return RotatedBoxes(boxes)
        if max_shape is not None:
            high = boxes.new_tensor([max_shape[1], max_shape[0]]).repeat(2)
            boxes = torch.minimum(boxes.clamp(min=0), high)
        return boxes

    def in_frame(self, priors: Tensor, pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Compare predictions with their targets in the targets' frames, taking the angle as right.

        Args:
            priors: (N, 3).
            pred: (N, encode_size).
            target: (N, 5): centre, sides and angle, of horizontal boxes 0.

        Returns:
            Predictions and targets, (N, 4) each: x1, y1, x2, y2 along the sides of the target from its centre, pixels.
        """
        centre = torch.stack(offsets(priors[:, :2] + pred[:, :2] * priors[:, 2:], target), 1)
        half, true = self.sides(pred, priors[:, 2:]) / 2, target[:, 2:4] / 2
        return torch.cat([centre - half, centre + half], 1), torch.cat([-true, true], 1)


def canonical(boxes: Tensor) -> Tensor:
    """Turn rotated boxes (N, 5) so that their first side is the longer one."""
    turned = torch.cat([boxes[:, :2], boxes[:, 3:4], boxes[:, 2:3], boxes[:, 4:] + math.pi / 2], 1)
    return torch.where(boxes[:, 2:3] < boxes[:, 3:4], turned, boxes)


def directors(boxes: Tensor) -> Tensor:
    """Directors of the first sides of boxes (N, 5): (N, 2)."""
    return torch.stack([(2 * boxes[:, 4]).cos(), (2 * boxes[:, 4]).sin()], 1)


def elongation(boxes: Tensor) -> Tensor:
    """Tell how well the angle of boxes (N, 5) is defined, (N,): 0 for squares, 1 from a ratio of 2 on."""
    return (boxes[:, 2] / boxes[:, 3].clamp(min=1e-3) - 1).clamp(0, 1)


def overlaps(first: Tensor, second: Tensor) -> Tensor:
    """IoU of pairs of boxes (N, 4), x1, y1, x2, y2: (N,)."""
    shared = torch.minimum(first[:, 2:], second[:, 2:]) - torch.maximum(first[:, :2], second[:, :2])
    both = shared.clamp(min=0).prod(1)
    union = (first[:, 2:] - first[:, :2]).prod(1) + (second[:, 2:] - second[:, :2]).prod(1) - both
    return both / union.clamp(min=1e-6)
