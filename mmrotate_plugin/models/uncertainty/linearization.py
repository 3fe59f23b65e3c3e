"""Linearise detections in the outputs of the heads: the delta method through any box coder."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...adf.jacobian import gradients

MEMORY = 2**26  # numbers in the gradients of one batch of backward passes


@dataclass
class Linearization:
    r"""Derivatives of detections with respect to the raw outputs of the heads; each depends on few of them.

    For :math:`y = f(r)`, the box and score of a detection as a function of all raw outputs,

    .. math::
        \mathrm{Var}(y_j) = \sum_k \left( \frac{\partial y_j}{\partial r_k} \right)^2 \mathrm{Var}(r_k)

    (delta method, r independent; where an angle wraps, the derivative of its branch). `kept_rows` finds the derivatives
    by decoding the kept detections alone, `differentiate` by backward passes through all of the post-processing.

    Attributes:
        shape: (N, D), box and score of N detections.
        sizes: Number of values in each raw output.
        number: (M,) index into the flattened detections, for each derivative that is not zero.
        place: (M,) index into the raw outputs, flattened and joined.
        value: (M,) derivative.
        first: (N,) detections to take the boxes' numbers from, see `Sharing`; None for their own.
    """

    shape: tuple[int, int]
    sizes: list[int]
    number: Tensor
    place: Tensor
    value: Tensor
    first: Tensor | None = None

    def variance(self, variances: Sequence[Tensor | None]) -> Tensor:
        """Propagate variances of the outputs to variances of the detections, (N, D).

        Args:
            variances: One per output, of its shape; None for an output without variance, which adds nothing.
        """
        parts = zip(variances, self.sizes, strict=True)
        return self._sum(self.value.square(), [self.value.new_zeros(size) if v is None else v for v, size in parts])

    def __call__(self, differences: Sequence[Tensor]) -> Tensor:
        """Propagate differences of the outputs, of their shapes, to differences of the detections, (N, D)."""
        return self._sum(self.value, differences)

    def _sum(self, weights: Tensor, values: Sequence[Tensor]) -> Tensor:
        joined = join(values)
        out = joined.new_zeros(self.shape)
        out.view(-1).index_add_(0, self.number, weights.to(out) * joined[self.place])
        if self.first is not None:
            out[:, :-1] = out[self.first, :-1]
        return out


def join(outputs: Sequence[Tensor]) -> Tensor:
    """Join the outputs of heads, flattened."""
    return torch.cat([output.reshape(-1) for output in outputs])


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


def differentiate(detections: Tensor, leaves: Sequence[Tensor], sharing: Sharing) -> Linearization:
    """Linearise by two backward passes per column of the detections, whatever the post-processing does.

    One adds up the gradients of all detections of a group, which share no raw outputs. The other weights each detection
    by its number in the group, so the ratio of the two tells which detection a raw output belongs to.

    Args:
        detections: (N, D), box and score, differentiable.
        leaves: Raw outputs that `detections` were made from.
        sharing: Which detections share raw outputs.
    """
    shape = (detections.shape[0], detections.shape[1])
    numbers, places = sharing.groups.new_zeros(0), sharing.groups.new_zeros(0)
    entries = [(numbers, places, detections.detach().new_zeros(0))]
    jobs = [
        (column, group)
        for column in range(shape[1] if detections.requires_grad else 0)
        for group in range(int(sharing.groups.max()) + 1 if len(sharing.groups) else 0)
        if column == shape[1] - 1 or sharing.first is None or group == 0
    ]
    size = max(1, MEMORY // max(1, 2 * sum(leaf.numel() for leaf in leaves)))
    for start in range(0, len(jobs), size):
        entries += _find(detections, leaves, sharing.groups, jobs[start : start + size])
    number, place, value = map(torch.cat, zip(*entries, strict=True))
    return Linearization(shape, [leaf.numel() for leaf in leaves], number, place, value, sharing.first)


def _find(
    detections: Tensor, leaves: Sequence[Tensor], groups: Tensor, jobs: Sequence[tuple[int, int]]
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Find number, place and value of the derivatives of some columns and groups, for each of the leaves."""
    shape, entries, offset = detections.shape, [], 0
    seeds = detections.new_zeros(2, len(jobs), *shape)
    numbers = groups.new_full((len(jobs), max(shape[0], 1)), -1)  # of a job's members in the detections
    for i, (column, group) in enumerate(jobs):
        rows = (groups == group).nonzero().squeeze(1)
        seeds[0, i, rows, column] = 1
        seeds[1, i, rows, column] = torch.arange(1, len(rows) + 1, dtype=seeds.dtype, device=seeds.device)
        numbers[i, : len(rows)] = rows * shape[1] + column
    for leaf, found in zip(leaves, gradients(detections, leaves, seeds.flatten(0, 1)), strict=True):
        if found is not None:
            sums, numbered = found.reshape(2, -1)
            job_and_place = sums.nonzero().squeeze(1)
            value = sums[job_and_place]
            which = (numbered[job_and_place] / value).round().long() - 1
            size = max(1, leaf.numel())
            job, place = job_and_place // size, job_and_place % size
            number = numbers[job, which.clamp(0, numbers.shape[1] - 1)]
            # not where a denormal gradient has lost its digits
            mine = (which >= 0) & (which < numbers.shape[1]) & (number >= 0)
            entries.append((number[mine], place[mine] + offset, value[mine]))
        offset += leaf.numel()
    return entries
