"""ReLU and what it makes up, exponential: exact moments."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..compiler import is_compiling
from ..gaussian import Gaussian, moment_rule

Moments = tuple[Tensor, Tensor]
BLOCK = 131072  # elements of a temporary per thread: they stay in the cache
# in standard deviations: the normal density is 5e-35 and 2e-306 there. Beyond, its exponential is a denormal number or
# underflows, which takes a CPU 10 to 30 times as long
FAR = {torch.float32: 12.5, torch.float64: 37.5}


def _wide(dtype: torch.dtype) -> torch.dtype:
    """What to compute in: half types lose the small difference of two moments."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def widened(x: Gaussian) -> Gaussian:
    """In the type to compute in."""
    wide = _wide(x.dtype)
    return Gaussian(x.mean.to(wide), x.var.to(wide))


def as_type(dtype: torch.dtype, mean: Tensor, var: Tensor) -> Gaussian:
    """Back in the type that came."""
    return Gaussian(mean.to(dtype), var.to(dtype))


def _blockwise(function: Callable[..., Moments], *inputs: Tensor) -> Moments:
    """Apply an elementwise function of tensors of one shape, with temporaries that stay in the cache.

    The dozen passes of a moment rule are bound by memory: on a CPU this makes them four times faster. A compiler
    fuses them by itself.
    """
    first = inputs[0]
    wide = _wide(first.dtype)
    dense = all(i.is_contiguous() and i.device.type == 'cpu' for i in inputs)
    if is_compiling() or not dense or first.numel() <= BLOCK:
        a, b = function(*(i.to(wide) for i in inputs))
        return a.to(first.dtype), b.to(first.dtype)
    out = torch.empty_like(first), torch.empty_like(first)
    size = BLOCK * torch.get_num_threads()
    for *parts, a, b in zip(*(t.view(-1).split(size) for t in (*inputs, *out)), strict=True):
        for part, value in zip((a, b), function(*(p.to(wide) for p in parts)), strict=True):
            part.copy_(value)
    return out


def _scaled(mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Standard deviation, :math:`|z| = |\mu| / \sigma` up to `FAR`, and :math:`\Phi(-|z|)`."""
    std = var.sqrt()
    t = (mean.abs() / std.clamp_min(torch.finfo(std.dtype).tiny ** 0.5)).clamp_max(FAR[std.dtype])
    return std, t, torch.erfc(t * math.sqrt(0.5)) * 0.5


def _density(t: Tensor) -> Tensor:
    return torch.exp(t.square() * -0.5) * (1 / math.sqrt(2 * math.pi))


def _relu_moments(mean: Tensor, var: Tensor) -> Moments:
    std, t, tail = _scaled(mean, var)
    excess = _density(t) - t * tail  # g(-|z|)
    # tail for z < 0, 1 - tail for z > 0: torch.where costs more than all the rest on a CPU
    below = torch.addcmul(tail, mean.sign().clamp_min(0), 1 - 2 * tail)
    # not E[x^2] - mean^2, which loses 2 % at mean 100, variance 0.01 in float32
    return mean.clamp_min(0) + std * excess, var * (below - (t + excess) * excess).clamp_min(0)


def _relu_gradients(mean: Tensor, var: Tensor, grad_mean: Tensor, grad_var: Tensor) -> Moments:
    r"""By :math:`\partial_\mu E f = E f'` and :math:`\partial_v E f = E f'' / 2` (Price's theorem)."""
    std, t, tail = _scaled(mean, var)
    density = _density(t)
    out = mean.clamp_min(0) + std * (density - t * tail)
    step = torch.addcmul(tail, mean.sign().clamp_min(0), 1 - 2 * tail)
    # E f'' / 2; at mean 0, variance 0 it is infinite and 0 is used, as torch does at the kink of its ReLU
    curvature = 0.5 * density * std / var.clamp_min(torch.finfo(var.dtype).tiny)
    to_mean = grad_mean * step + grad_var * (2 * out * (1 - step))
    to_var = grad_mean * curvature + grad_var * (step - 2 * out * curvature)
    return to_mean, to_var


class _ReLU(torch.autograd.Function):
    """Saves its two inputs, where autograd would save a dozen tensors."""

    @staticmethod
    def forward(mean: Tensor, var: Tensor) -> Moments:
        return _blockwise(_relu_moments, mean, var)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad_mean: Tensor, grad_var: Tensor) -> Moments:
        return _blockwise(_relu_gradients, *ctx.saved_tensors, grad_mean.contiguous(), grad_var.contiguous())


@moment_rule(F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_)
def relu(x: Gaussian, inplace: bool = False) -> Gaussian:  # noqa: ARG001  a Gaussian is never changed in place
    r"""ReLU of a Gaussian: **exact**.

    With :math:`x \sim N(\mu, v)`, :math:`\sigma = \sqrt v`, :math:`z = \mu / \sigma`:

    .. math::
        \mu' = \sigma g(z), \qquad v' = v (\Phi(z) - g(z) g(-z)), \qquad g(a) = a \Phi(a) + \varphi(a)

    Gast & Roth, Lightweight Probabilistic Deep Networks, CVPR 2018 (arXiv:1805.11327). In float32 the mean errs by
    at most 1e-6 :math:`\sigma`, the variance by 5e-7 :math:`v`.

    Shape:
        - Input, output: mean and variance of one shape, any.
    """
    return Gaussian(*_ReLU.apply(x.mean, x.var))


@moment_rule(F.leaky_relu, F.leaky_relu_)
def leaky_relu(x: Gaussian, negative_slope: float = 0.01, inplace: bool = False) -> Gaussian:  # noqa: ARG001
    r"""LeakyReLU of a Gaussian: **exact**.

    It is :math:`r_+ - a r_-` with slope a, :math:`r_\pm = \mathrm{relu}(\pm x)` and :math:`r_+ r_- = 0`, so that

    .. math::
        \mu' = E r_+ - a E r_-, \qquad v' = V r_+ + a^2 V r_- + 2 a E r_+ E r_-

    Shape:
        - Input, output: mean and variance of one shape, any.
    """
    dtype, x = x.dtype, widened(x)
    up, down = relu(x), relu(Gaussian(-x.mean, x.var))
    mean = up.mean - negative_slope * down.mean
    var = up.var + negative_slope * (negative_slope * down.var + 2 * up.mean * down.mean)
    return as_type(dtype, mean, var.clamp_min(0))


@moment_rule(F.prelu, Tensor.prelu)
def prelu(x: Gaussian, weight: Tensor) -> Gaussian:
    """PReLU of a Gaussian, with the exact moments of `leaky_relu`: **exact**.

    Shape:
        - Input, output: mean and variance (B, C, ...).
        - weight: (1,) or (C,).
    """
    if weight.numel() > 1 and x.ndim > 1:
        weight = weight.reshape(-1, *[1] * (x.ndim - 2))
    return leaky_relu(x, weight.reshape(()) if weight.numel() == 1 else weight)


@moment_rule(torch.clamp, torch.clamp_, Tensor.clamp, Tensor.clamp_, torch.clip, torch.clip_, Tensor.clip, Tensor.clip_)
def clamp(x: Gaussian, min: float | None = None, max: float | None = None) -> Gaussian:
    r"""A Gaussian clamped to constants a and b: **exact**.

    It is :math:`a + r_a - r_b` with :math:`r_c = \mathrm{relu}(x - c)`. With :math:`s_c = \mathrm{relu}(c - x)`,

    .. math::
        \mu' = a + E r_a - E r_b, \qquad v' = V r_a - V r_b + 2 E r_b (E s_a - E s_b)

    Shape:
        - Input, output: mean and variance of one shape, any.

    Raises:
        ValueError: If no bound is given, or `min` is above `max`.
        TypeError: If a bound is not a number.
    """
    for name, bound in (('min', min), ('max', max)):
        if bound is not None and not isinstance(bound, (int, float)):
            raise TypeError(f'{name} must be a number to clamp a Gaussian, but is {type(bound).__name__}')
    if min is None and max is None:
        raise ValueError('clamp needs min or max, but both are None')
    dtype, x = x.dtype, widened(x)
    if max is None:
        above = relu(Gaussian(x.mean - min, x.var))
        return as_type(dtype, above.mean + min, above.var)
    if min is None:
        below = relu(Gaussian(max - x.mean, x.var))
        return as_type(dtype, max - below.mean, below.var)
    if min > max:
        raise ValueError(f'min={min} is above max={max}')
    over_min, over_max = (relu(Gaussian(x.mean - bound, x.var)) for bound in (min, max))
    under_min, under_max = (relu(Gaussian(bound - x.mean, x.var)) for bound in (min, max))
    # min + over_min - over_max, without the difference of two large values
    lift = torch.minimum(over_min.mean, under_min.mean)
    drop = torch.minimum(over_max.mean, under_max.mean)
    mean = x.mean.clamp(min, max) + lift - drop
    var = over_min.var - over_max.var + 2 * over_max.mean * (under_min.mean - under_max.mean)
    return as_type(dtype, mean, var.clamp_min(0))


@moment_rule(torch.clamp_min, torch.clamp_min_, Tensor.clamp_min, Tensor.clamp_min_)
def clamp_min(x: Gaussian, min: float) -> Gaussian:
    """See `clamp`: **exact**."""
    return clamp(x, min=min)


@moment_rule(torch.clamp_max, torch.clamp_max_, Tensor.clamp_max, Tensor.clamp_max_)
def clamp_max(x: Gaussian, max: float) -> Gaussian:
    """See `clamp`: **exact**."""
    return clamp(x, max=max)


@moment_rule(F.hardtanh, F.hardtanh_)
def hardtanh(x: Gaussian, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Gaussian:  # noqa: ARG001
    """See `clamp`: **exact**."""
    return clamp(x, min_val, max_val)


@moment_rule(F.relu6)
def relu6(x: Gaussian, inplace: bool = False) -> Gaussian:  # noqa: ARG001
    """See `clamp`: **exact**."""
    return clamp(x, 0.0, 6.0)


@moment_rule(torch.exp, torch.exp_, Tensor.exp, Tensor.exp_)
def exp(x: Gaussian) -> Gaussian:
    r"""Exponential of a Gaussian: the moments of a log-normal, **exact** up to the largest number of the type.

    .. math::
        \mu' = e^{\mu + v / 2}, \qquad v' = e^{2 \mu + 2 v} (1 - e^{-v})

    What would overflow is kept at the largest finite number, with gradient zero.

    Shape:
        - Input, output: mean and variance of one shape, any.
    """
    y = widened(x)
    largest = math.log(torch.finfo(x.dtype).max) * (1 - 1e-6)
    first = torch.exp((y.mean + 0.5 * y.var).clamp_max(largest))
    # one less, so that twice the variance, which its derivative is, is finite too
    second = torch.exp((2 * (y.mean + y.var)).clamp_max(largest - 1)) * -torch.expm1(-y.var)
    return as_type(x.dtype, first, second)
