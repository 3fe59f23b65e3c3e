"""Linearise the few detections that a head keeps, by decoding their raw outputs once more."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .linearization import Linearization, join


@dataclass
class Rows:
    """The raw outputs that the N detections of an image were decoded from.

    Attributes:
        place: (N, K) indices into all raw outputs, flattened and joined.
        decode: Decodes raw outputs, (M, K), of the detections numbered (M,), to boxes (M, D) and scores (M,).
        boxes: (N, D) of the detections.
        scores: (N,).
    """

    place: Tensor
    decode: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    boxes: Tensor
    scores: Tensor


class Reader(ABC):
    """Follow kept detections back to the raw outputs that they were decoded from, for one kind of head.

    The final head decodes tensors that are views of one, in which a view's offset says where its values are.
    """

    def __init__(self) -> None:
        self.starts: list[int] = []  # of each output, among all outputs
        self.given: Tensor | None = None  # the final head's outputs, joined
        self.given_start = 0

    @classmethod
    @abstractmethod
    def follows(cls, head: Any) -> bool:
        """Tell whether a head decodes its outputs as the heads do that this reader knows."""

    @abstractmethod
    def reading(self, head: Any) -> AbstractContextManager[None]:
        """Observe a head while it predicts once; what it predicts stays the same."""

    @abstractmethod
    def rows(self) -> list[Rows | None]:
        """Rows of each image, in their order; None where the head did what this reader cannot follow."""

    def give(self, outputs: Sequence[Tensor], earlier: Sequence[Tensor]) -> list[Tensor]:
        """Copy the outputs of the final head into views of one tensor, for the head to decode.

        Args:
            outputs: Of the final head.
            earlier: Of the heads before it that have a say in the scores.
        """
        sizes = [output.numel() for output in (*earlier, *outputs)]
        self.starts = [sum(sizes[:i]) for i in range(len(sizes))]
        if len({output.dtype for output in outputs}) > 1:  # as under autocast
            return [output.clone() for output in outputs]
        self.given, self.given_start = join(outputs), self.starts[len(earlier)]
        parts = self.given.split(sizes[len(earlier) :])
        return [part.view(output.shape) for part, output in zip(parts, outputs, strict=True)]

    def start(self, part: Tensor) -> int | None:
        """Index of the first value of a part of the given outputs among all outputs; None if it is no such part."""
        if self.given is None or part.untyped_storage().data_ptr() != self.given.untyped_storage().data_ptr():
            return None
        return self.given_start + int(part.storage_offset()) if part.is_contiguous() else None


def follows(head: Any, methods: Mapping[str, Sequence[str]]) -> bool:
    """Tell whether methods of a head are those of classes, by their qualified names, that a reader knows."""
    return all(getattr(getattr(head, name, None), '__qualname__', None) in known for name, known in methods.items())


def linearize_rows(rows: Sequence[Rows | None], outputs: Sequence[Tensor], detections: Tensor) -> Linearization | None:
    """Linearise detections by one backward pass through the decoding of their own raw outputs.

    Each number of a detection depends on its row alone. So one row is decoded once for each of the D numbers of a
    detection, and one pass finds the gradients of all: the derivatives of the post-processing itself.

    Args:
        rows: For each image.
        outputs: Raw outputs.
        detections: (N, D), box and score.

    Returns:
        None if the decoded rows are not the detections, or box or score do not follow by differentiable steps.
    """
    joined, columns = join(outputs), detections.shape[1]
    numbers = torch.arange(detections.numel(), device=detections.device).view(-1, columns, 1)
    entries = [(numbers.new_zeros(0), numbers.new_zeros(0), joined.new_zeros(0))]
    done = 0
    for image in rows:
        if image is None:
            return None
        count = len(image.scores)
        empty = joined.new_zeros(0, columns, image.place.shape[1])
        found = _derivatives(image, joined) if count else empty  # (N, D, K)
        if found is None:
            return None
        number, place = numbers[done : done + count], image.place[:, None]
        entries.append((number.expand(found.shape).flatten(), place.expand(found.shape).flatten(), found.flatten()))
        done += count
    if done != len(detections):
        return None
    number, place, value = (torch.cat(some) for some in zip(*entries, strict=True))
    return Linearization((done, columns), [output.numel() for output in outputs], number, place, value)


def _derivatives(image: Rows, joined: Tensor) -> Tensor | None:
    """Derivatives of the numbers of detections with respect to their raw outputs, (N, D, K)."""
    count, columns = image.boxes.shape[0], image.boxes.shape[1] + 1
    with torch.enable_grad():
        raw = joined[image.place].repeat(columns, 1).requires_grad_()
        boxes, scores = image.decode(raw, torch.arange(count, device=raw.device).repeat(columns))
        if not (boxes.requires_grad and scores.requires_grad and len(boxes) == len(scores) == len(raw)):
            return None
        if not (_same(boxes[:count], image.boxes) and _same(scores[:count], image.scores)):
            return None
        out = torch.cat([boxes, scores[:, None]], 1).view(columns, count, columns)
        (found,) = torch.autograd.grad(out.diagonal(dim1=0, dim2=2).sum(), raw)
    return found.view(columns, count, -1).transpose(0, 1)


def _same(decoded: Tensor, found: Tensor) -> bool:
    """Compare up to the round-off of loops over another number of rows.

    The row of another place has another box, and that of another class another score, by far more.
    """
    return decoded.shape == found.shape and torch.allclose(decoded, found, rtol=1e-4, atol=1e-4, equal_nan=True)
