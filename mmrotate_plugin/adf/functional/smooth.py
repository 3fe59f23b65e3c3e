"""Sigmoids and smooth variants of ReLU, by Gauss-Hermite quadrature; softmax."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .._compiler import may_read
from ..gaussian import Gaussian, call
from ..moment_rules import moment_rule
from .activations import as_type, relu, widened

LARGE = 16.0  # variance up to which the nodes resolve functions of scale one


def _gauss_hermite(n: int) -> list[tuple[float, float]]:
    """Compute nodes and weights for a standard normal density (Golub & Welsch 1969)."""
    off = torch.arange(1, n, dtype=torch.float64).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    return list(zip(nodes.tolist(), vectors[0].square().tolist(), strict=True))


RULE = _gauss_hermite(13)


def _at_nodes(function: Callable[[Tensor], Tensor], mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Compute mean and variance of a smooth function, and its values at the nodes.

    Both are linear in the variance below a small spread, where rounding would spoil the differences and their
    gradient. So at variance 0 the values are the plain ones and the gradients are right.
    """
    spread = (torch.finfo(mean.dtype).eps ** 0.4 * (1 + mean.abs())).square()
    wide = torch.maximum(var, spread)
    share, std = var / wide, wide.sqrt()
    values = [function(mean + node * std) for node, _ in RULE]
    centre = function(mean)
    shift = sum(weight * (value - centre) for value, (_, weight) in zip(values, RULE, strict=True))
    second = sum(weight * (value - centre - shift).square() for value, (_, weight) in zip(values, RULE, strict=True))
    return centre + share * shift, share * second, values


@moment_rule(torch.sigmoid, torch.sigmoid_, Tensor.sigmoid, Tensor.sigmoid_, torch.special.expit)
def sigmoid(x: Gaussian) -> Gaussian:
    r"""Logistic function of a Gaussian: **approximate** (mean within 0.004, whatever the variance).

    Gauss-Hermite nodes :math:`y_i` take a variance up to 16. The rest, :math:`v_1`, is integrated at each node:
    :math:`p_i = E \sigma(y_i + e)` with MacKay's :math:`\kappa = (1 + \pi v_1 / 8)^{-1/2}` (The evidence framework
    applied to classification networks, Neural Computation 1992) is :math:`\sigma(\kappa y_i)`, blended towards the
    probit, which is its limit; and from :math:`\sigma^2 = \sigma - \sigma'`

    .. math::
        \mu' = \sum_i w_i p_i, \qquad v' = \sum_i w_i \left( (p_i - \mu')^2 + (1 - \kappa) p_i (1 - p_i) \right)

    Shape:
        - Input, output: mean and variance of one shape, any.
    """
    y = widened(x)
    if may_read(y.v) and bool((y.v <= LARGE).all()):  # the nodes take all of them
        return as_type(x.dtype, *_at_nodes(torch.sigmoid, y.mu, y.v)[:2])
    near = y.v.clamp_max(LARGE)
    shrink = (1 + math.pi / 8 * (y.v - near)).rsqrt()

    def smoothed(value: Tensor) -> Tensor:
        value = shrink * value
        probit = 0.5 * torch.erfc(-math.sqrt(math.pi) / 4 * value)
        return torch.lerp(probit, torch.sigmoid(value), shrink)

    mean, var, values = _at_nodes(smoothed, y.mu, near)
    within = sum(weight * (p * (1 - p)) for p, (_, weight) in zip(values, RULE, strict=True))
    return as_type(x.dtype, mean, var + (1 - shrink) * within)


@moment_rule(torch.tanh, torch.tanh_, Tensor.tanh, Tensor.tanh_)
def tanh(x: Gaussian) -> Gaussian:
    r"""Hyperbolic tangent, as :math:`2 \sigma(2x) - 1` by `sigmoid`: **approximate** (mean within 0.008).

    Shape:
        - Input, output: mean and variance of one shape, any.
    """
    y = widened(x)
    p = sigmoid(Gaussian(2 * y.mu, 4 * y.v))
    return as_type(x.dtype, 2 * p.mu - 1, 4 * p.v)


def _rectifier(function: Callable[[Tensor], Tensor], x: Gaussian) -> tuple[Tensor, Tensor]:
    r"""Compute the moments of a function that is ReLU plus a bump of width one.

    Up to variance 16 by quadrature. Beyond, with :math:`s^2 = v / 16`, ReLU scales: its mean like s, its variance like
    :math:`s^2`; the mean of the bump falls like 1 / s, its share of the variance is constant.
    """
    scale = (x.v / LARGE).clamp_min(1)
    root = scale.sqrt()
    near = Gaussian(x.mu / root, x.v / scale)
    mean, var, _ = _at_nodes(function, near.mu, near.v)
    plain = relu(near)
    return mean / root + (root - 1 / root) * plain.mu, var + (scale - 1) * plain.v


@moment_rule(F.gelu)
def gelu(x: Gaussian, approximate: str = 'none') -> Gaussian:
    r"""GELU of a Gaussian: mean **exact** unless `approximate` is 'tanh', variance **approximate** (quadrature).

    .. math::
        \mu' = \mu \Phi(a) + \frac{v}{\sqrt{1 + v}} \varphi(a), \qquad a = \mu / \sqrt{1 + v}

    by Stein's lemma. Variance by Gauss-Hermite nodes up to variance 16, and from ReLU's beyond.

    Shape:
        - Input, output: mean and variance of one shape, any.
    """
    y = widened(x)
    mean, var = _rectifier(lambda value: F.gelu(value, approximate=approximate), y)
    if approximate == 'none':
        root = (1 + y.v).sqrt()
        a = (y.mu / root).clamp(-40, 40)  # the square of a larger value overflows
        density = torch.exp(-0.5 * a.square()) / math.sqrt(2 * math.pi)
        mean = y.mu * (0.5 * torch.erfc(-a * math.sqrt(0.5))) + y.v / root * density
    return as_type(x.dtype, mean, var)


@moment_rule(F.silu, torch._C._nn.silu, torch._C._nn.silu_)
def silu(x: Gaussian, inplace: bool = False) -> Gaussian:  # noqa: ARG001
    """SiLU of a Gaussian: **approximate**, Gauss-Hermite nodes up to variance 16, and from ReLU's moments beyond.

    Shape:
        - Input, output: mean and variance of one shape, any.
    """
    return as_type(x.dtype, *_rectifier(F.silu, widened(x)))


@moment_rule(F.mish, torch._C._nn.mish, torch._C._nn.mish_)
def mish(x: Gaussian, inplace: bool = False) -> Gaussian:  # noqa: ARG001
    """Mish of a Gaussian: **approximate**, by the rule of `silu`. Misra, BMVC 2020 (arXiv:1908.08681).

    Shape:
        - Input, output: mean and variance of one shape, any.
    """
    return as_type(x.dtype, *_rectifier(F.mish, widened(x)))


@moment_rule(F.softplus)
def softplus(x: Gaussian, beta: float = 1.0, threshold: float = 20.0) -> Gaussian:
    """Softplus of a Gaussian: **approximate**, by the rule of `silu`.

    Shape:
        - Input, output: mean and variance of one shape, any.
    """
    y = widened(x)
    mean, var = _rectifier(lambda value: F.softplus(value, 1, threshold), Gaussian(beta * y.mu, beta**2 * y.v))
    return as_type(x.dtype, mean / beta, var / beta**2)


@moment_rule(F.logsigmoid, torch._C._nn.log_sigmoid)
def logsigmoid(x: Gaussian) -> Gaussian:
    """Logarithm of the logistic function, minus the `softplus` of -x: **approximate**."""
    out = softplus(Gaussian(-x.mu, x.v), threshold=50.0)
    return Gaussian(-out.mu, out.v)


@moment_rule(F.glu)
def glu(x: Gaussian, dim: int = -1) -> Gaussian:
    """Gated linear unit: one half of a dimension times the `sigmoid` of the other. **Approximate**."""
    value, gate = call(torch.chunk, x, 2, dim)
    return call(torch.mul, value, sigmoid(gate))


def _log_sum(a: Gaussian, b: Gaussian) -> Gaussian:
    r"""Compute the moments of :math:`\log(e^a + e^b)` for independent a, b, as Clark (1961) does for their maximum.

    It is :math:`b + \mathrm{softplus}(d)`, d = a - b; given d, the rest of b is an independent Gaussian.
    """
    var = a.v + b.v
    share = b.v / var.clamp_min(1e-30)
    d = a.mu - b.mu
    mean, rest, _ = _at_nodes(lambda value: F.softplus(value, 1, 50) - share * (value - d), d, var)
    return Gaussian(b.mu + mean, rest + a.v * share)


def _pairs(x: Gaussian, select: Callable[[Tensor], Tensor]) -> Gaussian:
    return Gaussian(select(x.mu), select(x.v))


def _log_odds(x: Gaussian) -> Gaussian:
    """Subtract from each logit the log-sum of the others, along the last dimension, by a tree of pairs."""
    count = x.shape[-1]
    if x.numel() == 0:
        return x
    lowest = x.mu.detach().amin(-1, keepdim=True) - 100  # adds nothing to a sum
    padding = (2 ** max(1, (count - 1).bit_length())) - count
    fill = lowest.expand(*lowest.shape[:-1], padding)
    level = Gaussian(torch.cat([x.mu, fill], -1), torch.cat([x.v, torch.zeros_like(fill)], -1))
    levels = [level]
    while level.shape[-1] > 2:
        level = _log_sum(_pairs(level, lambda t: t[..., ::2]), _pairs(level, lambda t: t[..., 1::2]))
        levels.append(level)
    others = _pairs(levels.pop(), lambda t: t.flip(-1))
    for level in reversed(levels):
        siblings = _pairs(level, lambda t: t.unflatten(-1, (-1, 2)).flip(-1).flatten(-2))
        others = _log_sum(_pairs(others, lambda t: t.repeat_interleave(2, -1)), siblings)
    others = _pairs(others, lambda t: t[..., :count])
    return Gaussian(x.mu - others.mu, x.v + others.v)


def _logits(x: Gaussian, dim: int | None, dtype: torch.dtype | None, name: str) -> tuple[Gaussian, int]:
    """Move the classes to the last dimension; return where they were, too."""
    if dim is None:
        raise TypeError(f'{name} of a Gaussian needs dim, but it is None; dim=1 are the classes of (B, C)')
    if dtype is not None:
        x = Gaussian(x.mu.to(dtype), x.v.to(dtype))
    return _pairs(widened(x), lambda t: t.movedim(dim, -1)), dim


@moment_rule(F.softmax, torch.softmax, Tensor.softmax)
def softmax(x: Gaussian, dim: int | None = None, dtype: torch.dtype | None = None, **_: Any) -> Gaussian:
    r"""Softmax of independent Gaussian logits: **approximate** (for variances up to 3, means within 0.01).

    .. math::
        p_k = \sigma(x_k - L_k), \qquad L_k = \log \sum_{j \ne k} e^{x_j}

    :math:`L_k` is independent of :math:`x_k`; its moments are matched pair by pair in a tree (after Clark, The
    greatest of a finite set of random variables, Operations Research 1961), then `sigmoid` gives those of
    :math:`p_k`. Means are divided by their sum. No exponential can overflow.

    Shape:
        - Input, output: mean and variance of one shape; classes along `dim`.

    Raises:
        TypeError: If `dim` is None.
    """
    logits, dim = _logits(x, dim, dtype, 'softmax')
    if logits.shape[-1] == 1:
        p = Gaussian(torch.ones_like(logits.mu), torch.zeros_like(logits.v))
    else:
        p = sigmoid(_log_odds(logits))
    total = p.mu.sum(-1, keepdim=True)
    out = Gaussian((p.mu / total).movedim(-1, dim), (p.v / total.square()).movedim(-1, dim))
    return as_type(dtype or x.dtype, out.mu, out.v)


@moment_rule(F.softmin)
def softmin(x: Gaussian, dim: int | None = None, dtype: torch.dtype | None = None, **_: Any) -> Gaussian:
    """Softmax of -x, by `softmax`: **approximate**."""
    return softmax(Gaussian(-x.mu, x.v), dim, dtype)


@moment_rule(F.log_softmax, torch.log_softmax, Tensor.log_softmax)
def log_softmax(x: Gaussian, dim: int | None = None, dtype: torch.dtype | None = None, **_: Any) -> Gaussian:
    r"""Logarithm of the softmax, :math:`-\mathrm{softplus}(L_k - x_k)`: **approximate**; see `softmax`.

    Shape:
        - Input, output: mean and variance of one shape; classes along `dim`.

    Raises:
        TypeError: If `dim` is None.
    """
    logits, dim = _logits(x, dim, dtype, 'log_softmax')
    if logits.shape[-1] == 1:
        out = Gaussian(torch.zeros_like(logits.mu), torch.zeros_like(logits.v))
    else:
        odds = _log_odds(logits)
        out = softplus(Gaussian(-odds.mu, odds.v), threshold=50.0)
    return as_type(dtype or x.dtype, -out.mu.movedim(-1, dim), out.v.movedim(-1, dim))
