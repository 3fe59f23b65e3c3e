r"""Apply an activation to functions of the angle, of which a regular field holds the samples.

A regular field of C_N is a function on the circle, sampled at N orientations: a sum of angular frequencies below N/2. A
ReLU of the samples makes higher ones, which N orientations cannot hold. They alias: the layer commutes with the N
turns, and with none between. Applied to a finer sampling, and limited to the frequencies below N/2 afterwards, it
commutes with all turns but for the aliases of the finer grid (Franzen & Wand, General Nonlinearities in
SO(2)-Equivariant CNNs, NeurIPS 2021, arXiv:2109.06861; escnn's ``FourierPointwise``).
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad
from torch.overrides import handle_torch_function, has_torch_function_unary

from ..kernels import takes
from ..kernels.angular_relu import ORDERS, angular_relu
from ..kernels.following import is_compiling, is_plain, is_tracing
from ._constants import Constant, is_batched
from ._fixed import FixedLayer
from .conv import _without_autocast
from .fields import DEFAULT_GROUP, count_fields, group_order

FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    'relu': F.relu,
    'leaky_relu': F.leaky_relu,
    'elu': F.elu,
    'silu': F.silu,
    'gelu': F.gelu,
    'mish': F.mish,
    'softplus': F.softplus,
    'tanh': torch.tanh,
    'sigmoid': torch.sigmoid,
}
BLOCK = 1 << 18  # samples that are worked on at a time: they stay in the cache, and no map of all of them is made


class ennFourierReLU(FixedLayer):
    r"""ReLU (or another function) of each field as a function of the angle, instead of its N samples.

    With U the trigonometric interpolation from N to M = `oversampling` N orientations, without the frequency N/2:

    .. math::
        y = \tfrac{N}{M}\, U^T f(U x), \qquad
        U_{po} = \tfrac{1}{N} \sum_{|k| < N/2} \cos\bigl(2\pi k (\tfrac{p}{M} - \tfrac{o}{N})\bigr)

    A field of D_N is two rings of N orientations, reflected into each other; each is interpolated. The layer commutes
    with the group to round-off, and nearly with all other turns; see the module's docstring for why and for the source.

    It costs two products of small matrices per pixel, for float32 and 8 or 16 rotations on a CPU in one compiled loop.
    For ReLU, the backward pass keeps whether each of the M samples passes: by a bit in that loop, which is an eighth of
    the memory of the input for 8 rotations, and else by a byte, which is half.

    Args:
        inplace: Whether the layer may overwrite its input to save memory. It does so for the ReLU of ordinary tensors;
            elsewhere the result is the same, in new memory.
        group: Fiber group such as 'C8' or 'D8', with N of at least 3.
        oversampling: M / N, an integer. 2 is enough for ReLU; 1 is the plain function behind the band limit.
        function: 'relu', 'leaky_relu', 'elu', 'silu', 'gelu', 'mish', 'softplus', 'tanh' or 'sigmoid'.

    Shape:
        - Input, output: (B, fields * ``|G|``, H, W), orientation fastest.

    Raises:
        ValueError: If the group has less than three rotations (the mean would be all that is left), or for another
            `oversampling` or `function`; in `forward`, if the channels are no whole fields.

    Example:
        >>> import torch
        >>> from mmrotate_plugin.equivariant import ennFourierReLU
        >>> layer = ennFourierReLU(group='C8')
        >>> x = torch.randn(1, 16, 5, 5)
        >>> fine = ennFourierReLU(group='C8', oversampling=16)(x)  # nearly the continuous function
        >>> bool((layer(x) - fine).norm() < 0.1 * (torch.relu(x) - fine).norm())
        True
    """

    def __init__(
        self, inplace: bool = False, *, group: str = DEFAULT_GROUP, oversampling: int = 2, function: str = 'relu'
    ) -> None:
        super().__init__()
        self.order = group_order(group)
        self.rotations = int(group[1:])
        if self.rotations < 3:
            raise ValueError(
                f"group='{group}' has no angular frequency below N/2 but the mean: use at least 3 rotations, "
                f"such as '{group[0]}4' or '{group[0]}8'"
            )
        if not isinstance(oversampling, int) or isinstance(oversampling, bool) or oversampling < 1:
            raise ValueError(f'oversampling={oversampling!r} must be an integer >= 1; 2 is enough for ReLU')
        if function not in FUNCTIONS:
            raise ValueError(f'function={function!r} is unknown: use one of {", ".join(FUNCTIONS)}')
        self.inplace, self.group, self.oversampling, self.function = bool(inplace), group, oversampling, function
        self.share_constant()

    def find_constant(self) -> Constant:
        return interpolation(self.rotations, self.oversampling)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer to (B, C, H, W)."""
        if not is_tracing() and x.shape[1] % self.order:
            count_fields(x.shape[1], self.group, 'channels')  # says what is wrong
        up = self.constant.like(x)
        with _without_autocast(x.device.type):
            if self.function != 'relu' or not _is_ordinary(x):
                return fourier_pointwise(x, up, FUNCTIONS[self.function])
            if torch.is_grad_enabled() and x.requires_grad:
                return _AngularReLU.apply(x, up, self.inplace)
            return _gated(x, up, None, inplace=self.inplace)

    def extra_repr(self) -> str:
        text = f"group={self.group}, oversampling={self.oversampling}, function='{self.function}'"
        return text + (', inplace=True' if self.inplace else '')


@cache
def interpolation(n: int, oversampling: int) -> Constant:
    """Return U, (oversampling * n, n), one object per process. Equal differences of angles have equal entries."""
    m = n * oversampling
    steps = np.arange(m)
    frequencies = np.arange(1, (n + 1) // 2)
    wave = (1 + 2 * np.cos(2 * math.pi / m * np.outer(steps, frequencies)).sum(1)) / n
    wave = (wave + wave[-steps % m]) / 2  # even to the bit: reflections commute
    return Constant(wave[(steps[:, None] - oversampling * np.arange(n)) % m])


def _is_ordinary(x: Tensor) -> bool:
    """Tell whether operations may write into memory that they made: nothing but autograd's backward pass follows."""
    if is_compiling() or is_tracing() or forward_ad._current_level >= 0:
        return False
    return is_plain(x) and not is_batched(x)


def fourier_pointwise(x: Tensor, up: Tensor, function: Callable[[Any], Any]) -> Tensor:
    """Compute (N / M) U^T f(U x) by operations that everything can follow.

    Args:
        x: (B, C, H, W), C a multiple of N. Types with a ``__torch_function__`` get the call as a whole.
        up: U, (M, N).
        function: f, of the samples (B, C / N, M, H * W).
    """
    if has_torch_function_unary(x):
        return handle_torch_function(fourier_pointwise, (x,), x, up, function)
    b, c, h, w = x.shape
    m, n = up.shape
    samples = function(torch.matmul(up, x.reshape(b, c // n, n, h * w)))
    return torch.matmul(up.t() * (n / m), samples).reshape(b, c, h, w)


def _gated(
    x: Tensor, up: Tensor, gate: Tensor | None, *, record: Tensor | None = None, inplace: bool = False
) -> Tensor:
    """Compute (N / M) U^T (gate * U x), or with a ReLU in place of the gate: by a compiled loop, or block by block.

    Args:
        x: (B, C, H, W).
        up: U, (M, N).
        gate: Of `_new_gate`; None for a ReLU.
        record: Where the ReLU's gate goes, of `_new_gate`.
        inplace: Whether to write the result into `x`.
    """
    b, c, h, w = x.shape
    (m, n), rings = up.shape, b * c // up.shape[1]
    notes = gate if record is None else record
    source = x.reshape(rings, n, h * w)
    direct = inplace and source.data_ptr() == x.data_ptr()
    target = source if direct else torch.empty_like(source)
    if _is_compiled(source, up) and (notes is None or notes.dtype == torch.int32):
        angular_relu(source, up[1], out=target, record=record, gate=gate)
    else:
        gates, records = (t if t is None else t.view(rings, m, h * w) for t in (_samples(gate, m), record))
        _by_blocks(source, up, gates, records, target)
    if direct:
        return x
    return x.copy_(target.view(b, c, h, w)) if inplace else target.view(b, c, h, w)


def _by_blocks(x: Tensor, up: Tensor, gates: Tensor | None, records: Tensor | None, out: Tensor) -> None:
    """Compute `_gated` for (rings, N, pixels) into `out`, which may be `x`, with gates of (rings, M, pixels)."""
    (rings, n, pixels), m = x.shape, len(up)
    down = up.t() * (n / m)
    size = max(1, BLOCK // max(1, m * pixels))
    for i in range(0, rings, size):
        here = slice(i, i + size)
        block = x[here]
        samples = torch.bmm(up.expand(len(block), m, n), block)
        if records is not None:
            torch.gt(samples, 0, out=records[here])
        samples = samples.relu_() if gates is None else samples.mul_(gates[here])
        torch.bmm(down.expand(len(block), n, m), samples, out=out[here])


def _is_compiled(x: Tensor, up: Tensor) -> bool:
    """Tell whether the compiled loop takes (rings, N, pixels)."""
    return len(up) == 2 * up.shape[1] and up.shape[1] in ORDERS and x.is_contiguous() and takes(x)


def _new_gate(x: Tensor, up: Tensor) -> Tensor:
    """Make room for which samples pass: bits of int32 (B, C / N, H * W) by the compiled loop, else bool per sample."""
    b, c, h, w = x.shape
    m, n = up.shape
    if _is_compiled(x.reshape(b * c // n, n, h * w), up):
        return torch.empty(b, c // n, h * w, dtype=torch.int32, device=x.device)
    return torch.empty(b, c // n, m, h * w, dtype=torch.bool, device=x.device)


def _samples(gate: Tensor | None, m: int) -> Tensor | None:
    """Return a gate as bool (B, C / N, M, H * W)."""
    if gate is None or gate.dtype == torch.bool:
        return gate
    bits = torch.arange(m, dtype=torch.int32, device=gate.device)
    return (gate.unsqueeze(-2) >> bits[:, None] & 1).bool()


class _AngularReLU(torch.autograd.Function):
    """Save for each sample whether the ReLU lets it pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, up: Tensor, inplace: bool) -> Tensor:
        gate = _new_gate(x, up)
        ctx.save_for_backward(up, gate)
        if inplace:
            ctx.mark_dirty(x)
        return _gated(x, up, None, record=gate, inplace=inplace)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _apply_gate(grad, *ctx.saved_tensors), None, None


class _Gated(torch.autograd.Function):
    """The ReLU's derivative, a symmetric map: so it is its own backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, up: Tensor, gate: Tensor) -> Tensor:
        ctx.save_for_backward(up, gate)
        return _gated(x, up, gate)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _apply_gate(grad, *ctx.saved_tensors), None, None


def _apply_gate(x: Tensor, up: Tensor, gate: Tensor) -> Tensor:
    with _without_autocast(x.device.type):
        if _is_ordinary(x):
            return _Gated.apply(x, up, gate)
        passes = _samples(gate, len(up))
        return fourier_pointwise(x, up, lambda samples: samples * passes)
