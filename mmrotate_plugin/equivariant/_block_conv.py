"""Compute 1x1 convolutions between regular fields in a basis of the orientations that makes their blocks sparse.

A `BlockAlgebra` says which basis, and how sparse blocks multiply; `fourier` has that of C_N, `dihedral` that of D_N.
Changing the basis costs memory traffic above all. So its products write batches of large maps straight to where the
next step needs them, which takes 0.6 to 0.8 of the time of another copy.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from ..kernels.following import is_compiling, is_tracing, is_transformed
from ._constants import Constant, is_batched

LARGE = 1024  # pixels of a map; below, writing rows of the batch apart takes up to five times as long as copying them


class BlockAlgebra(NamedTuple):
    """Blocks that commute with a group, in a basis that splits the regular representation.

    The blocks of a convolution are two tensors, whose meaning is the algebra's own.

    Attributes:
        matrix: (n, n), orthogonal; maps n orientations to n coefficients. Its first row is constant and positive.
        product: Multiplies coefficients (n, in_fields, M) by blocks: (n, out_fields, M).
        adjoint: Transposes blocks, for the gradient of the input.
        gradients: Computes the gradients of the blocks from those of the product's output, (n, out_fields, M), and the
            coefficients of its input, (n, in_fields, M).
    """

    matrix: Constant
    product: Callable[[Tensor, Tensor, Tensor], Tensor]
    adjoint: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    gradients: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def block_conv(algebra: BlockAlgebra, x: Tensor, first: Tensor, second: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute a 1x1 convolution by blocks, differentiably.

    Args:
        algebra: What the blocks mean.
        x: (B, in_fields * n, H, W), orientation fastest.
        first, second: The blocks.
        bias: (out_fields,), shared by the orientations of a field.

    Returns:
        (B, out_fields * n, H, W).
    """
    n = len(algebra.matrix.values)
    learns = torch.is_grad_enabled() and (x.requires_grad or first.requires_grad or second.requires_grad)
    if learns and not is_tracing():  # a trace cannot save an operation that Python defines
        out = _BlockConv.apply(x, first, second, algebra)
        return out if bias is None else out + bias.repeat_interleave(n).view(1, -1, 1, 1)
    y = algebra.product(first, second, _to_coefficients(x, algebra))
    if bias is not None and is_transformed(bias):
        return _to_orientations(y, x, algebra) + bias.repeat_interleave(n).view(1, -1, 1, 1)
    if bias is not None:  # a constant is the first coefficient alone
        y[0] += bias.unsqueeze(1) * math.sqrt(n)
    return _to_orientations(y, x, algebra)


class _BlockConv(torch.autograd.Function):
    """Save the input as it is, which the layer before saves anyway; transform it again in the backward pass."""

    generate_vmap_rule = True  # each of its steps has one

    @staticmethod
    def forward(x: Tensor, first: Tensor, second: Tensor, algebra: BlockAlgebra) -> Tensor:
        return _to_orientations(algebra.product(first, second, _to_coefficients(x, algebra)), x, algebra)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        *tensors, ctx.algebra = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, first, second = ctx.saved_tensors
        algebra = ctx.algebra
        grad_x = grad_first = grad_second = None
        g = _to_coefficients(grad, algebra)
        if ctx.needs_input_grad[0]:
            grad_x = _to_orientations(algebra.product(*algebra.adjoint(first, second), g), x, algebra)
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            grad_first, grad_second = algebra.gradients(g, _to_coefficients(x, algebra))
        return grad_x, grad_first, grad_second, None

    @staticmethod
    def jvp(ctx: Any, x_t: Tensor | None, first_t: Tensor | None, second_t: Tensor | None, _: None) -> Tensor:
        x, first, second = ctx.saved_tensors
        parts = []
        if x_t is not None:
            parts.append(_BlockConv.forward(x_t, first, second, ctx.algebra))
        if first_t is not None or second_t is not None:
            first_t = torch.zeros_like(first) if first_t is None else first_t
            second_t = torch.zeros_like(second) if second_t is None else second_t
            parts.append(_BlockConv.forward(x, first_t, second_t, ctx.algebra))
        return sum(parts[1:], parts[0])


def _to_coefficients(x: Tensor, algebra: BlockAlgebra) -> Tensor:
    """Map (B, F * n, H, W) to coefficients (n, F, B * H * W)."""
    b, c, h, w = x.shape
    matrix = algebra.matrix.like(x)
    n = len(matrix)
    fields = x.reshape(b, c // n, n, h * w)
    if b == 1 or h * w < LARGE or not may_write(x):
        return (matrix @ fields).permute(2, 1, 0, 3).reshape(n, c // n, b * h * w)
    out = x.new_empty(n, c // n, b, h * w)
    for i in range(b):
        torch.bmm(matrix.expand(c // n, n, n), fields[i], out=out[:, :, i].transpose(0, 1))
    return out.view(n, c // n, b * h * w)


def _to_orientations(y: Tensor, like: Tensor, algebra: BlockAlgebra) -> Tensor:
    """Map coefficients (n, F, B * H * W) to (B, F * n, H, W), with batch and size of `like`."""
    b, _, h, w = like.shape
    n, f, _ = y.shape
    matrix = algebra.matrix.like(y).t()
    n = len(matrix)  # a plain number also in a trace
    fields = y.reshape(n, f, b, h * w).permute(2, 1, 0, 3)  # (B, F, n, H * W)
    if b == 1 or not may_write(y):
        return (matrix @ fields).reshape(b, f * n, h, w)
    out = y.new_empty(b, f, n, h * w)
    for i in range(b):
        torch.bmm(matrix.expand(f, n, n), fields[i], out=out[i])
    return out.view(b, f * n, h, w)


def may_write(*tensors: Tensor) -> bool:
    """Tell whether results of these may be written to memory laid out before: no graph, trace or transform sees it."""
    if is_compiling() or is_tracing() or getattr(forward_ad, '_current_level', 0) >= 0:
        return False
    learns = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
    return not learns and all(
        type(x) in (Tensor, nn.Parameter) and x.device.type == 'cpu' and not (is_transformed(x) or is_batched(x))
        for x in tensors
    )
