r"""Compute 1x1 convolutions between regular fields of C_N by a discrete Fourier transform over the orientations.

A 1x1 kernel that commutes with rotations depends only on differences of orientations, so its N x N block from field to
field is circulant: :math:`y_r = \sum_s w_{(r - s) \bmod N}\, x_s`. The Fourier transform turns it into a product,
:math:`\hat y_k = \hat w_k \hat x_k` for each frequency k (convolution theorem; in terms of representations, the change
to irreducible ones of Cohen & Welling, Steerable CNNs, ICLR 2017, arXiv:1612.08498). For real signals and N = 8 these
are two real and three complex products: 14 multiplications instead of 64.

The transforms read and write the maps once more, so only wide layers gain, see `pays`.
"""

import math
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..kernels.following import is_transformed
from ._block_conv import BlockAlgebra, block_conv
from ._constants import Constant


class Spectrum(NamedTuple):
    """Fourier coefficients of the circulant blocks of a 1x1 convolution.

    The N real coefficients of a signal are in the order: frequency 0; frequency N/2 if N is even; the cosines of the
    frequencies between; their sines.

    Attributes:
        own: (N, out_fields, in_fields), from each coefficient to itself.
        cross: (P, out_fields, in_fields), from the sine to the cosine of the P frequencies that have both; from cosine
            to sine it is the negative.
    """

    own: Tensor
    cross: Tensor


def pays(in_fields: int, out_fields: int, order: int, *, products: int | None = None, training: bool = False) -> bool:
    """Tell whether a layer between regular fields gains time on a CPU.

    Per pixel the products of each pair of fields fall from the square of the order to `products`. The transforms cost
    as many products per channel as the order, and memory traffic that costs as much as 52 products, 66 with gradients.
    This fits the layers of ResNet-50 with C4, C8, C16, D4 and D8 at 512 x 512 pixels, on one thread: stage one loses
    (1.1 to 2 times the convolution), stage two gains (0.6 to 0.85 with gradients), except for C4 with gradients.

    Args:
        in_fields, out_fields: Regular fields of input and output.
        order: Number of orientations of a field.
        products: Products of a pair of fields; None for C_N: N + 2P, where P frequencies have cosine and sine.
        training: Count the backward pass too.
    """
    if products is None:
        products = order + 2 * ((order - 1) // 2)
    saved = in_fields * out_fields * (order**2 - products)
    return saved > (in_fields + out_fields) * order * (order + (66 if training else 52))


def spectrum(columns: Tensor) -> Spectrum:
    """Compute the Fourier coefficients of circulant blocks.

    Args:
        columns: First column of each block, (out_fields, in_fields, N).
    """
    matrices = transforms(columns.shape[2])
    own, cross = (columns @ matrix.like(columns) for matrix in (matrices.own, matrices.cross))
    return Spectrum(own.permute(2, 0, 1).contiguous(), cross.permute(2, 0, 1).contiguous())


def circulant_conv(x: Tensor, own: Tensor, cross: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute a 1x1 convolution by circulant blocks, differentiably.

    Args:
        x: (B, in_fields * N, H, W), orientation fastest.
        own, cross: `Spectrum` of the blocks.
        bias: (out_fields,), shared by the orientations of a field.

    Returns:
        (B, out_fields * N, H, W).
    """
    return block_conv(_algebra(len(own)), x, own, cross, bias)


class FourierConv2d(nn.Module):
    """A trained 1x1 convolution with circulant blocks, for inference; made by ``export(..., fourier=True)``.

    Args:
        conv: A 1x1 convolution without groups and padding, between fields of `order` orientations.
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
        """Map (B, in_channels, H, W) to (B, out_channels, H', W')."""
        return circulant_conv(every(x, self.stride), self.own, self.cross, self.bias)

    def extra_repr(self) -> str:
        return f'{self.in_channels}, {self.out_channels}, order={self.order}, stride={self.stride}'


def every(x: Tensor, stride: tuple[int, ...]) -> Tensor:
    """Select the pixels of (B, C, H, W) that a 1x1 kernel of this stride reads."""
    return x if stride == (1, 1) else x[..., :: stride[0], :: stride[1]]


def _product(own: Tensor, cross: Tensor, x: Tensor) -> Tensor:
    """Multiply coefficients (N, in_fields, M) by the spectrum: (N, out_fields, M)."""
    cos, sin = _pairs(len(own))
    y = own @ x
    if any(map(is_transformed, (own, cross, x))):  # vmap cannot write a batch into a tensor that has none
        turned = torch.cat([cross @ x[sin], -(cross @ x[cos])])
        return torch.cat([y[: cos.start], y[cos.start :] + turned])
    y[cos].baddbmm_(cross, x[sin])
    y[sin].baddbmm_(cross, x[cos], alpha=-1)
    return y


def _adjoint(own: Tensor, cross: Tensor) -> tuple[Tensor, Tensor]:
    """Return the spectrum of the transposed blocks."""
    return own.transpose(1, 2), -cross.transpose(1, 2)


def _gradients(g: Tensor, f: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of a spectrum, from those of the product and the coefficients that it multiplied."""
    f = f.transpose(1, 2)
    cos, sin = _pairs(len(g))
    return g @ f, torch.baddbmm(g[cos] @ f[sin], g[sin], f[cos], alpha=-1)


def _pairs(n: int) -> tuple[slice, slice]:
    """Return the slices of the cosines and of the sines among N coefficients."""
    pairs = (n - 1) // 2
    return slice(n - 2 * pairs, n - pairs), slice(n - pairs, n)


class Transforms(NamedTuple):
    """Matrices of the real Fourier transform over N orientations.

    Attributes:
        own, cross: (N, N) and (N, P); map the first column of a circulant block to its `Spectrum`.
        whole: (N, N), orthonormal; maps a signal to its coefficients.
    """

    own: Constant
    cross: Constant
    whole: Constant


@cache
def transforms(n: int) -> Transforms:
    """Return the matrices for N orientations, one object per process."""
    t = np.arange(n)[:, None] * (2 * math.pi / n)
    alone = [0, n // 2] if n % 2 == 0 else [0]
    pairs = list(range(1, (n + 1) // 2))
    own, cross = np.cos(t * np.array(alone + pairs + pairs)), -np.sin(t * np.array(pairs, dtype=float))
    rows = np.concatenate([own[:, : n - len(pairs)], -cross], 1).T
    whole = rows / np.sqrt(np.square(rows).sum(1, keepdims=True))
    return Transforms(Constant(own), Constant(cross), Constant(whole))


@cache
def _algebra(n: int) -> BlockAlgebra:
    return BlockAlgebra(transforms(n).whole, _product, _adjoint, _gradients)
