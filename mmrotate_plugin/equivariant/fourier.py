r"""1x1 convolutions between regular fields of C_N, by a discrete Fourier transform over the orientations.

A 1x1 kernel that commutes with rotations sees orientations by their difference alone, so its N x N block from one field
to another is circulant: :math:`y_r = \sum_s w_{(r - s) \bmod N}\, x_s`. The Fourier transform makes a product of it,
:math:`\hat y_k = \hat w_k \hat x_k` for each frequency k (convolution theorem; in terms of representations, the change
to irreducible ones of Cohen & Welling, Steerable CNNs, ICLR 2017, arXiv:1612.08498). For real signals and N = 8 these
are two real and three complex products: 14 multiplications instead of 64.

The transforms read and write the maps once more, so this pays for wide layers only, see `pays`.
"""

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ._constants import Constant, is_transformed


class Spectrum(NamedTuple):
    """Fourier coefficients of the circulant blocks of a 1x1 convolution.

    The N real coefficients of a signal are ordered: frequency 0, frequency N/2 where N is even, the cosines of the
    frequencies between, their sines.

    Attributes:
        own: (N, out_fields, in_fields), from each coefficient to itself.
        cross: (P, out_fields, in_fields), from the sine to the cosine of the P frequencies that have both; from cosine
            to sine it is the negative.
    """

    own: Tensor
    cross: Tensor


def pays(in_fields: int, out_fields: int, order: int, *, training: bool = False) -> bool:
    """Whether a layer between so many fields of C_N, N the order, gains time on a CPU.

    Per pixel the products fall from N² to N + 2P for each pair of fields (P frequencies have cosine and sine). The
    transforms cost N products per channel, and memory traffic as dear as 52 of them, 112 with gradients: this fits the
    layers of ResNet-50 with C4, C8 and C16 at 512 x 512 pixels, on 1 and 2 threads. For C8 without gradients, stage one
    loses and stage two gains; with gradients, stages three and four gain.
    """
    products = order + 2 * ((order - 1) // 2)
    saved = in_fields * out_fields * (order**2 - products)
    return saved > (in_fields + out_fields) * order * (order + (112 if training else 52))


def spectrum(columns: Tensor) -> Spectrum:
    """Fourier coefficients of circulant blocks.

    Args:
        columns: (out_fields, in_fields, N), the first column of each block.
    """
    matrices = transforms(columns.shape[2])
    own, cross = (columns @ matrix.like(columns) for matrix in (matrices.own, matrices.cross))
    return Spectrum(own.permute(2, 0, 1).contiguous(), cross.permute(2, 0, 1).contiguous())


def circulant_conv(x: Tensor, own: Tensor, cross: Tensor, bias: Tensor | None = None) -> Tensor:
    """1x1 convolution by circulant blocks, differentiable.

    Args:
        x: (B, in_fields * N, H, W), orientation fastest.
        own, cross: `Spectrum` of the blocks.
        bias: (out_fields,), the same for all orientations of a field.

    Returns:
        (B, out_fields * N, H, W).
    """
    learns = torch.is_grad_enabled() and (x.requires_grad or own.requires_grad or cross.requires_grad)
    if learns and not torch.jit.is_tracing():  # a trace cannot save an operation that Python defines
        out = _CirculantConv.apply(x, own, cross)
        return out if bias is None else out + bias.repeat_interleave(len(own)).view(1, -1, 1, 1)
    y = _product(own, cross, _to_frequencies(x, len(own)))
    if bias is not None and is_transformed(bias):
        return _to_orientations(y, x) + bias.repeat_interleave(len(own)).view(1, -1, 1, 1)
    if bias is not None:  # a constant is frequency 0 alone
        y[0] += bias.unsqueeze(1) * math.sqrt(len(own))
    return _to_orientations(y, x)


class _CirculantConv(torch.autograd.Function):
    """Keeps the input as it came, which the layer before keeps anyway, and transforms it again in the backward pass."""

    generate_vmap_rule = True  # every step of it has one

    @staticmethod
    def forward(x: Tensor, own: Tensor, cross: Tensor) -> Tensor:
        return _to_orientations(_product(own, cross, _to_frequencies(x, len(own))), x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, own, cross = ctx.saved_tensors
        grad_x = grad_own = grad_cross = None
        g = _to_frequencies(grad, len(own))
        if ctx.needs_input_grad[0]:
            grad_x = _to_orientations(_product(own.transpose(1, 2), -cross.transpose(1, 2), g), x)
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            f = _to_frequencies(x, len(own)).transpose(1, 2)
            cos, sin = _pairs(len(own))
            grad_own = g @ f
            grad_cross = torch.baddbmm(g[cos] @ f[sin], g[sin], f[cos], alpha=-1)
        return grad_x, grad_own, grad_cross

    @staticmethod
    def jvp(ctx: Any, x_t: Tensor | None, own_t: Tensor | None, cross_t: Tensor | None) -> Tensor:
        x, own, cross = ctx.saved_tensors
        parts = []
        if x_t is not None:
            parts.append(_CirculantConv.forward(x_t, own, cross))
        if own_t is not None or cross_t is not None:
            own_t = torch.zeros_like(own) if own_t is None else own_t
            parts.append(_CirculantConv.forward(x, own_t, torch.zeros_like(cross) if cross_t is None else cross_t))
        return sum(parts[1:], parts[0])


class FourierConv2d(nn.Module):
    """A trained 1x1 convolution with circulant blocks, for inference; what `export` makes with ``fourier=True``.

    Args:
        conv: The convolution, 1x1, without groups and padding, its channels fields of `order` orientations.
        order: N of the rotation group C_N.

    Shape:
        - Input: (B, in_channels, H, W), orientation fastest. Output: (B, out_channels, H', W').
    """

    def __init__(self, conv: nn.Conv2d, order: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.order = conv.in_channels, conv.out_channels, order
        self.stride = conv.stride
        blocks = conv.weight.detach().double().view(conv.out_channels // order, order, conv.in_channels // order, order)
        own, cross = spectrum(blocks[..., 0].transpose(1, 2))
        self.own, self.cross = (nn.Parameter(t.to(conv.weight), conv.weight.requires_grad) for t in (own, cross))
        bias = None if conv.bias is None else conv.bias.detach()[::order].clone()
        self.bias = None if bias is None else nn.Parameter(bias, conv.weight.requires_grad)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H', W')."""
        return circulant_conv(every(x, self.stride), self.own, self.cross, self.bias)

    def extra_repr(self) -> str:
        return f'{self.in_channels}, {self.out_channels}, order={self.order}, stride={self.stride}'


def every(x: Tensor, stride: tuple[int, int]) -> Tensor:
    """What a 1x1 kernel of this stride reads of (B, C, H, W)."""
    return x if stride == (1, 1) else x[..., :: stride[0], :: stride[1]]


def _to_frequencies(x: Tensor, n: int) -> Tensor:
    """(B, F * N, H, W) to coefficients (N, F, B * H * W)."""
    b, c, h, w = x.shape
    fields = x.reshape(b, c // n, n, h * w)
    return (transforms(n).whole.like(x) @ fields).permute(2, 1, 0, 3).reshape(n, c // n, b * h * w)


def _to_orientations(y: Tensor, like: Tensor) -> Tensor:
    """Coefficients (N, F, B * H * W) to (B, F * N, H, W), sizes but channels as those of `like`."""
    b, _, h, w = like.shape
    n = len(y)  # a plain number also in a trace
    f = y.shape[1]
    fields = y.reshape(n, f, b, h * w).permute(2, 1, 0, 3)  # (B, F, N, H * W)
    return (transforms(n).whole.like(y).t() @ fields).reshape(b, f * n, h, w)


def _product(own: Tensor, cross: Tensor, x: Tensor) -> Tensor:
    """The spectrum times coefficients (N, in_fields, M): (N, out_fields, M)."""
    cos, sin = _pairs(len(own))
    y = own @ x
    if any(map(is_transformed, (own, cross, x))):  # vmap cannot write a batch into a tensor that has none
        turned = torch.cat([cross @ x[sin], -(cross @ x[cos])])
        return torch.cat([y[: cos.start], y[cos.start :] + turned])
    y[cos].baddbmm_(cross, x[sin])
    y[sin].baddbmm_(cross, x[cos], alpha=-1)
    return y


def _pairs(n: int) -> tuple[slice, slice]:
    """Where the cosines and the sines are among N coefficients."""
    pairs = (n - 1) // 2
    return slice(n - 2 * pairs, n - pairs), slice(n - pairs, n)


class Transforms(NamedTuple):
    """Matrices of the real Fourier transform over N orientations.

    Attributes:
        own, cross: (N, N) and (N, P), from the first column of a circulant block to its `Spectrum`.
        whole: (N, N), orthonormal, from a signal to its coefficients.
    """

    own: Constant
    cross: Constant
    whole: Constant


@cache
def transforms(n: int) -> Transforms:
    """The matrices for N orientations; one object per process."""
    t = np.arange(n)[:, None] * (2 * math.pi / n)
    alone = [0, n // 2] if n % 2 == 0 else [0]
    pairs = list(range(1, (n + 1) // 2))
    own, cross = np.cos(t * np.array(alone + pairs + pairs)), -np.sin(t * np.array(pairs, dtype=float))
    rows = np.concatenate([own[:, : n - len(pairs)], -cross], 1).T
    whole = rows / np.sqrt(np.square(rows).sum(1, keepdims=True))
    return Transforms(Constant(own), Constant(cross), Constant(whole))
