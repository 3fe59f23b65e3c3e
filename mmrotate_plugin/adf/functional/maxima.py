"""Take maxima: of two values, over dimensions, and of windows for pooling."""

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from .._compiler import Elementwise, apply, constant_result
from ..gaussian import Gaussian
from ..moment_rules import moment_rule
from ._normal import FAR, Buffer, Moments, blockwise, cumulative, density_and_tail

Size = int | Sequence[int]

NO_INDICES = 'return_indices=True: a maximum of Gaussians has no certain place; use return_indices=False'


@moment_rule(torch.amax, torch.Tensor.amax)
def amax(x: Gaussian, dim: Size = (), keepdim: bool = False) -> Gaussian:
    """Take the maximum over dimensions, by halving them with the pairwise rule of `max_pool2d`.

    **Exact if independent** for two values, **approximate** for more.

    Args:
        x: Any shape.
        dim: One dimension or several; none means all.
        keepdim: Whether to keep them with size one.
    """
    mean, var = single_precision(x)
    dims = sorted({d % mean.dim() for d in ([dim] if isinstance(dim, int) else dim or range(mean.dim()))})
    values = 1
    for d in dims:
        count = mean.shape[d]
        mean, var = max_over(mean, var, d, values=values)
        values *= count
    if not keepdim:
        kept = [n for d, n in enumerate(mean.shape) if d not in dims]
        mean, var = mean.reshape(kept), var.reshape(kept)
    return like(x, mean, var)


@moment_rule(torch.max, torch.Tensor.max)
def maximum_of(x: Any, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """Replace `torch.max` in its three forms: over all values, over one dimension, or of two tensors.

    **Exact if independent** for two values, **approximate** for more: the rule of `max_pool2d`. Over a dimension it
    returns values and indices as torch does; the indices are those of the largest means.

    Args:
        x: Any shape.
        dim: Dimension, or the second tensor.
        keepdim: Whether to keep the dimension with size one.
        other: The second tensor.
    """
    return in_three_forms(maximum, amax, Tensor.argmax, torch.return_types.max, x, dim, keepdim, other)


def in_three_forms(
    pair: Callable[..., Any],
    over: Callable[..., Any],
    place: Callable[..., Tensor],
    result: Callable[..., Any],
    x: Any,
    dim: Any,
    keepdim: bool,
    other: Any,
) -> Any:
    """Call the rule for a pair, for all values, or for one dimension, as the arguments of `torch.max` ask for."""
    second = other if other is not None else dim
    if isinstance(second, (Gaussian, Tensor)):
        return pair(x, second)
    if dim is None:
        return over(x)
    return result((over(x, dim, keepdim), place(x.mu, dim, keepdim)))


@moment_rule(torch.maximum, torch.Tensor.maximum)
def maximum(x: Gaussian | Tensor, other: Gaussian | Tensor) -> Gaussian:
    """Take the elementwise maximum of two independent Gaussians, or of one and a constant.

    **Exact if independent**: Clark 1961, see `max_pool2d`.

    Args:
        x, other: Shapes that broadcast; a plain tensor has variance zero.
    """
    gaussian = x if isinstance(x, Gaussian) else other
    assert isinstance(gaussian, Gaussian)
    dtype = torch.promote_types(x.dtype, other.dtype)
    (m1, v1), (m2, v2) = (single_precision(g) if isinstance(g, Gaussian) else _constant(g, dtype) for g in (x, other))
    wide = torch.promote_types(m1.dtype, m2.dtype)
    m1, v1, m2, v2 = torch.broadcast_tensors(*(t.to(wide) for t in (m1, v1, m2, v2)))
    mean, var = _pair_max(m1, v1, m2, v2)
    return Gaussian(mean.to(dtype), var.to(dtype))


def tree_max(items: Sequence[tuple[Any, Any, int]], pair: Callable[..., Any] | None = None) -> Moments:
    """Take the maximum of items of one shape: (mean, variance, number of values it is the maximum of).

    `pair` merges two; None means the maximum of two Gaussians.
    """
    merge: Callable[..., Any] = pair or _pair_max
    items = list(items)
    while len(items) > 1:
        pairs = zip(items[::2], items[1::2], strict=False)
        merged = [(*merge(*a[:2], *b[:2], *_corrections(a[2], b[2])), a[2] + b[2]) for a, b in pairs]
        items = merged + items[2 * len(merged) :]
    return items[0][:2]


def max_over(mean: Tensor, var: Tensor, dim: int, *, values: int) -> Moments:
    """Take the maximum over one dimension, which stays with size one."""
    rest: list[tuple[Tensor, Tensor, int]] = []
    size = mean.shape[dim]
    while size > 1:
        half = size // 2
        if size % 2:
            rest.append((mean.narrow(dim, size - 1, 1), var.narrow(dim, size - 1, 1), values))
        m1, m2 = mean.narrow(dim, 0, half), mean.narrow(dim, half, half)
        v1, v2 = var.narrow(dim, 0, half), var.narrow(dim, half, half)
        mean, var = _pair_max(m1, v1, m2, v2, *_corrections(values, values))
        values, size = 2 * values, half
    while rest:
        m, v, n = rest.pop()
        mean, var = _pair_max(mean, var, m, v, *_corrections(values, n))
        values += n
    return mean, var


def _pair_max(m1: Tensor, v1: Tensor, m2: Tensor, v2: Tensor, rho: float = 1.0, lam: float = 1.0) -> Moments:
    return apply(_PairMax, m1, v1, m2, v2, rho, lam)


def _pair_moments(
    m1: Tensor, v1: Tensor, m2: Tensor, v2: Tensor, mean: Buffer, var: Buffer,
    a: Buffer, t: Buffer, u: Buffer, e: Buffer, p: Buffer, *, rho: float, lam: float,
) -> Moments:  # fmt: skip
    """Write mean and variance into the buffers `mean` and `var`; the rest are temporaries."""
    s = torch.add(v1, v2, out=var)
    a = torch.clamp_min(s, torch.finfo(s.dtype).tiny, out=a).rsqrt_()
    # minus infinity, the padding, may meet another; not by nan_to_num, which compilers do not vectorise
    finite = torch.finfo(m1.dtype).max / 4
    d = torch.clamp(m1, -finite, finite, out=t).sub_(torch.clamp(m2, -finite, finite, out=u))
    z = torch.mul(d, a, out=mean)
    t = torch.abs(z, out=t).clamp_max_(FAR[s.dtype])
    a.mul_(s)  # the root of v1 + v2
    e, p = density_and_tail(t, e, p, u)
    e.addcmul_(t, p, value=-1).clamp_min_(0)
    u = cumulative(z, p, out=u)
    top = torch.maximum(m1, m2, out=mean).addcmul_(a, e, value=rho)
    t.add_(e).mul_(e).mul_(s)
    return top, torch.lerp(v2, v1, u, out=var).add_(t, alpha=-lam).clamp_min_(0)


class _PairMax(Elementwise):
    """Moments of the maximum of two Gaussians; formula in `max_pool2d`.

    Its own function, because autograd would keep ten tensors of a map's size and divide by a variance of zero.
    """

    @staticmethod
    def forward(m1: Tensor, v1: Tensor, m2: Tensor, v2: Tensor, rho: float, lam: float) -> Moments:
        moments = partial(_pair_moments, rho=rho, lam=lam)
        mean, var = blockwise(moments, (m1, v1, m2, v2), outputs=2, temporaries=5)
        return mean, var

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Moments) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs[:4])
        ctx.rho, ctx.lam = inputs[4:]

    @staticmethod
    def backward(ctx: Any, grad_mean: Tensor, grad_var: Tensor) -> tuple[Tensor | None, ...]:
        m1, v1, m2, v2 = ctx.saved_tensors
        rho, lam = ctx.rho, ctx.lam
        s = v1 + v2
        a = s.sqrt()
        z = ((m1 - m2) / a).nan_to_num(posinf=1e15, neginf=-1e15)
        t = z.abs()
        tail = 0.5 * torch.erfc(t * math.sqrt(0.5))
        density = torch.exp(-0.5 * t * t) / math.sqrt(2 * math.pi)
        excess = density - t * tail
        spread = lam * excess * (t + excess)
        first = 0.5 + torch.copysign(0.5 - tail, z)
        spread_by_t = lam * ((1 - tail) * excess - tail * (t + excess))
        by_z = density * ((v1 - v2) / s).nan_to_num(0.0) - spread_by_t * z.sign()
        mean_by_m1 = 0.5 + torch.copysign(0.5 - rho * tail, z)
        # at variance zero the derivative of a tie has no bound; it counts as zero
        by_s = grad_mean * (0.5 * rho * density / a).nan_to_num(posinf=0.0) - grad_var * (spread + 0.5 * z * by_z)
        by_m = grad_var * a * by_z
        return (
            grad_mean * mean_by_m1 + by_m,
            grad_var * first + by_s,
            grad_mean * (1 - mean_by_m1) - by_m,
            grad_var * (1 - first) + by_s,
            None,
            None,
        )


@constant_result
def _corrections(n1: int, n2: int) -> tuple[float, float]:
    """Return rho and lambda of `max_pool2d` for the maximum of a maximum of `n1` and one of `n2` values."""
    if n1 == n2 == 1:
        return 1.0, 1.0
    (low, v_low), (high, v_high) = _greatest(min(n1, n2)), _greatest(max(n1, n2))
    mean, var = _greatest(n1 + n2)
    s = v_low + v_high
    t = (high - low) / math.sqrt(s)
    tail = 0.5 * math.erfc(t * math.sqrt(0.5))
    excess = math.exp(-0.5 * t * t) / math.sqrt(2 * math.pi) - t * tail
    rho = (mean - high) / (math.sqrt(s) * excess)
    return rho, (v_high * (1 - tail) + v_low * tail - var) / (s * excess * (t + excess))


@cache
def _greatest(n: int) -> tuple[float, float]:
    """Compute mean and variance of the greatest of `n` standard normal values, by quadrature."""
    points = [i / 64 for i in range(-640, 641)]
    below = [(0.5 * math.erfc(-x * math.sqrt(0.5))) ** (n - 1) for x in points]
    weights = [n * math.exp(-0.5 * x * x) * b for x, b in zip(points, below, strict=True)]
    total = math.fsum(weights)
    mean = math.fsum(w * x for w, x in zip(weights, points, strict=True)) / total
    return mean, math.fsum(w * (x - mean) ** 2 for w, x in zip(weights, points, strict=True)) / total


def single_precision(x: Gaussian) -> Moments:
    """Convert the moments to single precision at least."""
    dtype = torch.promote_types(x.mu.dtype, torch.float32)
    return x.mu.to(dtype), x.v.to(dtype)


def _constant(x: Tensor, dtype: torch.dtype) -> Moments:
    return x.to(dtype), torch.zeros_like(x, dtype=dtype)


def like(x: Gaussian, mean: Tensor, var: Tensor) -> Gaussian:
    """Convert moments to the dtype of `x`."""
    return Gaussian(mean.to(x.mu.dtype), var.to(x.mu.dtype))
