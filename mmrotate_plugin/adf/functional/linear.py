"""Convolutions and matrix products: linear maps, whose variance goes through the squared weights.

That takes a second convolution. A `Gaussian` with ``rule='bfloat16'`` has it computed in that type, which leaves a
standard deviation right to 0.2 % and, where a processor has instructions for it, takes a third of the time;
``rule='rank1'`` and 'delta' replace the filter, see `rank1`. Means are in the type of the input in all of them.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .._compiler import is_compiling
from ..gaussian import Gaussian, NoMomentRule, moment_rule
from ._rank1 import rank1_variance

Pair = int | tuple[int, ...]


@moment_rule(F.conv1d)
def conv1d(
    x: Gaussian,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Gaussian:
    """Convolution over one axis, by the formula of `conv2d`. **Exact if independent**."""
    return _linear(F.conv1d, x, weight, bias, stride, padding, dilation, groups)


@moment_rule(F.conv2d)
def conv2d(
    x: Gaussian,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Gaussian:
    r"""Convolution with constant weights. **Exact if independent**.

    .. math::
        \mu' = W * \mu + b, \qquad v' = W^2 * v

    Gast & Roth, Lightweight Probabilistic Deep Networks, CVPR 2018 (arXiv:1805.11327). Outputs whose windows overlap
    are correlated; calling them independent is the ADF assumption.

    Shape:
        - Input: (B, C, H, W). Output: (B, C', H', W'), sizes as those of `torch.nn.functional.conv2d`.

    Raises:
        NoMomentRule: If `weight` or `bias` is a Gaussian.
    """
    return _linear(F.conv2d, x, weight, bias, stride, padding, dilation, groups)


@moment_rule(F.conv3d)
def conv3d(
    x: Gaussian,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Gaussian:
    """Convolution over three axes, by the formula of `conv2d`. **Exact if independent**."""
    return _linear(F.conv3d, x, weight, bias, stride, padding, dilation, groups)


@moment_rule(F.conv_transpose1d)
def conv_transpose1d(
    x: Gaussian,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
) -> Gaussian:
    """Transposed convolution over one axis, by the formula of `conv2d`. **Exact if independent**."""
    return _linear(F.conv_transpose1d, x, weight, bias, stride, padding, output_padding, groups, dilation)


@moment_rule(F.conv_transpose2d)
def conv_transpose2d(
    x: Gaussian,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
) -> Gaussian:
    """Transposed convolution, by the formula of `conv2d`: it is as linear. **Exact if independent**.

    Shape:
        - Input: (B, C, H, W). Output: (B, C', H', W'), sizes as those of `torch.nn.functional.conv_transpose2d`.
    """
    return _linear(F.conv_transpose2d, x, weight, bias, stride, padding, output_padding, groups, dilation)


@moment_rule(F.conv_transpose3d)
def conv_transpose3d(
    x: Gaussian,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
) -> Gaussian:
    """Transposed convolution over three axes, by the formula of `conv2d`. **Exact if independent**."""
    return _linear(F.conv_transpose3d, x, weight, bias, stride, padding, output_padding, groups, dilation)


@moment_rule(F.linear)
def linear(x: Gaussian, weight: Tensor, bias: Tensor | None = None) -> Gaussian:
    r"""Fully connected layer, :math:`\mu' = W \mu + b` and :math:`v' = W^2 v`. **Exact if independent**.

    Gast & Roth, CVPR 2018.

    Shape:
        - Input: (..., in_features). Output: (..., out_features).

    Raises:
        NoMomentRule: If `weight` or `bias` is a Gaussian.
    """
    return _linear(F.linear, x, weight, bias)


@moment_rule(torch.matmul, Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__)
def matmul(x: Gaussian | Tensor, other: Gaussian | Tensor) -> Gaussian:
    r"""Matrix product, of which one or both factors are Gaussian. **Exact if independent**.

    .. math::
        \mu' = A B, \qquad v' = A^2 v_B + v_A B^2 + v_A v_B

    where the variance of a constant factor is 0: squared weights times variance, as in `linear`. Of two Gaussian
    factors every product is one of independent values (`arithmetic.mul`).

    Shape:
        - Those of `torch.matmul`.
    """
    return _matrix_product(torch.matmul, x, other)


@moment_rule(torch.mm, Tensor.mm)
def mm(x: Gaussian | Tensor, mat2: Gaussian | Tensor) -> Gaussian:
    """Product of two matrices, by the formula of `matmul`. **Exact if independent**."""
    return _matrix_product(torch.mm, x, mat2)


@moment_rule(torch.bmm, Tensor.bmm)
def bmm(x: Gaussian | Tensor, mat2: Gaussian | Tensor) -> Gaussian:
    """Products of a batch of matrices, by the formula of `matmul`. **Exact if independent**."""
    return _matrix_product(torch.bmm, x, mat2)


def constants_only(operation: str, **parameters: Tensor | None) -> None:
    """Refuse Gaussians among the parameters of an operation.

    Raises:
        NoMomentRule: Naming the operation and the parameter.
    """
    for name, value in parameters.items():
        if isinstance(value, Gaussian):
            raise NoMomentRule(
                f"'{operation}' has no moment rule for a Gaussian {name}: it must be a constant. Hand over {name}.mean"
            )


def _linear(layer: Callable[..., Tensor], x: Gaussian, weight: Tensor, bias: Tensor | None, *geometry: Any) -> Gaussian:
    constants_only(layer.__name__, weight=weight, bias=bias)
    mean = layer(x.mu, weight, bias, *geometry)
    rule = rank1_variance if x.rule in ('rank1', 'delta') else _diagonal_variance
    var = x.v
    with _wide(mean.dtype, var.device.type):
        if x.rule == 'bfloat16' and mean.dtype == torch.float32:
            var, weight = var.bfloat16(), weight.bfloat16()
        if mean.dtype == torch.float16:  # has no squares of what is below 2.4e-4
            var, weight = var.float(), weight.float()
        return Gaussian(mean, rule(layer, var, weight, *geometry).to(mean.dtype))


def _diagonal_variance(layer: Callable[..., Tensor], var: Tensor, weight: Tensor, *geometry: Any) -> Tensor:
    """The layer with squared weights."""
    learns = torch.is_grad_enabled() and (var.requires_grad or weight.requires_grad)
    # a compiler squares again by itself; padding by name ('same') may be one more at the end
    if not learns or is_compiling() or any(isinstance(g, str) for g in geometry):
        return layer(var, weight.square(), None, *geometry)
    return _SquaredLayer.apply(var, weight, layer, geometry)


class _SquaredLayer(torch.autograd.Function):
    """A layer with squared weights, which the backward pass squares again.

    Saved, they would take as much memory as the parameters: for a ResNet-50 at 2 x 224 x 224 15 % of all that is saved.
    """

    generate_vmap_rule = True  # every step of it has one

    @staticmethod
    def forward(var: Tensor, weight: Tensor, layer: Callable[..., Tensor], geometry: tuple[Any, ...]) -> Tensor:
        return layer(var, weight.square(), None, *geometry)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs[:2])
        ctx.layer, ctx.geometry = inputs[2:]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        var, weight = ctx.saved_tensors
        learns = ctx.needs_input_grad[:2]
        # under autocast the layer was computed in the type of `grad`
        to_var, to_squared = _gradients(
            ctx.layer, grad, var.to(grad.dtype), weight.square().to(grad.dtype), learns, ctx.geometry
        )
        to_weight = None if to_squared is None else to_squared.to(weight.dtype) * (2 * weight)
        return None if to_var is None else to_var.to(var.dtype), to_weight, None, None


def _gradients(
    layer: Callable[..., Tensor],
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    learns: Sequence[bool],
    geometry: tuple[Any, ...],
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of a layer without bias with respect to its input and its weight, where wanted."""
    if layer is F.linear:
        to_weight = grad.reshape(-1, grad.size(-1)).T @ x.reshape(-1, x.size(-1)) if learns[1] else None
        return grad @ weight if learns[0] else None, to_weight
    axes = weight.dim() - 2
    transposed = 'transpose' in layer.__name__
    if transposed:
        stride, padding, output_padding, groups, dilation = geometry
    else:
        (stride, padding, dilation, groups), output_padding = geometry, 0
    stride, padding, dilation, output_padding = (
        [n] * axes if isinstance(n, int) else list(n) * (axes if len(n) == 1 else 1)
        for n in (stride, padding, dilation, output_padding)
    )
    single = x.dim() == axes + 1  # without a batch
    if single:
        grad, x = grad.unsqueeze(0), x.unsqueeze(0)
    to_x, to_weight, _ = torch.ops.aten.convolution_backward(
        grad, x, weight, None, stride, padding, dilation, transposed, output_padding, groups, [*learns, False]
    )
    return to_x.squeeze(0) if single and to_x is not None else to_x, to_weight


def _matrix_product(
    product: Callable[[Tensor, Tensor], Tensor], a: Gaussian | Tensor, b: Gaussian | Tensor
) -> Gaussian:
    """`product` of two factors, at least one of them Gaussian."""
    mean_a, var_a = (a.mu, a.v) if isinstance(a, Gaussian) else (a, None)
    mean_b, var_b = (b.mu, b.v) if isinstance(b, Gaussian) else (b, None)
    mean = product(mean_a, mean_b)
    with _wide(mean.dtype, mean.device.type):
        if mean.dtype == torch.float16:
            mean_a, mean_b = mean_a.float(), mean_b.float()
            var_a = None if var_a is None else var_a.float()
            var_b = None if var_b is None else var_b.float()
        if var_a is None:
            var = product(mean_a.square(), var_b)
        elif var_b is None:
            var = product(var_a, mean_b.square())
        else:
            var = product(mean_a.square(), var_b) + product(var_a, mean_b.square() + var_b)
    return Gaussian(mean, var.to(mean.dtype))


def _wide(dtype: torch.dtype, device_type: str) -> AbstractContextManager:
    """Autocast switched off where it would compute variances in float16."""
    return torch.autocast(device_type, enabled=False) if dtype == torch.float16 else nullcontext()
