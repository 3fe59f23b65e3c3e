"""Compute the normal density and tail for every value of a map, and run moment rules block by block."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...kernels.following import is_transformed
from .._compiler import is_compiling

BLOCK = 65536  # elements of a temporary: with those of a rule they stay in the cache of a core
# elements per thread of a shared loop, which must outlast waking the other threads; fewer elements are computed in
# blocks of the size that torch gives to one thread
SHARE, GRAIN = 262144, 32768
Moments = tuple[Tensor, Tensor]
Buffer = Tensor | None  # to write into; None makes a new one
# in standard deviations: the normal density is 5e-35 and 2e-306 there. Beyond, its exponential is a denormal number or
# underflows, which takes a CPU 10 to 30 times as long
FAR = {torch.float32: 12.5, torch.float64: 37.5}
# Mills' ratio as a polynomial in u = 1 / (1 + SLOPE t), constant term first
SLOPE = 0.34
MILLS = (
    -5.375092314352514e-06, 0.3409053385257721, 0.32623299956321716, 0.3879365921020508,
    -0.06748823821544647, 0.6515184640884399, -0.49686166644096375, 0.11107604205608368,
)  # fmt: skip

_constants: dict[float, Tensor] = {}


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the type to compute in: half types lose the small difference of two moments."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def density_and_tail(
    t: Tensor, density: Tensor | None = None, tail: Tensor | None = None, work: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    r"""Compute the standard normal density :math:`\varphi(t)` and the tail :math:`\Phi(-t)`, for t from 0 to `FAR`.

    In float32 the tail is the density times Mills' ratio, which is a polynomial of degree 7 in :math:`1 / (1 + 0.34 t)`
    (the form of Abramowitz & Stegun, Handbook of Mathematical Functions, 26.2.17), fitted by iteratively reweighted
    least squares: its error is 1.4e-8 in the tail and in :math:`\varphi(t) - t \Phi(-t)`, and proportionally small far
    out: the variance of a ReLU is right to 1 % down to 8 standard deviations. It takes half the time of the
    complementary error function, which float64 uses.

    Args:
        t: float32 or float64.
        density, tail, work: Tensors of its shape and type to overwrite, the results and a temporary; None makes new
            ones.
    """
    if t.dtype != torch.float32:
        density = torch.mul(t, t, out=density).mul_(-0.5).exp_().mul_(1 / math.sqrt(2 * math.pi))
        return density, torch.mul(t, math.sqrt(0.5), out=tail).erfc_().mul_(0.5)
    # the power of 2 takes a fifth of the time of the exponential function
    scale, offset = -0.5 / math.log(2), -0.5 * math.log2(2 * math.pi)
    # constants as tensors: one pass instead of two or three; fake tensors and the like do not mix with plain ones
    if t.is_cpu and type(t) is Tensor and not is_compiling():
        work = torch.add(_constant(1.0), t, alpha=SLOPE, out=work).reciprocal_()
        tail = torch.add(_constant(MILLS[-2]), work, alpha=MILLS[-1], out=tail)
        for coefficient in MILLS[-3::-1]:
            torch.addcmul(_constant(coefficient), tail, work, out=tail)
        density = torch.addcmul(_constant(offset), t, t, value=scale, out=density).exp2_()
    else:
        work = torch.mul(t, SLOPE, out=work).add_(1).reciprocal_()
        tail = torch.mul(work, MILLS[-1], out=tail).add_(MILLS[-2])
        for coefficient in MILLS[-3::-1]:
            tail.mul_(work).add_(coefficient)
        density = torch.mul(t, t, out=density).mul_(scale).add_(offset).exp2_()
    return density, tail.mul_(density)


def _constant(value: float) -> Tensor:
    kept = _constants.get(value)
    if kept is None:
        with torch.inference_mode(False):
            kept = torch.tensor(value, dtype=torch.float32, device='cpu')
        # a tensor made within a mode or a transform of torch is useless outside of it
        if type(kept) is Tensor and not is_transformed(kept):
            _constants[value] = kept
    return kept


def cumulative(z: Tensor, tail: Tensor, out: Tensor | None = None) -> Tensor:
    r"""Compute :math:`\Phi(z) = |[z > 0] - \Phi(-|z|)|` from the sign of z and the tail :math:`\Phi(-|z|)`.

    A comparison that writes numbers is one pass. On a CPU, torch.where would cost more than the rest of a moment rule.
    """
    positive = torch.gt(z, 0).to(z.dtype) if out is None else torch.gt(z, 0, out=out)
    return positive.sub_(tail).abs_()


def blockwise(
    function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor], *, outputs: int, temporaries: int
) -> tuple[Tensor, ...]:
    """Apply an elementwise function of tensors of one shape block by block, with temporaries that stay in the cache.

    Otherwise memory bounds the passes of a moment rule. A compiler fuses them by itself.

    Args:
        function: Gets parts of the inputs in the type to compute in, then tensors of their shape to write the outputs
            and temporaries into, or None for each. Returns the outputs.
        inputs: Tensors of one shape, dtype and device.
        outputs, temporaries: Number of outputs and of temporaries.

    Returns:
        The outputs, with the shape and dtype of the inputs.
    """
    first = inputs[0]
    dtype, kind = wide(first.dtype), first.dtype
    dense = all(i.is_contiguous() for i in inputs)
    if is_compiling() or not (dense and first.is_cpu) or first.numel() <= BLOCK:
        found = function(*(i.to(dtype) for i in inputs), *[None] * (outputs + temporaries))
        return tuple(o.to(kind) for o in found)
    threads, n = torch.get_num_threads(), first.numel()
    if threads > 1 and n < SHARE:
        blocks = -(-n // GRAIN)
    else:
        blocks = max(1, round(n / (BLOCK if threads == 1 else SHARE * threads)))
    size = -(-n // blocks)
    out = [torch.empty_like(first) for _ in range(outputs)]
    spare = [first.new_empty(size, dtype=dtype) for _ in range(temporaries)]
    results = [first.new_empty(size, dtype=dtype) for _ in range(outputs if dtype != kind else 0)]
    for parts in zip(*(t.view(-1).split(size) for t in (*inputs, *out)), strict=True):
        read, write = parts[: len(inputs)], parts[len(inputs) :]
        if len(read[0]) < size:  # the last ones
            spare, results = ([t[: len(read[0])] for t in some] for some in (spare, results))
        function(*(r.to(dtype) for r in read), *(results or write), *spare)
        for part, value in zip(write, results, strict=False):
            part.copy_(value)
    return tuple(out)
