"""Numbers that all layers of a process share, as tensors of any dtype and on any device.

What a mode or a transform of torch makes (a fake tensor under `torch.export`, one wrapped by `torch.func.grad`, an
inference tensor) is of use within it alone. Kept between calls, it would break every later user. So the numbers are
kept as a numpy array, which no mode can touch, and as those tensors made of it that may be used anywhere.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn


def is_plain(x: Tensor) -> bool:
    """Whether a tensor may outlive the modes and transforms that are active now.

    False for subclasses (fake and functional tensors among them) and for what `torch.func` wraps.
    """
    return type(x) in (Tensor, nn.Parameter) and not is_transformed(x)


def is_transformed(x: Tensor) -> bool:
    """Whether a transform of `torch.func` (grad, vmap, jvp, functionalize) follows this tensor."""
    return torch._C._functorch.is_functorch_wrapped_tensor(x)


def is_compiling() -> bool:
    """Whether torch.compile or torch.export follows this call."""
    compiler = getattr(torch, 'compiler', None)
    return compiler is not None and hasattr(compiler, 'is_compiling') and compiler.is_compiling()


@contextmanager
def untraced() -> Iterator[None]:
    """Hide operations from `torch.jit.trace`: their results are constants to it."""
    state = torch._C._get_tracing_state()
    torch._C._set_tracing_state(None)
    try:
        yield
    finally:
        torch._C._set_tracing_state(state)


class Constant:
    """An array, and its copies as tensors: one for each dtype and device that asked for it.

    Args:
        values: The numbers; not copied, so they must not be changed.
    """

    def __init__(self, values: np.ndarray) -> None:
        self.values = np.ascontiguousarray(values)
        self._copies: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def tensor(self) -> Tensor:
        """The numbers in their own type, on the CPU, made anew: they are a tensor of the active modes."""
        with torch.inference_mode(False):  # to serve training too
            return torch.from_numpy(self.values)

    def like(self, x: Tensor) -> Tensor:
        """The numbers in the dtype and on the device of `x`, to compute with `x`."""
        if type(x) not in (Tensor, nn.Parameter):
            return self.tensor().to(x.device, x.dtype)
        key = x.dtype, x.device
        copy = self._copies.get(key)
        if copy is None:
            with torch.inference_mode(False), untraced() if torch.jit.is_tracing() else nullcontext():
                copy = self.tensor().to(x.device, x.dtype)
            if not is_compiling() and is_plain(copy):
                self._copies[key] = copy
        return copy


def autocasts_cpu() -> bool:
    """Whether autocast is on for the CPU."""
    if hasattr(torch, 'get_autocast_dtype'):  # torch 2.4 asks by device, and warns of the name below
        return torch.is_autocast_enabled('cpu')
    return torch.is_autocast_cpu_enabled()
