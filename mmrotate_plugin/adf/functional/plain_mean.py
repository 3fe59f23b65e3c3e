"""Rules for Gaussians with `plain_mean`, whose means are those of the plain network.

By default the dispatcher calls the plain function on the means in addition to the rule. The rules here make that
unnecessary for linear rules, whose means are the plain ones anyway, for ReLU and for max pooling. They also prevent it
where it would be wrong: dropout would draw a second mask, batch norm would count the batch twice.

An image that already is noisy moves the statistics of norms by itself, so the variance is divided by the variance of
the means alone; the rules for means without noise take the total variance.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...kernels import takes
from ...kernels.following import is_transformed
from .._compiler import follows_gradient, is_compiling
from ..deferred import Part, deferred
from ..gaussian import Gaussian
from ..moment_rules import PLAIN, RULES
from . import activations, alpha_dropout, arithmetic, interpolation, linear, normalization, pooling, pooling_nd

LINEAR = (
    linear.conv1d, linear.conv2d, linear.conv3d,
    linear.conv_transpose1d, linear.conv_transpose2d, linear.conv_transpose3d,
    linear.linear, linear.matmul, linear.mm, linear.bmm,
    arithmetic.add, arithmetic.sub, arithmetic.neg, arithmetic.div, arithmetic.sum, arithmetic.mean,
    pooling.avg_pool2d, pooling.adaptive_avg_pool2d, pooling_nd.avg_pool1d, pooling_nd.adaptive_avg_pool1d,
    pooling_nd.avg_pool3d, pooling_nd.adaptive_avg_pool3d, interpolation.interpolate, interpolation.pad,
    normalization.dropout, normalization.feature_dropout,
    alpha_dropout.alpha_dropout, alpha_dropout.feature_alpha_dropout,
)  # fmt: skip


def relu(x: Gaussian, inplace: bool = False) -> Gaussian:  # noqa: ARG001  a Gaussian is never changed in place
    """ReLU with the plain mean; the variance is that of `activations.relu`, exact.

    Shape:
        - Input, output: mean and variance of one shape, any.
    """
    found = activations.compiled_relu(x, plain=True)
    if found is not None:
        return found
    return Gaussian(F.relu(x.mu), activations.relu_variance(x))


def max_pool2d(x: Gaussian, *args: Any, **kwargs: Any) -> Gaussian:
    """Max pooling with the plain mean; the variance is that of `pooling.max_pool2d`. Approximate.

    Shape:
        - Input: (B, C, H, W) or (C, H, W). Output as of `torch.nn.functional.max_pool2d`.
    """
    var = pooling.max_pool2d(x, *args, **kwargs).v
    return Gaussian(F.max_pool2d(channels_last(x.mu), *args, **kwargs).contiguous(), var)


def channels_last(x: Tensor) -> Tensor:
    """Convert a map (B, C, H, W) to the layout in which CPUs pool it in a seventh of the time; keep other tensors."""
    # a compiler chooses layouts by itself; torch.vmap has none
    if x.dim() != 4 or x.device.type != 'cpu' or is_compiling() or is_transformed(x):
        return x
    return x.contiguous(memory_format=torch.channels_last)


def batch_norm(
    x: Gaussian,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Gaussian:
    r"""Batch norm with the plain mean: :math:`v' = w^2 v / (s + \epsilon)`, where s is the plain function's variance.

    In training mode s is the variance of the means over the batch, and the running statistics learn the same as
    without noise. Exact in eval mode, else approximate.

    Shape:
        - Input, output: (B, C, ...). Statistics, weight and bias: (C,).
    """
    mean = F.batch_norm(x.mu, running_mean, running_var, weight, bias, training, momentum, eps)
    axes = (-1, *[1] * (x.dim() - 2))
    if training or running_var is None:
        spread = _spread(x.mu, [d for d in range(x.dim()) if d != 1])
    else:
        scale = _scale(running_var, weight, eps, (-1,))
        if (later := deferred(mean, (Part(x.v, scale),))) is not None:
            return Gaussian(mean, later)
        spread = running_var.reshape(axes)
    return Gaussian(mean, _scaled(x.v, spread, weight, eps, axes))


def group_norm(
    x: Gaussian, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Gaussian:
    """Group norm with the plain mean, by the formula of `batch_norm`. Approximate.

    Shape:
        - Input, output: (B, C, ...). Weight and bias: (C,).
    """
    b, c, *sizes = x.shape
    affine = [value for value in (weight, bias) if value is not None]
    if x.mu.is_contiguous() and takes(x.mu, x.v) and not follows_gradient(x.mu, x.v, *affine):
        # the operator of F.group_norm returns 1 / sqrt(spread + eps), too
        mean, _, inverse = torch.native_group_norm(x.mu, weight, bias, b, c, math.prod(sizes), num_groups, eps)
        scale = inverse.square().repeat_interleave(c // num_groups, 1)  # (B, C)
        scale = scale if weight is None else scale * weight.square()
        if (later := deferred(mean, (Part(x.v, scale),))) is not None:
            return Gaussian(mean, later)
    mean = F.group_norm(x.mu, num_groups, weight, bias, eps)
    grouped = x.mu.reshape(b, num_groups, c // num_groups, *sizes)
    spread = _spread(grouped, list(range(2, grouped.dim()))).expand(b, num_groups, c // num_groups, *[1] * len(sizes))
    return Gaussian(mean, _scaled(x.v, spread.reshape(b, c, *[1] * len(sizes)), weight, eps, (-1, *[1] * len(sizes))))


def layer_norm(
    x: Gaussian,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Gaussian:
    """Layer norm with the plain mean, by the formula of `batch_norm`. Approximate.

    Shape:
        - Input, output: (..., *normalized_shape). Weight and bias: normalized_shape.
    """
    mean = F.layer_norm(x.mu, normalized_shape, weight, bias, eps)
    spread = _spread(x.mu, list(range(-len(normalized_shape), 0)))
    return Gaussian(mean, _scaled(x.v, spread, weight, eps, tuple(normalized_shape)))


def instance_norm(
    x: Gaussian,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Gaussian:
    """Instance norm with the plain mean, by the formula of `batch_norm`. Exact with running statistics.

    Shape:
        - Input, output: (B, C, ...). Statistics, weight and bias: (C,).
    """
    mean = F.instance_norm(x.mu, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)
    axes = (-1, *[1] * (x.dim() - 2))
    if use_input_stats or running_var is None:
        spread = _spread(x.mu, list(range(2, x.dim())))
    else:
        spread = running_var.reshape(axes)
    return Gaussian(mean, _scaled(x.v, spread, weight, eps, axes))


def _spread(mean: Tensor, dims: list[int]) -> Tensor:
    """Compute the variance over `dims`, kept with size one; in float32 for half types."""
    mean = mean.float() if mean.dtype in normalization.HALF else mean
    # not by torch.var_mean, which takes 80 times as long as a mean (CPU, torch 2.12)
    return (mean - mean.mean(dims, keepdim=True)).square().mean(dims, keepdim=True)


def _scaled(var: Tensor, spread: Tensor, weight: Tensor | None, eps: float, shape: tuple[int, ...]) -> Tensor:
    """Multiply the variance by w² / (spread + eps), with the weight in a shape that broadcasts."""
    return (var * _scale(spread, weight, eps, shape)).to(var.dtype)


def _scale(spread: Tensor, weight: Tensor | None, eps: float, shape: tuple[int, ...]) -> Tensor:
    return 1 / (spread + eps) if weight is None else weight.reshape(shape).square() / (spread + eps)


PLAIN.update({function: rule for function, rule in RULES.items() if rule in LINEAR})
PLAIN.update(
    {
        F.batch_norm: batch_norm,
        torch.batch_norm: normalization.in_torchs_order(batch_norm),
        F.instance_norm: instance_norm,
    }
)
PLAIN.update({function: relu for function, rule in RULES.items() if rule is activations.relu})
PLAIN.update({function: max_pool2d for function, rule in RULES.items() if rule is pooling.max_pool2d})
PLAIN.update({F.group_norm: group_norm, F.layer_norm: layer_norm})
