"""Activations built from ReLU, and the exponential: exact moments."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...kernels import moments, takes
from .._compiler import Elementwise, apply, follows_gradient, is_compiling
from ..deferred import parts_of
from ..gaussian import Gaussian
from ..moment_rules import moment_rule
from ._normal import BLOCK, FAR, Buffer, Moments, blockwise, cumulative, density_and_tail, wide


def widened(x: Gaussian) -> Gaussian:
    """Convert a Gaussian to the type to compute in."""
    dtype = wide(x.dtype)
    return Gaussian(x.mu.to(dtype), x.v.to(dtype))


def as_type(dtype: torch.dtype, mean: Tensor, var: Tensor) -> Gaussian:
    """Convert moments back to the type of the input."""
    return Gaussian(mean.to(dtype), var.to(dtype))


def _relu_variance(
    mean: Tensor, var: Tensor, to_var: Buffer, r: Buffer, t: Buffer, u: Buffer, e: Buffer, p: Buffer
) -> tuple[Tensor, Tensor, Tensor]:
    """Write the variance, 1 / standard deviation and g(-|z|) into the buffers `to_var`, `r` and `e`."""
    r = torch.clamp_min(var, torch.finfo(var.dtype).tiny, out=r).rsqrt_()
    t = torch.abs(mean, out=t).mul_(r).clamp_max_(FAR[var.dtype])  # |z|
    e, p = density_and_tail(t, e, p, u)
    e.addcmul_(t, p, value=-1).clamp_min_(0)
    u = cumulative(mean, p, out=u)
    # not E[x^2] - mean^2, which loses 2 % at mean 100, variance 0.01 in float32
    u.addcmul_(t.add_(e), e, value=-1).clamp_min_(0)
    return torch.mul(u, var, out=to_var), r, e


def _relu_moments(mean: Tensor, var: Tensor, to_mean: Buffer, *buffers: Buffer) -> Moments:
    """Write mean and variance into `to_mean` and the first of `buffers`, which are those of `_relu_variance`."""
    to_var, r, e = _relu_variance(mean, var, *buffers)
    return torch.clamp_min(mean, 0, out=to_mean).addcmul_(r.mul_(var), e), to_var


def _relu_gradients(mean: Tensor, var: Tensor, grad_mean: Tensor, grad_var: Tensor) -> Moments:
    r"""Differentiate by :math:`\partial_\mu E f = E f'` and :math:`\partial_v E f = E f'' / 2` (Price's theorem)."""
    std = var.sqrt()
    t = (mean.abs() / std.clamp_min(torch.finfo(std.dtype).tiny ** 0.5)).clamp_max(FAR[std.dtype])
    tail = torch.erfc(t * math.sqrt(0.5)) * 0.5
    density = torch.exp(t.square() * -0.5) * (1 / math.sqrt(2 * math.pi))
    out = mean.clamp_min(0) + std * (density - t * tail)
    step = torch.addcmul(tail, mean.sign().clamp_min(0), 1 - 2 * tail)
    # E f'' / 2; at mean 0, variance 0 it is infinite and 0 is used, as torch does at the kink of its ReLU
    curvature = 0.5 * density * std / var.clamp_min(torch.finfo(var.dtype).tiny)
    to_mean = grad_mean * step + grad_var * (2 * out * (1 - step))
    to_var = grad_mean * curvature + grad_var * (step - 2 * out * curvature)
    return to_mean, to_var


class _ReLU(Elementwise):
    """Mean and variance of `relu`. It saves its two inputs; autograd would save a dozen tensors."""

    @staticmethod
    def forward(mean: Tensor, var: Tensor) -> Moments:
        if takes(mean, var):
            return moments.relu_moments(mean, var)
        to_mean, to_var = blockwise(_relu_moments, (mean, var), outputs=2, temporaries=5)
        return to_mean, to_var

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad_mean: Tensor, grad_var: Tensor) -> Moments:
        inputs = (*ctx.saved_tensors, grad_mean, grad_var)
        # a second derivative may be asked for, or several gradients at once (vmap)
        if torch.is_grad_enabled() or is_compiling() or not grad_mean.is_cpu or grad_mean.numel() <= BLOCK:
            dtype = wide(grad_mean.dtype)
            to_mean, to_var = _relu_gradients(*(i.to(dtype) for i in inputs))
            return to_mean.to(grad_mean.dtype), to_var.to(grad_mean.dtype)
        inputs = tuple(i.contiguous() for i in inputs)
        to_mean, to_var = blockwise(_write_relu_gradients, inputs, outputs=2, temporaries=0)
        return to_mean, to_var


class _ReLUVariance(Elementwise):
    """The variance of `relu` alone, for the plain mean."""

    @staticmethod
    def forward(mean: Tensor, var: Tensor) -> Tensor:
        if takes(mean, var):
            return moments.relu_moments(mean, var, plain=True)[1]
        return blockwise(_relu_variance, (mean, var), outputs=1, temporaries=5)[0]

    setup_context = _ReLU.setup_context

    @staticmethod
    def backward(ctx: Any, grad_var: Tensor) -> Moments:
        return _ReLU.backward(ctx, torch.zeros_like(grad_var), grad_var)


def _write_relu_gradients(*tensors: Tensor) -> Moments:
    to_mean, to_var = tensors[-2:]
    for out, value in zip((to_mean, to_var), _relu_gradients(*tensors[:-2]), strict=True):
        out.copy_(value)
    return to_mean, to_var


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
    found = compiled_relu(x, plain=False)
    return Gaussian(*apply(_ReLU, x.mu, x.v)) if found is None else found


def compiled_relu(x: Gaussian, *, plain: bool) -> Gaussian | None:
    """Compute `relu` by the compiled moments, a deferred variance on the way; None if they do not take it.

    Args:
        x: Any shape.
        plain: Whether the mean is the plain ReLU of the mean.
    """
    if not takes(x.mu):
        return None
    parts = parts_of(x.variance)
    maps = [x.mu, *(part.var for part in parts)]
    if not takes(*maps) or follows_gradient(*maps):
        return None
    second = parts[1] if len(parts) == 2 else (None, None)
    return Gaussian(*moments.relu_moments(x.mu, *parts[0], *second, plain=plain))


def relu_variance(x: Gaussian) -> Tensor:
    """Compute the variance of `relu` alone; the mean would cost a tenth more."""
    return apply(_ReLUVariance, x.mu, x.v)


@moment_rule(F.leaky_relu, F.leaky_relu_)
def leaky_relu(x: Gaussian, negative_slope: float | Tensor = 0.01, inplace: bool = False) -> Gaussian:  # noqa: ARG001
    r"""LeakyReLU of a Gaussian: **exact**.

    It is :math:`r_+ - a r_-` with slope a, :math:`r_\pm = \mathrm{relu}(\pm x)` and :math:`r_+ r_- = 0`, so that

    .. math::
        \mu' = E r_+ - a E r_-, \qquad v' = V r_+ + a^2 V r_- + 2 a E r_+ E r_-

    Shape:
        - Input, output: mean and variance of one shape, any.
    """
    dtype, x = x.dtype, widened(x)
    up, down = relu(x), relu(Gaussian(-x.mu, x.v))
    mean = up.mu - negative_slope * down.mu
    var = up.v + negative_slope * (negative_slope * down.v + 2 * up.mu * down.mu)
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
    dtype, x = x.dtype, widened(x)
    if max is None:
        if min is None:
            raise ValueError('clamp needs min or max, but both are None')
        above = relu(Gaussian(x.mu - min, x.v))
        return as_type(dtype, above.mu + min, above.v)
    if min is None:
        below = relu(Gaussian(max - x.mu, x.v))
        return as_type(dtype, max - below.mu, below.v)
    if min > max:
        raise ValueError(f'min={min} is above max={max}')
    over_min, over_max = (relu(Gaussian(x.mu - bound, x.v)) for bound in (min, max))
    under_min, under_max = (relu(Gaussian(bound - x.mu, x.v)) for bound in (min, max))
    # min + over_min - over_max, without the difference of two large values
    lift = torch.minimum(over_min.mu, under_min.mu)
    drop = torch.minimum(over_max.mu, under_max.mu)
    mean = x.mu.clamp(min, max) + lift - drop
    var = over_min.v - over_max.v + 2 * over_max.mu * (under_min.mu - under_max.mu)
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

    Moments that would overflow become the largest finite number, with gradient zero.

    Shape:
        - Input, output: mean and variance of one shape, any.
    """
    y = widened(x)
    largest = math.log(torch.finfo(x.dtype).max) * (1 - 1e-6)
    first = torch.exp((y.mu + 0.5 * y.v).clamp_max(largest))
    # one less, so that twice the variance, which its derivative is, is finite too
    second = torch.exp((2 * (y.mu + y.v)).clamp_max(largest - 1)) * -torch.expm1(-y.v)
    return as_type(x.dtype, first, second)
