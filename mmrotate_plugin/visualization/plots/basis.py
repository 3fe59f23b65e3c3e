"""Draw steerable bases: what the coefficients of an equivariant convolution multiply.

Each function draws one picture onto a `Page`, below what is there already. Kernels are drawn pixel by pixel, red above
zero, blue below, white at zero; the kernels of a row, or of a ring, share one scale.
"""

from collections import defaultdict
from collections.abc import Callable

import numpy as np
from torch import Tensor

from ...equivariant import ennConv, ennTrivialConv
from ...equivariant.basis import SteerableBasis
from .basis_blocks import draw_blocks
from .basis_text import combine, describe, field_pair, orientation_names, reading_order, relatives, visible_channel
from .page import FAINT, MARGIN, MARK, SIGNED, WIDTH, Array, Page

__all__ = [
    'Page',
    'describe',
    'draw_blocks',
    'draw_coefficients',
    'draw_elements',
    'draw_one_element',
    'draw_orientations',
    'draw_sum',
    'field_pair',
    'parts',
]

TERMS = 4  # terms of a sum that are drawn one by one
PER_ROW = 8  # orientations in a row


def draw_elements(page: Page, basis: SteerableBasis) -> None:
    """Draw the K elements: a row of the page per ring, a column per angular frequency.

    One orientation channel of each element is drawn. Between regular fields there are |G| times as many elements; only
    the first of each kind are drawn.
    """
    cells: dict[tuple[float, int], list[int]] = defaultdict(list)
    for e in reading_order(basis):
        cells[basis.radius[e], abs(basis.frequency[e])].append(e)
    radii = sorted({radius for radius, _ in cells})
    frequencies = sorted({frequency for _, frequency in cells})
    counts = [sum(len(found) for (radius, _), found in cells.items() if radius == r) for r in radii]
    total = ' + '.join(map(str, counts)) + f' = {sum(counts)}' if len(counts) > 1 else str(counts[0])
    n_out, n_in = basis.samples.shape[1:3]
    if n_in == 1:
        what = 'Each picture is one element, of which the first orientation is drawn: waves around a ring, two of a'
        what += '\nkind a quarter of a wave apart. '
    else:
        what = (
            f'Some elements, each by one of its {n_out} × {n_in} little kernels: waves around a ring. There are {n_in}'
        )
        what += ' times\nas many as are drawn. '
    page.title(
        f'The basis: {total} element{"s" * (len(basis.samples) > 1)}',
        what + 'Wider rings have room for finer waves: up to three per pixel of radius.',
    )
    left, gap = 150, 8
    size = min(100, (WIDTH - left - MARGIN) / len(frequencies) - gap)
    page.text(left - 14, page.height + 8, 'waves per turn', 14, FAINT, across='right')
    for column, frequency in enumerate(frequencies):
        page.text(left + column * (size + gap) + size / 2, page.height + 8, str(frequency), 15)
    page.height += 26
    for radius, count in zip(radii, counts, strict=True):
        rows = min(2 if max(f for r, f in cells if r == radius) else 1, count)
        place = f'ring of {radius:g} pixel{"s" * (radius != 1)}' if radius else 'centre pixel'
        middle = page.height + (rows * (size + gap) - gap) / 2
        page.text(left - 14, middle - 10, place, 15, across='right')
        page.text(left - 14, middle + 12, f'{count} element{"s" * (count != 1)}', 14, FAINT, across='right')
        places, kernels = [], []
        for column, frequency in enumerate(frequencies):
            for row, e in enumerate(cells.get((radius, frequency), [])[: 2 if frequency else 1]):
                places.append((left + column * (size + gap), page.height + row * (size + gap)))
                kernels.append(basis.samples[(e, *visible_channel(basis.samples[e]))].numpy())
        limit = float(np.abs(kernels).max())
        for (x, y), kernel in zip(places, kernels, strict=True):
            page.kernel(x, y, size, kernel, limit)
        page.height += rows * (size + gap) + 14
        page.line((MARGIN, WIDTH - MARGIN), (page.height - 11, page.height - 11), '#e4e4e4')
    page.height += 8


def draw_orientations(page: Page, kernels: Array, group: str, title: str, explanation: str) -> None:
    """Draw the |G| orientation channels (|G|, k, k) of an element or a filter in a strip, with one scale."""
    page.title(title, explanation)
    names = orientation_names(group)
    gap = 10
    per_row = min(PER_ROW, len(names))
    size = min(120, (WIDTH - 2 * MARGIN + gap) / PER_ROW - gap)
    limit = float(np.abs(kernels).max())
    for i, (name, kernel) in enumerate(zip(names, kernels, strict=True)):
        x = MARGIN + i % per_row * (size + gap)
        page.kernel(x, page.height, size, kernel, limit)
        page.text(x + size / 2, page.height + size + 13, name, 14)
        if i % per_row == per_row - 1 or i == len(names) - 1:
            page.height += size + 38
    page.height += 4


def draw_one_element(page: Page, basis: SteerableBasis, group: str) -> None:
    """Draw all orientation channels of one element of a trivial input: one wave per turn on the outermost ring."""
    order = reading_order(basis)
    waves = [e for e in order if abs(basis.frequency[e]) == 1] or order
    kernels = basis.samples[waves[-2:][0], :, 0].numpy()
    draw_orientations(
        page,
        kernels,
        group,
        f'One element, all {len(kernels)} orientation channels',
        f'They are {relatives(group)} of each other: one coefficient multiplies them all.',
    )


def draw_coefficients(page: Page, basis: SteerableBasis, coefficients: Tensor, in_fields: int) -> None:
    """Draw the K coefficients of a pair of fields as bars, with their standard deviation before training.

    Args:
        page: Page to draw on.
        basis: Basis of the layer.
        coefficients: (K,).
        in_fields: Input fields per output field; the deviation depends on it.
    """
    order = reading_order(basis)
    values = coefficients.detach().double().cpu().numpy()[order]
    std = basis.he_std.numpy()[order] / in_fields**0.5
    limit = float(max(np.abs(values).max(), std.max()))
    page.title(
        f'The {len(values)} coefficient{"s" * (len(values) > 1)} of one input field and one output field',
        'A bar each: ring by ring, coarse waves to fine ones. Grey: one standard deviation at the start of a training.',
    )
    left, height = MARGIN, 120
    step = (WIDTH - MARGIN - left) / len(values)
    middle = page.height + height / 2
    scale = height / 2 / limit
    starts = [i for i, e in enumerate(order) if i == 0 or basis.radius[e] != basis.radius[order[i - 1]]]
    for i, value in enumerate(values):
        page.bar(left + i * step, middle - std[i] * scale, step, 2 * std[i] * scale, '#ececec')
        colour = SIGNED(0.8 if value > 0 else 0.2)
        page.bar(left + (i + 0.15) * step, middle, 0.7 * step, -value * scale, colour)
    page.line((left, WIDTH - MARGIN), (middle, middle))
    for start, end in zip(starts, [*starts[1:], len(values)], strict=True):
        radius = basis.radius[order[start]]
        if start:
            page.line((left + start * step,) * 2, (page.height, page.height + height))
        if radius:
            page.text(left + (start + end) / 2 * step, page.height + height + 12, f'ring of {radius:g}', 14, FAINT)
        else:
            page.text(left, page.height + height + 12, 'centre', 14, FAINT, across='left')
    page.height += height + 40


def draw_sum(page: Page, basis: SteerableBasis, coefficients: Tensor, group: str) -> None:
    """Draw the filter as coefficients times elements: the largest terms, the rest, the sum, its orientations."""
    coefficients = coefficients.detach().double().cpu()
    part = combine(basis, coefficients)
    out, into = visible_channel(part)
    channel = basis.samples[:, out, into]
    terms = coefficients.view(-1, 1, 1) * channel
    largest = terms.abs().amax((1, 2)).argsort(descending=True)[:TERMS].tolist()
    rest = part[out, into] - terms[largest].sum(0)
    others = len(terms) - len(largest)
    page.title(
        'Coefficients × basis = filter',
        'Above, elements as they are; below, each times its coefficient. Added up they are the filter of one input\n'
        'channel and one output channel.' + (' The largest terms come first.' if others > 0 else ''),
    )
    columns = len(largest) + (2 if others else 1)
    gap = 40
    size = min(130, (WIDTH - 2 * MARGIN + gap) / columns - gap)
    x, top = float(MARGIN), page.height
    below = top + size + 46
    limit = float(max(part[out, into].abs().max(), rest.abs().max(), terms[largest].abs().max()))
    for i, e in enumerate(largest):
        page.kernel(x, top, size, channel[e].numpy(), channel[largest].abs().max().item())
        page.text(x + size / 2, top + size + 23, f'× {coefficients[e]:.2g}'.replace('-', '\N{MINUS SIGN}'), 18)
        page.kernel(x, below, size, terms[e].numpy(), limit)
        if i < columns - 2:
            page.text(x + size + gap / 2, below + size / 2, '+', 24)
        x += size + gap
    if others:
        page.text(x + size / 2, below - 23, f'{others} more term{"s" * (others > 1)}', 15)
        page.kernel(x, below, size, rest.numpy(), limit)
        x += size + gap
    page.text(x - gap / 2, below + size / 2, '=', 24)
    page.text(x + size / 2, below - 23, 'filter', 18)
    page.kernel(x, below, size, part[out, into].numpy(), limit, MARK)
    page.height = below + size + 34
    if part.shape[1] == 1:
        draw_orientations(
            page,
            part[:, 0].numpy(),
            group,
            'The same coefficients make every orientation',
            f'The {len(part)} output channels of the field are {relatives(group)} of each other for all coefficients.',
        )


def parts(layer: ennConv | ennTrivialConv, coefficients: Tensor) -> dict[str, Callable[[Page], None]]:
    """Return a function for each picture of a layer, by name; it draws the picture onto a page.

    Args:
        layer: A steerable convolution.
        coefficients: (K,) of one pair of its fields, see `field_pair`.
    """
    basis, group = layer.basis, layer.group

    def elements(page: Page) -> None:
        draw_elements(page, basis)
        if layer.trivial_input:
            draw_one_element(page, basis, group)

    def filter_(page: Page) -> None:
        draw_coefficients(page, basis, coefficients, layer.weight.shape[1])
        draw_sum(page, basis, coefficients, group)

    found: dict[str, Callable[[Page], None]] = {'elements': elements, 'filter': filter_}
    if not layer.trivial_input:
        found['blocks'] = lambda page: draw_blocks(page, basis, coefficients, group)
    return found
