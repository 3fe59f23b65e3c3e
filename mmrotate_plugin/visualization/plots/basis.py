"""Pictures of steerable bases: what the coefficients of an equivariant convolution multiply.

Each function draws one picture onto a `Page`, below what is there already. Kernels are drawn pixel by pixel, red above
zero, blue below, white at zero; the kernels of a row, or of a ring, share one scale.
"""

import io
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from torch import Tensor

from ...equivariant import ennConv, ennTrivialConv, group_order, parse_group
from ...equivariant.basis import SteerableBasis

WIDTH = 1000  # of a page; all lengths are in this unit, about a pixel of a screen
DOTS = 150  # printed dots per 100 units
MARGIN = 24
# an odd number of colours, so that zero has one: white
SIGNED = LinearSegmentedColormap.from_list('signed', ['#053061', '#4393c3', '#ffffff', '#d6604d', '#67001f'], N=257)
INK, FAINT, MARK = '#222222', '#8a8a8a', '#1a7f37'
TERMS = 4  # terms of a sum that are drawn one by one
PER_ROW = 8  # orientations in a row

Array = NDArray[np.float64]


class Page:
    """A white page of fixed width that grows downwards.

    Attributes:
        height: What is drawn so far, in units of a page that is `WIDTH` wide.
    """

    def __init__(self) -> None:
        self.height = MARGIN
        self._figure = Figure(dpi=DOTS)
        FigureCanvasAgg(self._figure)
        self._axes = self._figure.add_axes((0, 0, 1, 1))
        self._axes.set_axis_off()

    def kernel(self, x: float, y: float, size: float, kernel: Array, limit: float, frame: str = FAINT) -> None:
        """One (k, k) kernel in the square from (x, y); `limit` is the value of the darkest red."""
        self.image(x, y, size, size, kernel, limit)
        self.frame(x, y, size, frame)

    def frame(self, x: float, y: float, size: float, colour: str = FAINT) -> None:
        width = 0.6 if colour == FAINT else 2.2
        self._axes.add_patch(Rectangle((x, y), size, size, fill=False, edgecolor=colour, linewidth=width, zorder=3))

    def image(self, x: float, y: float, width: float, height: float, image: Array, limit: float) -> None:
        extent = (x, x + width, y + height, y)
        limit = limit or 1.0  # all zero: white
        self._axes.imshow(image, cmap=SIGNED, vmin=-limit, vmax=limit, extent=extent, interpolation='nearest')

    def bar(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        self._axes.add_patch(Rectangle((x, y), width, height, facecolor=colour, linewidth=0))

    def line(self, x: Sequence[float], y: Sequence[float], colour: str = FAINT) -> None:
        self._axes.plot(x, y, color=colour, linewidth=0.8, solid_capstyle='butt')

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: float = 15,
        colour: str = INK,
        *,
        across: str = 'center',
        bold: bool = False,
    ) -> None:
        """`text` centred vertically at y; `size` is the height of its letters' body."""
        weight = 'bold' if bold else 'normal'
        self._axes.text(
            x, y, text, fontsize=size * 0.72, color=colour, ha=across, va='center', weight=weight, linespacing=1.35
        )

    def title(self, title: str, explanation: str) -> None:
        """A headline and a sentence of one or two lines, at the left; moves `height` below them."""
        if self.height == MARGIN:
            self._legend(WIDTH - MARGIN - 170, self.height)
        self.text(MARGIN, self.height + 10, title, 20, across='left', bold=True)
        lines = explanation.count('\n') + 1
        self.text(MARGIN, self.height + 26 + 11 * lines, explanation, 15, across='left')
        self.height += 26 + 22 * lines + 12

    def _legend(self, x: float, y: float) -> None:
        self.image(x + 25, y + 4, 120, 12, np.linspace(-1, 1, 9)[None], 1)
        self.text(x + 12, y + 10, '\N{MINUS SIGN}', 16)
        self.text(x + 158, y + 10, '+', 16)
        self.text(x + 85, y + 26, '0', 14)

    def png(self) -> bytes:
        """The page as a PNG file."""
        self._axes.set(xlim=(0, WIDTH), ylim=(self.height, 0), aspect='auto')
        self._figure.set_size_inches(WIDTH / 100, self.height / 100)
        stream = io.BytesIO()
        self._figure.savefig(stream, format='png', metadata={'Software': None})
        return stream.getvalue()


def reading_order(basis: SteerableBasis) -> list[int]:
    """Indices of the elements, sorted by ring, then by the size of the angular frequency."""
    return sorted(range(len(basis.radius)), key=lambda e: (basis.radius[e], abs(basis.frequency[e]), e))


def visible_channel(element: Tensor) -> tuple[int, int]:
    """The first (output, input) channels between which an element (n_out, n_in, k, k) is at least half its largest."""
    norms = element.square().sum((-2, -1)).flatten()
    first = int((norms >= norms.max() / 4).nonzero()[0])
    return divmod(first, element.shape[1])


def combine(basis: SteerableBasis, coefficients: Tensor) -> Tensor:
    """Basis expansion of one field pair: (K,) coefficients to its (n_out, n_in, k, k) part of the filter, float64."""
    return torch.tensordot(coefficients.detach().double().cpu(), basis.samples, dims=1)


def orientation_names(group: str) -> list[str]:
    """What each orientation channel is: '0°', '45°', ..., and for the reflections of D_N 'mirrored, 45°'."""
    rotations = int(group[1:])
    elements = parse_group(group).fibergroup.elements
    pairs = [e if isinstance(e, tuple) else (0, e) for e in elements]
    return [('mirrored, ' if flip else '') + f'{360 * turn / rotations:.4g}°' for flip, turn in pairs]


def _relatives(group: str) -> str:
    return 'turns and mirror images' if group[0] == 'D' else 'turns'


def draw_elements(page: Page, basis: SteerableBasis) -> None:
    """The K elements: a row of the page per ring, a column per angular frequency.

    Of each element one orientation channel is drawn. Between regular fields there are |G| times as many elements, of
    which the first of each kind are drawn.
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
    """A strip of the |G| orientation channels (|G|, k, k) of an element or a filter, with one scale."""
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
    """All orientation channels of one element of a trivial input: one wave per turn on the outermost ring."""
    order = reading_order(basis)
    waves = [e for e in order if abs(basis.frequency[e]) == 1] or order
    kernels = basis.samples[waves[-2:][0], :, 0].numpy()
    draw_orientations(
        page,
        kernels,
        group,
        f'One element, all {len(kernels)} orientation channels',
        f'They are {_relatives(group)} of each other: one coefficient multiplies them all.',
    )


def draw_coefficients(page: Page, basis: SteerableBasis, coefficients: Tensor, in_fields: int) -> None:
    """Bars of the K coefficients of one pair of fields, and their standard deviation at the start of a training.

    Args:
        in_fields: Input fields per output field, on which that deviation depends.
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
    """Coefficients times basis is the filter: the largest terms one by one, the rest, their sum, its orientations."""
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
    x, top = MARGIN, page.height
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
            f'The {len(part)} output channels of the field are {_relatives(group)} of each other for all coefficients.',
        )


def draw_blocks(page: Page, basis: SteerableBasis, coefficients: Tensor, group: str) -> None:
    """Regular to regular fields: the |G| x |G| block of small kernels, of one element and of the whole sum.

    Raises:
        ValueError: If the input field is a trivial one, whose block has a single column.
    """
    n_out, n_in = basis.samples.shape[1:3]
    if n_in == 1:
        raise ValueError('draw_blocks needs a basis between regular fields; that of a trivial input has one column')
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
    """An element of the outermost ring, if there is one between fields that both turn, and do so differently."""

    def key(e: int) -> tuple[bool, bool, float, int]:
        into, out = basis.in_irrep[e], basis.out_irrep[e]
        turning = all(int(name.replace(',', '_').rpartition('_')[2]) > 0 for name in (into, out))
        return not turning, into == out, -basis.radius[e], abs(basis.frequency[e])

    return min(range(len(basis.radius)), key=key)


def _frame_step(group: str) -> int:
    """The orientation whose kernel is compared with the first: a quarter turn where there is one, else one step."""
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


def field_pair(weight: Tensor, pair: tuple[int, int]) -> Tensor:
    """(K,) coefficients of an (input, output) pair of fields, of the weight (out_fields, in_fields, K) of a layer.

    Raises:
        ValueError: If there are no such fields; the message says how many there are.
    """
    into, out = pair
    fields_out, fields_in, _ = weight.shape
    if not (0 <= into < fields_in and 0 <= out < fields_out):
        raise ValueError(
            f'the field pair {into} {out} (input, output) is not in the layer: its input fields are 0 to '
            f'{fields_in - 1}, its output fields 0 to {fields_out - 1}'
        )
    return weight[out, into].detach()


def describe(layer: ennConv | ennTrivialConv) -> list[tuple[str, str]]:
    """What the number of coefficients of a layer is made of: rows of a name and a text."""
    out_fields, in_fields, elements = layer.weight.shape
    k = layer.kernel_size[0]
    into = layer.in_channels // layer.groups
    entries = layer.out_channels * into * k * k
    rings = Counter(layer.basis.radius)
    kind = 'trivial' if layer.trivial_input else 'regular'
    inputs = 'inputs' if layer.trivial_input else 'input fields'
    return [
        ('group', f'{layer.group}, order {group_order(layer.group)}'),
        (
            'fields',
            f'{layer.in_fields} {kind} -> {out_fields} regular{f", {layer.groups} groups" * (layer.groups > 1)}',
        ),
        ('basis', f'K = {elements} elements of {k} x {k} pixels'),
        ('rings', ', '.join(f'{rings[radius]} of radius {radius:g}' for radius in sorted(rings))),
        (
            'coefficients',
            f'{in_fields} {inputs} x {out_fields} fields x {elements} basis elements = {layer.weight.numel()} '
            f'coefficients -> {into} x {layer.out_channels} x {k} x {k} = {entries} filter entries',
        ),
        ('ratio', f'{entries / layer.weight.numel():.3g} filter entries per coefficient'),
    ]


def parts(layer: ennConv | ennTrivialConv, coefficients: Tensor) -> dict[str, Callable[[Page], None]]:
    """The pictures of a layer by name: what draws each onto a page.

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

    found = {'elements': elements, 'filter': filter_}
    if not layer.trivial_input:
        found['blocks'] = lambda page: draw_blocks(page, basis, coefficients, group)
    return found
