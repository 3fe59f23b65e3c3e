"""Sample variance: how far values lie from their average."""

import math
from typing import Any

import torch
from torch import Tensor

from ..gaussian import Gaussian, moment_rule
from ._normal import wide
from .arithmetic import mean as mean_of


@moment_rule(torch.var, Tensor.var)
def var(x: Gaussian, dim: Any = None, *args: Any, **options: Any) -> Gaussian:
    r"""Sample variance over all or some dimensions of independent values: a quadratic form. **Exact if independent**.

    With the centred means :math:`d_i = \mu_i - \bar\mu`, n values and the correction c (1 unless told):

    .. math::
        \mu' = \frac{\sum_i d_i^2 + (1 - \frac1n) \sum_i v_i}{n - c}, \qquad
        v' = \frac{2 (1 - \frac2n) \sum_i v_i^2 + \frac{2}{n^2} (\sum_i v_i)^2 + 4 \sum_i v_i d_i^2}{(n - c)^2}

    from :math:`E x^T A x = \mathrm{tr}(A \Sigma) + \mu^T A \mu` and its variance (Searle, Linear Models, 1971, ch. 2).

    Args:
        x: Any shape.
        dim: One or several; none means all.
        args, options: `unbiased` or `correction`, and `keepdim`, as of `torch.var`.
    """
    if isinstance(dim, bool):  # torch.var(x, unbiased)
        dim, args, options = None, (), {'unbiased': dim, **options}
    unbiased, keepdim = _flags(args, options)
    mean, variance = x.mu.to(wide(x.dtype)), x.v.to(wide(x.dtype))
    dims = [d % x.dim() for d in ([dim] if isinstance(dim, int) else dim or range(x.dim()))]
    n = math.prod(x.shape[d] for d in dims)
    off = (mean - mean.mean(dims, keepdim=True)).square()
    total = variance.sum(dims, keepdim=True)
    divisor = max(n - unbiased, 0) or float('nan')
    first = (off.sum(dims, keepdim=True) + (1 - 1 / n) * total) / divisor
    squares = (variance.square().sum(dims, keepdim=True) * (1 - 2 / n) + (total / n).square()).clamp_min(0)
    second = (2 * squares + 4 * (variance * off).sum(dims, keepdim=True)) / divisor**2
    shape = [1 if d in dims else size for d, size in enumerate(x.shape) if keepdim or d not in dims]
    return Gaussian(first.reshape(shape).to(x.dtype), second.reshape(shape).to(x.dtype))


@moment_rule(torch.var_mean)
def var_mean(x: Gaussian, dim: Any = None, *args: Any, **options: Any) -> tuple[Gaussian, Gaussian]:
    """`var` and `arithmetic.mean`, each **exact if independent**; that they depend on each other is not followed."""
    keepdim = _flags(() if isinstance(dim, bool) else args, options)[1]
    dims = list(range(x.dim())) if dim is None or isinstance(dim, bool) else dim
    return var(x, dim, *args, **options), mean_of(x, dims, keepdim=keepdim)


def _flags(args: tuple[Any, ...], options: dict[str, Any]) -> tuple[float, bool]:
    """What is subtracted from the number of values, and whether dimensions are kept."""
    given = dict(zip(('unbiased', 'keepdim'), args, strict=False)) | options
    correction = given.get('correction')
    return (int(given.get('unbiased', True)) if correction is None else correction), bool(given.get('keepdim', False))
