"""Share numbers among all layers of a process, as tensors of any dtype and on any device.

A tensor made within a mode or a transform of torch (a fake tensor under `torch.export`, one wrapped by
`torch.func.grad`, an inference tensor) is only valid there. Kept between calls, it would break every later user. So the
numbers are kept as a numpy array, which no mode can touch, along with those tensors of it that are valid anywhere.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..kernels.following import is_compiling, is_plain, is_tracing

_C: Any = torch._C  # its stub lacks some names


def is_batched(x: Tensor) -> bool:
    """Tell whether this tensor is a batch of the older vmap, that of `torch.autograd.grad(..., is_grads_batched)`."""
    test = getattr(_C._functorch, 'is_legacy_batchedtensor', None)  # torch 2.0 lacks it
    return test is not None and test(x)


@contextmanager
def untraced() -> Iterator[None]:
    """Hide operations from `torch.jit.trace`, which then takes their results for constants."""
    state = _C._get_tracing_state()
    _C._set_tracing_state(None)
    try:
        yield
    finally:
        _C._set_tracing_state(state)


class Constant:
    """An array, and its copies as tensors: one for each dtype and device in use.

    Args:
        values: The numbers; they are not copied, so they must not change.
    """

    def __init__(self, values: np.ndarray) -> None:
        self.values = np.ascontiguousarray(values)
        self._copies: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def tensor(self) -> Tensor:
        """Make a new tensor of the numbers, in their own type on the CPU; it belongs to the active modes."""
        with torch.inference_mode(False):  # to serve training too
            return torch.from_numpy(self.values)

    def like(self, x: Tensor) -> Tensor:
        """Return the numbers in the dtype and on the device of `x`, to compute with `x`."""
        if type(x) not in (Tensor, nn.Parameter):
            return self.tensor().to(x.device, x.dtype)
        key = x.dtype, x.device
        copy = self._copies.get(key)
        if copy is None:
            with torch.inference_mode(False), untraced() if is_tracing() else nullcontext():
                copy = self.tensor().to(x.device, x.dtype)
            if not is_compiling() and is_plain(copy):
                self._copies[key] = copy
        return copy


def autocasts_cpu() -> bool:
    """Tell whether autocast is on for the CPU."""
    if hasattr(torch, 'get_autocast_dtype'):  # torch 2.4 asks by device, and deprecates the name below
        return torch.is_autocast_enabled('cpu')
    return torch.is_autocast_cpu_enabled()
