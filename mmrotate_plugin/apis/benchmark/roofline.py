"""Count what an operation computes and moves, and measure what the machine can do.

The time of an operation is at least that of its arithmetic at the speed of a large matrix product, and at least that of
its bytes at the speed of a large copy (Williams, Waterman, Patterson, Roofline, CACM 52(4), 2009).
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from .timing import clock

PRODUCTS = {'mm': 0, 'bmm': 0, 'addmm': 1, 'baddbmm': 1, 'baddbmm_': 1, 'addmm_': 1}  # place of the first factor


class Limits(NamedTuple):
    """What a machine reaches.

    Attributes:
        flops: Operations per second of a product of 1024 x 1024 matrices; an addition and a product are two.
        bytes: Bytes per second, read and written, of a copy of 256 MiB.
    """

    flops: float
    bytes: float


class Cost(NamedTuple):
    """What one call needs: operations, and bytes of the tensors that it reads and writes, each once."""

    flops: int
    bytes: int


def measure_limits(device: torch.device, *, side: int = 1024, megabytes: int = 256, rounds: int = 5) -> Limits:
    """Measure a machine by the fastest of a few rounds, with the threads that torch has now."""
    a, b = torch.randn(2, side, side, device=device)
    source = torch.ones(megabytes * 2**18, device=device)
    target = torch.empty_like(source)
    product = min(clock(lambda: a @ b, device) for _ in range(rounds + 1))
    copy = min(clock(lambda: target.copy_(source), device) for _ in range(rounds + 1))
    return Limits(2 * side**3 / product, 2 * source.nbytes / copy)


def cost(func: Any, args: Any, kwargs: Any, out: Any) -> Cost:
    """Return the cost of a call of an ATen operator.

    Convolutions and matrix products have two operations for each multiply-add. Any other operation is taken to have
    one for each value of its largest result. A view costs nothing.

    Args:
        func: The overload of the operator.
        args, kwargs: What it gets.
        out: What it returns.
    """
    read, made = _tensors((args, kwargs)), _tensors(out)
    writes = any(a.alias_info is not None and a.alias_info.is_write for a in func._schema.arguments)
    places = {_place(x) for x in read}
    if not writes and made and all(_place(x) in places for x in made):
        return Cost(0, 0)
    unique = {id(x): x for x in (*read, *made)} if not writes else {id(x): x for x in read}
    moved = sum(_bytes(x) for x in unique.values()) + (sum(_bytes(x) for x in made) if writes else 0)
    return Cost(_flops(func.overloadpacket.__name__, args, made), moved)


def _flops(name: str, args: Any, made: list[Tensor]) -> int:
    if name == 'convolution':
        x, weight, transposed = args[0], args[1], args[6]
        return 2 * (x if transposed else made[0]).numel() * weight[0].numel()
    if name == 'convolution_backward':
        grad, x, weight, transposed, wanted = args[0], args[1], args[2], args[7], args[10]
        return 2 * (x if transposed else grad).numel() * weight[0].numel() * sum(wanted[:2])
    if name in PRODUCTS:
        return 2 * made[0].numel() * int(args[PRODUCTS[name]].shape[-1])
    return max((x.numel() for x in made), default=0)


def _tensors(value: Any) -> list[Tensor]:
    leaves: Iterable[Any] = tree_flatten(value)[0]
    return [x for x in leaves if isinstance(x, Tensor)]


def _place(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


def _bytes(x: Tensor) -> int:
    """Return the bytes of a tensor; of an expanded one, those of its storage."""
    return min(x.numel() * x.element_size(), x.untyped_storage().nbytes())
