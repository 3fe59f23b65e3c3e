"""A layer without coefficients, whose numbers are a constant that all layers of a process share."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ._constants import Constant


class FixedLayer(nn.Module):
    """Base of layers that find their constant by their arguments. Copies and pickles do not contain it."""

    constant: Constant

    def __init__(self) -> None:
        super().__init__()
        self._where = torch.get_default_dtype(), torch.device('cpu')

    def find_constant(self) -> Constant:
        """Return the constant of these arguments, one object per process."""
        raise NotImplementedError

    def share_constant(self) -> None:
        """Find the constant, and make it where the layer is before a compiler needs it."""
        self.constant = self.find_constant()
        dtype, device = self._where
        self.constant.like(torch.zeros((), dtype=dtype, device=device))

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **options: Any) -> 'FixedLayer':
        super()._apply(fn, *args, **options)
        dtype, device = self._where
        moved = fn(torch.zeros((), dtype=dtype, device=device))
        self._where = moved.dtype, moved.device
        self.share_constant()
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, 'constant': None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.share_constant()
