"""Keep tensors that a layer derives from its coefficients, such as an expanded filter."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..kernels.following import is_compiling, is_plain, is_tracing
from ._constants import untraced

T = TypeVar('T')


class KeptTensors(nn.Module):
    """A layer that derives tensors from its weight, and keeps them between calls where no gradient is wanted.

    Copies and pickles do not contain them.
    """

    weight: nn.Parameter

    def __init__(self) -> None:
        super().__init__()
        self._kept: dict[str, tuple[Tensor, Any]] = {}  # name: (coefficients, tensors made of them)

    def _keep(self, name: str, make: Callable[[], T]) -> T:
        """Return `make()`, or its earlier result where no gradient is wanted.

        A kept result is used only while the coefficients equal, value by value, those that it was made of; so no way
        of changing them (`.data` included, which no version counter sees) leaves a stale one.
        """
        if is_tracing() and not self.training:
            # a constant of the trace, whether gradients are on or, as in the check that follows a trace, off
            with untraced(), torch.no_grad():
                return self._keep(name, make)
        weight = self.weight
        if self._learns() or is_tracing():
            if self._kept:
                self._kept = {}  # training: free the memory
            return make()
        # compiled, fake or meta tensors cannot branch on a comparison of values
        if is_compiling() or weight.is_meta or not is_plain(weight.detach()):
            return make()
        kept = self._kept.get(name)
        if kept is None or not _identical(kept[0], weight):
            # outside of inference mode, whose tensors could never enter a graph: frozen stages train behind this one
            with torch.inference_mode(False), torch.no_grad():
                kept = weight.detach().clone(), make()
            # another dict, not another entry: threads and the replicas of DataParallel may share the old one
            self._kept = {**self._kept, name: kept}
        return kept[1]

    def _learns(self) -> bool:
        return self.weight.requires_grad and torch.is_grad_enabled()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_kept': {}}


def _identical(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)
