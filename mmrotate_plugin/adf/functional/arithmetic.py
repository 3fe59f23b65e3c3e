"""Sums, products and powers."""

import math
from typing import Any

import torch
from torch import Tensor

from ..deferred import deferred, parts_of
from ..gaussian import Gaussian
from ..moment_rules import NoMomentRule, moment_rule

Value = Gaussian | Tensor | float
HALF = (torch.float16, torch.bfloat16)
TINY = 1e-30  # variance below which a value counts as exact: the gradient of a smaller root overflows


@moment_rule(torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__radd__, Tensor.__iadd__)
def add(x: Value, other: Value, *, alpha: float = 1) -> Gaussian:
    r"""Sum :math:`x + \alpha y`. **Exact** with a constant, **exact if independent** with a Gaussian.

    .. math::
        \mu' = \mu_x + \alpha \mu_y, \qquad v' = v_x + \alpha^2 v_y

    The variance of a constant is 0. A residual branch counts as independent of its shortcut. The sum of an object with
    itself, ``x + x``, is :math:`(1 + \alpha) x`, exactly: :math:`v' = (1 + \alpha)^2 v`; copies and views of it are not
    recognised.

    Shape:
        - Inputs: shapes that broadcast.
    """
    mean = torch.add(_mean(x), _mean(other), alpha=alpha)
    if alpha == 1 and x is not other and isinstance(x, Gaussian) and isinstance(other, Gaussian):
        later = deferred(mean, (*parts_of(x.variance), *parts_of(other.variance)))
        if later is not None:
            return Gaussian(mean, later)
    var_x, var_y = _moments(x)[1], _moments(other)[1]
    if x is other and var_x is not None:
        var = var_x * (1 + alpha) ** 2
    elif var_x is not None:
        var = var_x if var_y is None else torch.add(var_x, var_y, alpha=alpha**2)
    elif var_y is not None:
        var = var_y if alpha in (1, -1) else var_y * alpha**2
    return Gaussian(mean, _like(var, mean))


@moment_rule(torch.sub, torch.subtract, Tensor.sub, Tensor.sub_, Tensor.subtract, Tensor.subtract_)
@moment_rule(Tensor.__sub__, Tensor.__isub__)
def sub(x: Value, other: Value, *, alpha: float = 1) -> Gaussian:
    r"""Difference :math:`x - \alpha y`: `add` with the other sign. **Exact**, or **exact if independent**."""
    return add(x, other, alpha=-alpha)


@moment_rule(torch.rsub, Tensor.__rsub__)
def rsub(x: Value, other: Value, *, alpha: float = 1) -> Gaussian:
    r"""Difference :math:`y - \alpha x`. **Exact**, or **exact if independent**, as `add`."""
    if isinstance(other, (Gaussian, Tensor)):
        return sub(other, x, alpha=alpha)
    return add(mul(x, -alpha), other)


@moment_rule(torch.neg, torch.negative, Tensor.neg, Tensor.negative, Tensor.neg_, Tensor.negative_, Tensor.__neg__)
def neg(x: Gaussian) -> Gaussian:
    """Negation: the mean changes its sign. **Exact**."""
    return Gaussian(-x.mu, x.v)


@moment_rule(torch.mul, torch.multiply, Tensor.mul, Tensor.mul_, Tensor.multiply, Tensor.multiply_)
@moment_rule(Tensor.__mul__, Tensor.__rmul__, Tensor.__imul__)
def mul(x: Value, other: Value) -> Gaussian:
    r"""Product. **Exact** with a constant, **exact if independent** with a Gaussian.

    .. math::
        \mu' = \mu_x \mu_y, \qquad v' = \mu_x^2 v_y + v_x \mu_y^2 + v_x v_y

    The variance of a constant is 0, so that :math:`v' = c^2 v`. Goodman, On the Exact Variance of Products, JASA 1960.
    The product of an object with itself, ``x * x``, is `square`; copies and views of it are not recognised.

    Shape:
        - Inputs: shapes that broadcast.
    """
    if x is other and isinstance(x, Gaussian):
        return square(x)
    mean_x, var_x = _moments(x)
    mean_y, var_y = _moments(other)
    mean = mean_x * mean_y
    mean_x, var_x, mean_y, var_y = (_wide(value, mean.dtype) for value in (mean_x, var_x, mean_y, var_y))
    if var_x is None:
        var = var_y * mean_x**2
    elif var_y is None:
        var = var_x * mean_y**2
    else:
        var = mean_x.square() * var_y + var_x * (mean_y.square() + var_y)
    return Gaussian(mean, _like(var, mean))


@moment_rule(torch.div, torch.divide, torch.true_divide, Tensor.div, Tensor.div_, Tensor.divide, Tensor.divide_)
@moment_rule(Tensor.true_divide, Tensor.true_divide_, Tensor.__truediv__, Tensor.__itruediv__)
def div(x: Gaussian, other: Tensor | float, *, rounding_mode: str | None = None) -> Gaussian:
    """Quotient by a constant c, of variance v / c². **Exact**.

    Raises:
        NoMomentRule: If the divisor is a Gaussian (the quotient has no moments), or with a `rounding_mode`.
    """
    if isinstance(other, Gaussian):
        raise NoMomentRule("'div' has no moment rule for a Gaussian divisor: the quotient has no moments")
    if rounding_mode is not None:
        raise NoMomentRule(f"'div' has no moment rule for rounding_mode='{rounding_mode}': use None")
    mean = x.mu / other
    return Gaussian(mean, _like(_wide(x.v, mean.dtype) / _wide(other, mean.dtype) ** 2, mean))


@moment_rule(torch.square, Tensor.square, Tensor.square_)
def square(x: Gaussian) -> Gaussian:
    r"""Square. **Exact**.

    .. math::
        \mu' = \mu^2 + v, \qquad v' = 2 v (v + 2 \mu^2)

    from the moments of the noncentral :math:`\chi^2` distribution of one degree of freedom.
    """
    mean, var = _wide(x.mu, x.dtype), _wide(x.v, x.dtype)
    squared = mean.square()
    return Gaussian((squared + var).to(x.dtype), (2 * var * (var + 2 * squared)).to(x.dtype))


@moment_rule(torch.pow, Tensor.pow, Tensor.pow_, Tensor.__pow__, Tensor.__ipow__)
def pow(x: Gaussian, exponent: float) -> Gaussian:
    """Power 1 or 2, see `square`. **Exact**.

    Raises:
        NoMomentRule: For another exponent.
    """
    if not isinstance(x, Gaussian) or isinstance(exponent, (Gaussian, Tensor)) or exponent not in (1, 2):
        shown = exponent if isinstance(exponent, (int, float)) else type(exponent).__name__
        raise NoMomentRule(f"'pow' has a moment rule for a Gaussian to the power of 1 or 2 only, not to {shown}")
    return x if exponent == 1 else square(x)


@moment_rule(torch.abs, torch.absolute, Tensor.abs, Tensor.abs_, Tensor.absolute, Tensor.absolute_, Tensor.__abs__)
def abs(x: Gaussian) -> Gaussian:
    r"""Absolute value: the folded normal distribution. **Exact**.

    With :math:`t = |\mu| / \sigma` and :math:`e = \varphi(t) - t \Phi(-t)`:

    .. math::
        \mu' = |\mu| + 2 \sigma e, \qquad v' = v (1 - 4 e (t + e))

    Leone, Nelson & Nottingham, The Folded Normal Distribution, Technometrics 1961, rearranged: the factor of v is
    never below 1 - 2 / pi, where :math:`\mu^2 + v - \mu'^2` cancels.
    """
    mean, var = _wide(x.mu, x.dtype).abs(), _wide(x.v, x.dtype)
    root = var.clamp_min(TINY).sqrt()
    t = (mean / root).clamp_max(100)  # beyond, the excess is 0 in any precision
    excess = torch.exp(-0.5 * t.square()) / math.sqrt(2 * math.pi) - 0.5 * t * torch.erfc(t / math.sqrt(2))
    std = torch.where(var > TINY, root, 0.0)
    return Gaussian((mean + 2 * std * excess).to(x.dtype), (var * (1 - 4 * excess * (t + excess))).to(x.dtype))


@moment_rule(torch.lerp, Tensor.lerp, Tensor.lerp_)
def lerp(x: Value, end: Value, weight: Tensor | float) -> Gaussian:
    r"""Interpolation :math:`(1 - w) x + w y` with a constant w, of variance :math:`(1 - w)^2 v_x + w^2 v_y`.

    **Exact if independent**.

    Raises:
        NoMomentRule: If `weight` is a Gaussian.
    """
    if isinstance(weight, Gaussian):
        raise NoMomentRule("'lerp' has no moment rule for a Gaussian weight: pass weight.mean")
    mean_x, var_x = _moments(x)
    mean_y, var_y = _moments(end)
    mean = torch.lerp(mean_x, mean_y, weight)
    if x is end and var_x is not None:  # as in `add`
        return Gaussian(mean, _like(var_x, mean))
    parts = [_wide(v, mean.dtype) * w**2 for v, w in ((var_x, 1 - weight), (var_y, weight)) if v is not None]
    return Gaussian(mean, _like(parts[0] if len(parts) == 1 else parts[0] + parts[1], mean))


@moment_rule(torch.sum, Tensor.sum)
def sum(x: Gaussian, *args: Any, **kwargs: Any) -> Gaussian:
    """Sum over all or some dimensions, with the arguments of `torch.sum`: means and variances add up.

    **Exact if independent**.
    """
    return Gaussian(torch.sum(x.mu, *args, **kwargs), torch.sum(x.v, *args, **kwargs))


@moment_rule(torch.mean, Tensor.mean)
def mean(x: Gaussian, *args: Any, **kwargs: Any) -> Gaussian:
    """Mean over all or some dimensions, with the arguments of `torch.mean`; the variance is mean(v) / n.

    **Exact if independent**.
    """
    average = torch.mean(x.mu, *args, **kwargs)
    n = x.numel() // max(average.numel(), 1)
    return Gaussian(average, torch.mean(x.v, *args, **kwargs) / max(n, 1))


def _mean(value: Value) -> Any:
    return value.mu if isinstance(value, Gaussian) else value


def _moments(value: Value) -> tuple[Any, Tensor | None]:
    """Return mean and variance; None stands for the variance 0 of a constant."""
    return (value.mu, value.v) if isinstance(value, Gaussian) else (value, None)


def _like(var: Tensor, mean: Tensor) -> Tensor:
    """Convert the variance to the dtype of the mean and broadcast it to its shape."""
    return var.to(mean.dtype).expand(mean.shape)


def _wide(value: Any, dtype: torch.dtype) -> Any:
    """Convert a tensor to the precision to square it in: float32 for results in half precision."""
    return value.to(torch.float32 if dtype in HALF else dtype) if isinstance(value, Tensor) else value
