"""ReLU of regular fields between their orientations, as an operator of torch, which its profilers name."""

import torch
from torch import Tensor

from .library import library

ORDERS = 8, 16  # numbers of orientations that it knows
_NAMES = torch.library.Library('mmrotate_plugin', 'FRAGMENT')
_NAMES.define(
    'angular_relu(Tensor x, Tensor(a!) out, Tensor half, Tensor(b!)? record, Tensor? gate) -> ()',
)


def angular_relu(
    x: Tensor, half: Tensor, *, out: Tensor, record: Tensor | None = None, gate: Tensor | None = None
) -> None:
    """Compute (1/2) U^T f(U x), where U samples N orientations and the angles half-way between them.

    Args:
        x: (rings, N, pixels), contiguous, as `takes` accepts it; N is one of `ORDERS`.
        half: (N,) float32, the weight of orientation i + k for the angle i + 1/2.
        out: Where the result goes, like `x`; may be `x`.
        record: int32 (rings, pixels), where the ReLU notes which samples it lets pass: bit 2i for orientation i, bit
            2i + 1 for the angle behind it.
        gate: Such notes. f lets these samples pass, in place of a ReLU.
    """
    torch.ops.mmrotate_plugin.angular_relu(x, out, half, record, gate)


def _run(x: Tensor, out: Tensor, half: Tensor, record: Tensor | None, gate: Tensor | None) -> None:
    rings, order, pixels = x.shape
    unknown = library().angular_relu(
        x.data_ptr(), out.data_ptr(), rings, pixels, order, half.data_ptr(),
        None if record is None else record.data_ptr(), None if gate is None else gate.data_ptr(),
        torch.get_num_threads(),
    )  # fmt: skip
    if unknown:
        raise ValueError(f'the compiled ReLU has {ORDERS} orientations, not {order}')


_NAMES.impl('angular_relu', _run, 'CPU')
