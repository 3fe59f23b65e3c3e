"""Defer the variance of a norm or a sum until something asks for it: a ReLU that follows computes it on the way."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..kernels import takes
from ._compiler import follows_gradient


class Part(NamedTuple):
    """A variance (B, C, ...), times a number per channel, (C,), or per channel and sample, (B, C); None is 1."""

    var: Tensor
    scale: Tensor | None = None


class Deferred:
    """The variance of a `Gaussian` as a sum of one or two parts, which `total` adds up.

    Args:
        parts: Of one shape, and contiguous.
    """

    __slots__ = ('parts', 'versions')

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = tuple(parts)
        self.versions = self._versions()

    def __reduce__(self) -> tuple[Any, ...]:
        return Deferred, (self.parts,)  # copies of tensors count their changes anew

    def total(self) -> Tensor:
        """Compute the variance, by the operations that were deferred.

        Raises:
            RuntimeError: If a part was changed in place since.
        """
        self.check()
        total: Tensor | None = None
        for var, scale in self.parts:
            value = var if scale is None else var * scale.reshape(*scale.shape, *[1] * (var.dim() - 2))
            total = value if total is None else total + value
        assert total is not None
        return total

    def reshaped(self, shape: Sequence[int]) -> 'Deferred | None':
        """Reshape the parts, (B, C, ...), each channel to whole ones of `shape`; None for other shapes."""
        (batch, channels), sizes = self.parts[0].var.shape[:2], self.parts[0].var.shape
        if len(shape) < 2 or shape[0] != batch or not channels or shape[1] % channels or not sizes.numel():
            return None
        self.check()
        times = shape[1] // channels
        return Deferred(
            [
                Part(var.view(shape), scale if scale is None or times == 1 else scale.repeat_interleave(times, -1))
                for var, scale in self.parts
            ]
        )

    def check(self) -> None:
        """Refuse parts that were changed in place after they were deferred, as autograd refuses saved tensors.

        Raises:
            RuntimeError: If one was.
        """
        if self.versions != self._versions():
            raise RuntimeError(
                'a variance was changed in place before a value that depends on it was computed: change a copy of it, '
                'x.var.clone(), or switch deferred sums off by mmrotate_plugin.kernels.use_compiled_loops(False)'
            )

    def _versions(self) -> list[int]:
        return [0 if t.is_inference() else t._version for part in self.parts for t in part if t is not None]


def parts_of(var: Tensor | Deferred) -> tuple[Part, ...]:
    """Return the parts of a variance, one if it is computed already."""
    if isinstance(var, Deferred):
        var.check()
        return var.parts
    return (Part(var),)


def deferred(mean: Tensor, parts: Sequence[Part]) -> Deferred | None:
    """Defer the sum of `parts`, the variance of `mean`; None if it has to be computed now.

    It is deferred only if the compiled moments take it, and nothing is differentiated.
    """
    maps = [part.var for part in parts]
    scales = [part.scale for part in parts if part.scale is not None]
    if len(parts) > 2 or not takes(mean, *maps) or follows_gradient(mean, *maps, *scales):
        return None
    if mean.dim() < 2 or not mean.is_contiguous() or any(x.shape != mean.shape for x in maps):
        return None
    if any(s.dtype != torch.float32 or s.device != mean.device or not s.is_contiguous() for s in scales):
        return None
    return Deferred(parts)
