r"""Compute 1x1 convolutions between regular fields of D_N by the irreducible representations of the group.

A 1x1 kernel that commutes with D_N mixes only equal irreducible representations (Schur's lemma). D_N has two or four of
one dimension, once each in the regular representation, and (N - 1) // 2 of two dimensions, twice each. In a basis that
splits the orientations so, the 2N x 2N block from field to field has a number for each of the former; for each of the
latter a 2 x 2 matrix that mixes its two copies, in the same way for both of its dimensions. The products are the sum of
the cubes of the dimensions: for D8, 4 + 3 * 8 = 28 multiplications instead of 256; for D4, 12 instead of 64.

The basis is that of Cohen & Welling, Steerable CNNs, ICLR 2017, arXiv:1612.08498, found by e2cnn.
"""

from collections import defaultdict
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ._block_conv import BlockAlgebra, block_conv, may_write
from ._constants import Constant
from ._e2cnn import E2CNN_LOCK
from .basis import SteerableBasis
from .fields import group_order, parse_group
from .fourier import pays


class IrrepBlocks(NamedTuple):
    """Blocks of a 1x1 convolution over the irreducible representations.

    Attributes:
        one: (n_1, out_fields, in_fields), for each representation of one dimension.
        two: (n_2, 2 * out_fields, 2 * in_fields), for each of two dimensions; copies slowest: all fields of the first
            copy come before those of the second.
    """

    one: Tensor
    two: Tensor


class Split(NamedTuple):
    """How the regular representation splits.

    Attributes:
        matrix: (2N, 2N), orthogonal; maps orientations to coefficients. Those of the one-dimensional representations
            come first, then for each two-dimensional one: its first dimension in both copies, its second in both.
        ones, twos: Numbers of representations of one and of two dimensions.
    """

    matrix: Constant
    ones: int
    twos: int


@cache
def split(group: str) -> Split:
    """Split the regular representation of a dihedral group, 'D2' to 'D64'; one object per process."""
    regular = parse_group(group).regular_repr
    with E2CNN_LOCK:
        sizes = [regular.group.irreps[name].size for name in regular.irreps]
    starts = np.cumsum([0, *sizes[:-1]]).tolist()
    single = [start for start, size in zip(starts, sizes, strict=True) if size == 1]
    copies: dict[str, list[int]] = defaultdict(list)
    for name, start, size in zip(regular.irreps, starts, sizes, strict=True):
        if size == 2:
            copies[name].append(start)
    rows = [*single, *(start + j for pair in copies.values() for j in range(2) for start in pair)]
    matrix = regular.change_of_basis.T[rows]
    matrix[0] *= np.sign(matrix[0, 0])  # the trivial representation, where a bias goes
    return Split(Constant(matrix), len(single), len(copies))


def products(group: str) -> int:
    """Return the multiplications for a pair of fields and pixel: the sum of the cubes of the dimensions."""
    _, ones, twos = split(group)
    return ones + 8 * twos


def gains(group: str, in_fields: int, out_fields: int, *, training: bool) -> bool:
    """Tell whether a 1x1 layer between regular fields of a group gains time over irreducible representations."""
    count = products(group) if group[0] == 'D' else None
    return pays(in_fields, out_fields, group_order(group), products=count, training=training)


@cache
def block_maps(basis: SteerableBasis, group: str) -> tuple[Constant, Constant]:
    """Return what makes `IrrepBlocks` of coefficients in a basis of K kernels: (K, n_1) and (K, n_2 * 4).

    Args:
        basis: Of 1x1 kernels between regular fields.
        group: 'D2' to 'D64'.
    """
    matrix, ones, twos = split(group)
    kernels = matrix.values @ basis.kernels.values[..., 0, 0] @ matrix.values.T  # (K, 2N, 2N)
    alone = kernels[:, range(ones), range(ones)]
    firsts = [kernels[:, i : i + 2, i : i + 2] for i in range(ones, ones + 4 * twos, 4)]  # the first dimension of each
    pairs = np.stack(firsts, 1) if firsts else np.zeros((len(kernels), 0, 2, 2))
    return Constant(alone), Constant(pairs.reshape(len(kernels), -1))


def irrep_blocks(weight: Tensor, basis: SteerableBasis, group: str) -> IrrepBlocks:
    """Compute the blocks of coefficients (out_fields, in_fields, K), differentiably."""
    alone, pairs = (constant.like(weight) for constant in block_maps(basis, group))
    fields_out, fields_in, _ = weight.shape
    two = (weight @ pairs).view(fields_out, fields_in, -1, 2, 2).permute(2, 3, 0, 4, 1)  # (n_2, 2, out, 2, in)
    return IrrepBlocks(
        (weight @ alone).permute(2, 0, 1).contiguous(), two.reshape(len(two), 2 * fields_out, 2 * fields_in)
    )


def dihedral_conv(x: Tensor, one: Tensor, two: Tensor, bias: Tensor | None = None, *, group: str) -> Tensor:
    """Compute a 1x1 convolution between fields of D_N by its blocks, differentiably.

    Args:
        x: (B, in_fields * 2N, H, W), orientation fastest.
        one, two: `IrrepBlocks`.
        bias: (out_fields,), shared by the orientations of a field.
        group: 'D2' to 'D64'.

    Returns:
        (B, out_fields * 2N, H, W).
    """
    return block_conv(_algebra(group), x, one, two, bias)


@cache
def _algebra(group: str) -> BlockAlgebra:
    matrix, ones, _ = split(group)
    return BlockAlgebra(matrix, _product, _adjoint, partial(_gradients, ones=ones))


def _product(one: Tensor, two: Tensor, x: Tensor) -> Tensor:
    """Multiply coefficients (2N, in_fields, M) by blocks: (2N, out_fields, M)."""
    ones, columns = one.shape[0], x.shape[-1]
    apart = _dimensions(x, ones)
    if not may_write(one, two, x):
        pairs = two.unsqueeze(1) @ apart  # (n_2, 2, 2 * out_fields, M)
        return torch.cat([one @ x[:ones], pairs.reshape(-1, one.shape[1], columns)])
    y = x.new_empty(len(x), one.shape[1], columns)
    torch.bmm(one, x[:ones], out=y[:ones])
    for source, target in zip(apart.unbind(1), _dimensions(y, ones).unbind(1), strict=True):
        torch.bmm(two, source, out=target)
    return y


def _adjoint(one: Tensor, two: Tensor) -> tuple[Tensor, Tensor]:
    """Return the transposed blocks."""
    return one.transpose(1, 2), two.transpose(1, 2)


def _gradients(g: Tensor, f: Tensor, *, ones: int) -> tuple[Tensor, Tensor]:
    """Return the gradients of blocks, from those of the product and the coefficients that it multiplied."""
    one = g[:ones] @ f[:ones].transpose(1, 2)
    a, b = (_dimensions(t, ones) for t in (g, f))
    return one, torch.baddbmm(a[:, 0] @ b[:, 0].transpose(1, 2), a[:, 1], b[:, 1].transpose(1, 2))


def _dimensions(x: Tensor, ones: int) -> Tensor:
    """View the coefficients (2N, F, M) of two-dimensional representations as (n_2, 2 dimensions, 2 copies * F, M)."""
    return x[ones:].reshape((len(x) - ones) // 4, 2, 2 * x.shape[1], x.shape[2])  # a view of what is contiguous
