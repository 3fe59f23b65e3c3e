"""Linearise detections in the outputs of the heads: the delta method through any box coder."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...adf.jacobian import gradients

MEMORY = 2**26  # numbers in the gradients of one batch of backward passes


@dataclass
class _Entries:
    """The non-zero entries of the Jacobian of the detections with respect to one output of the heads."""

    leaf: int
    number: Tensor  # (M,) index into the flattened detections
    place: Tensor  # (M,) index into the flattened output
    value: Tensor  # (M,) derivative


class Linearization:
    r"""Derivatives of detections with respect to the raw outputs of the heads; each depends on few of them.

    For :math:`y = f(r)`, the box and score of a detection as a function of all raw outputs,

    .. math::
        \mathrm{Var}(y_j) = \sum_k \left( \frac{\partial y_j}{\partial r_k} \right)^2 \mathrm{Var}(r_k)

    (delta method, r independent; where an angle wraps, the derivative of its branch). The derivatives come from two
    backward passes per column of the detections, through the post-processing alone, whatever its box coder does. One
    adds up the gradients of all detections of a group, which share no raw outputs. The other weights each detection by
    its number in the group, so the ratio of the two tells which detection a raw output belongs to.

    Args:
        detections: (N, D), box and score, differentiable.
        leaves: Raw outputs that `detections` were made from.
        sharing: Which detections share raw outputs.
    """

    def __init__(self, detections: Tensor, leaves: Sequence[Tensor], sharing: 'Sharing') -> None:
        self.shape = detections.shape
        self.first = sharing.first
        self.entries: list[_Entries] = []
        if not detections.requires_grad:
            return
        jobs = [
            (column, group)
            for column in range(self.shape[1])
            for group in range(int(sharing.groups.max()) + 1 if len(sharing.groups) else 0)
            if column == self.shape[1] - 1 or sharing.first is None or group == 0
        ]
        size = max(1, MEMORY // max(1, 2 * sum(leaf.numel() for leaf in leaves)))
        for start in range(0, len(jobs), size):
            self._find(detections, leaves, sharing.groups, jobs[start : start + size])

    def _find(
        self, detections: Tensor, leaves: Sequence[Tensor], groups: Tensor, jobs: Sequence[tuple[int, int]]
    ) -> None:
        seeds = detections.new_zeros(2, len(jobs), *self.shape)
        numbers = groups.new_full((len(jobs), max(self.shape[0], 1)), -1)  # of a job's members in the detections
        for i, (column, group) in enumerate(jobs):
            rows = (groups == group).nonzero().squeeze(1)
            seeds[0, i, rows, column] = 1
            seeds[1, i, rows, column] = torch.arange(1, len(rows) + 1, dtype=seeds.dtype, device=seeds.device)
            numbers[i, : len(rows)] = rows * self.shape[1] + column
        for leaf, found in enumerate(gradients(detections, leaves, seeds.flatten(0, 1))):
            if found is None:
                continue
            sums, numbered = found.reshape(2, -1)
            job_and_place = sums.nonzero().squeeze(1)
            value = sums[job_and_place]
            which = (numbered[job_and_place] / value).round().long() - 1
            size = max(1, leaves[leaf].numel())
            job, place = job_and_place // size, job_and_place % size
            number = numbers[job, which.clamp(0, numbers.shape[1] - 1)]
            # not where a denormal gradient has lost its digits
            mine = (which >= 0) & (which < numbers.shape[1]) & (number >= 0)
            self.entries.append(_Entries(leaf, number[mine], place[mine], value[mine]))

    def variance(self, variances: Sequence[Tensor | None]) -> Tensor:
        """Propagate variances of the leaves to variances of the detections, (N, D).

        Args:
            variances: One per leaf, of its shape; None for a leaf without variance, which adds nothing.
        """
        return self._sum(variances, squared=True)

    def __call__(self, differences: Sequence[Tensor]) -> Tensor:
        """Propagate differences of the leaves, of their shapes, to differences of the detections, (N, D)."""
        return self._sum(differences, squared=False)

    def _sum(self, values: Sequence[Tensor | None], *, squared: bool) -> Tensor:
        out = next((value for value in values if value is not None), torch.empty(0)).new_zeros(self.shape)
        for entry in self.entries:
            value = values[entry.leaf]
            if value is not None:
                weight = entry.value.square() if squared else entry.value
                out.view(-1).index_add_(0, entry.number, weight * value.reshape(-1)[entry.place])
        if self.first is not None:
            out[:, :-1] = out[self.first, :-1]
        return out


@dataclass
class Sharing:
    """Which detections share raw outputs.

    Attributes:
        groups: (N,) numbers, the first is 0. Two detections of one group share no raw outputs.
        first: (N,) for each detection, the first one with the same box, which comes from the same raw outputs and is
            in group 0; None if equal boxes say nothing.
    """

    groups: Tensor
    first: Tensor | None


def sharing_of(boxes: Tensor, labels: Tensor, *, regions: bool) -> Sharing:
    """Find out which detections share raw outputs.

    Two detections at one place of a dense head have the same box and different labels. Two of one region may have
    different boxes, but share the scores that a softmax mixes; their labels differ too.

    Args:
        boxes: (N, 4), (N, 5) or (N, 8).
        labels: (N,).
        regions: The detections come from regions instead of the places of a dense head.
    """
    if regions:
        return Sharing(labels.unique(return_inverse=True)[1], None)
    same = (boxes[:, None] == boxes[None]).all(-1)
    first = same.int().argmax(1) if len(boxes) else labels
    return Sharing(same.tril(-1).sum(1), first)
