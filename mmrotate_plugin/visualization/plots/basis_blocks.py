"""Draw the blocks of small kernels between regular fields."""

import numpy as np
import torch
from torch import Tensor

from ...equivariant import parse_group
from ...equivariant.basis import SteerableBasis
from .basis_text import combine, orientation_names, visible_channel
from .page import FAINT, MARGIN, MARK, WIDTH, Array, Page


def draw_blocks(page: Page, basis: SteerableBasis, coefficients: Tensor, group: str) -> None:
    """Draw the |G| x |G| blocks of small kernels between two regular fields, of one element and of the whole sum.

    Raises:
        ValueError: If the input field is trivial: its block has a single column.
    """
    n_out, n_in = basis.samples.shape[1:3]
    if n_in == 1:
        raise ValueError(
            'draw_blocks needs a basis between regular fields; the basis of a trivial input has one column'
        )
    free = len(basis.samples) // n_out
    page.title(
        f'One field to one field: {n_out} × {n_in} little kernels',
        f'Row: output orientation, column: input orientation. The {n_out} kernels of the first column are free, {free} '
        f'coefficient{"s" * (free > 1)} each;\nthe other columns repeat them, turned and moved. The two framed kernels '
        f'are the same one, the second turned by {orientation_names(group)[_frame_step(group)]}.',
    )
    gap = 54
    size = (WIDTH - 2 * MARGIN - 2 * gap) / 2
    pictures = [
        (basis.samples[_telling_element(basis)], 'one element'),
        (combine(basis, coefficients), f'the filter: the sum of all {len(basis.samples)}'),
    ]
    for i, (block, name) in enumerate(pictures):
        x = MARGIN + gap + i * (size + gap)
        _block(page, x, page.height + 40, size, block.numpy(), group)
        page.text(x + size / 2, page.height + 6, name, 16, bold=True)
    page.height += size + 66


def _telling_element(basis: SteerableBasis) -> int:
    """Choose an element of the outermost ring, preferably between fields that both turn, and do so differently."""

    def key(e: int) -> tuple[bool, bool, float, int]:
        into, out = basis.in_irrep[e], basis.out_irrep[e]
        turning = all(int(name.replace(',', '_').rpartition('_')[2]) > 0 for name in (into, out))
        return not turning, into == out, -basis.radius[e], abs(basis.frequency[e])

    return min(range(len(basis.radius)), key=key)


def _frame_step(group: str) -> int:
    """Choose the orientation to compare with the first: a quarter turn if the group has one, else one step."""
    rotations = int(group[1:])
    return rotations // 4 if rotations % 4 == 0 else 1


def _block(page: Page, x: float, y: float, size: float, block: Array, group: str) -> None:
    n_out, n_in, k, _ = block.shape
    cell = size / n_out
    page.image(x, y, size, size, block.transpose(0, 2, 1, 3).reshape(n_out * k, n_in * k), float(np.abs(block).max()))
    for i in range(n_out + 1):
        page.line((x, x + size), (y + i * cell,) * 2)
        page.line((x + i * cell,) * 2, (y, y + size))
    if n_out <= 8:  # more would overlap
        for i, name in enumerate(orientation_names(group)):
            name = name.replace('mirrored, ', 'm ')
            page.text(x + (i + 0.5) * cell, y - 11, name, 13, FAINT)
            page.text(x - 5, y + (i + 0.5) * cell, name, 13, FAINT, across='right')
    # an element s of the group moves channel g to s g, in rows and columns alike
    fiber = parse_group(group).fibergroup
    moved = fiber.representations['regular'](fiber.elements[_frame_step(group)]).argmax(0)
    first = visible_channel(torch.from_numpy(block[:, :1]))[0]
    for row, column in ((first, 0), (moved[first], moved[0])):
        page.frame(x + column * cell, y + row * cell, cell, MARK)
