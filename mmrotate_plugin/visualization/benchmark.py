"""What tools/benchmark.py reports: rows of ratios as a table of text, as a page of Markdown, and as a figure.

A row is a dict: ``measure``, ``network``, ``baseline`` (texts), ``unit`` ('s', 'byte' or 'x', a factor), ``value`` and
``baseline_value`` (medians), ``ratio`` (median of the ratios of pairs), ``quartiles`` (of those), ``rounds`` (pairs of
the value of the baseline and that of the network).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..engine.files import write_whole
from .draw import encode_image

HEAD = ('measure', 'network', 'value', 'baseline', 'its value', 'ratio', 'quartiles')
MARKERS = ('<!-- benchmark {}: written by tools/benchmark.py -->', '<!-- end of benchmark {} -->')

Row = Mapping[str, Any]


def quantity(value: float, unit: str) -> str:
    """A number of three digits with its unit."""
    if unit == 'byte':
        return f'{value / 2**20:.3g} MiB' if value < 1000 * 2**20 else f'{value / 2**30:.3g} GiB'
    if unit == 's':
        return f'{value:.3g} s' if value >= 1 else f'{value * 1000:.3g} ms'
    return f'{value:.3g} x'


def cells(row: Row) -> tuple[str, ...]:
    """The texts of a row, in the order of `HEAD`."""
    low, high = row['quartiles']
    return (
        row['measure'],
        row['network'],
        quantity(row['value'], row['unit']),
        row['baseline'],
        quantity(row['baseline_value'], row['unit']),
        f'{row["ratio"]:.3f}',
        f'{low:.3f} - {high:.3f}' if len(row['rounds']) > 1 else '',
    )


def as_text(rows: Sequence[Row]) -> str:
    """The table for a terminal."""
    lines = [HEAD, *map(cells, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return '\n'.join(
        '  '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def as_markdown(rows: Sequence[Row], about: Mapping[str, Any]) -> str:
    """The table for a page, below what has to be known to repeat it.

    Args:
        rows: See above.
        about: 'date', 'command', 'cpu', 'gpu', 'cores', 'load', 'threads', 'depth', 'base_channels', 'rounds',
            'processes', 'errors' (of the claims of equality), 'left_out', 'imports' and 'versions'.
    """
    where = about['gpu'] or f'{about["cpu"]}, {about["cores"]} cores'
    lines = [
        f'- {about["date"]}, ResNet-{about["depth"]} of base_channels={about["base_channels"]}',
        f'- {where}; {about["threads"]} threads, load average at the start {about["load"]:.1f}',
        f'- {", ".join(f"{name} {version}" for name, version in about["versions"].items())}',
        f'- {about["rounds"]} rounds; {about["processes"]} processes per network for first build and memory',
        f'- `{about["command"]}`',
    ]
    if about['errors']:
        checked = ', '.join(f'{name} {error:.0e}' for name, error in about['errors'].items())
        lines.append(f'- relative errors of what is claimed to be equal: {checked}')
    lines += [f'- {name} left out: {reason}' for name, reason in about['left_out'].items()]
    if about['imports']:
        e2cnn, rest = about['imports']['import_e2cnn'], about['imports']['import']
        lines.append(f'- not in the first build: importing e2cnn ({e2cnn:.1f} s) and what is above it ({rest:.1f} s)')
    table = [HEAD, ['---'] * len(HEAD), *map(cells, rows)]
    return '\n'.join([*lines, '', *('| ' + ' | '.join(line) + ' |' for line in table)]) + '\n'


def write_into(page: Path, text: str, name: str) -> Path:
    """Put a text between the markers of that name in a page, in place of what is there.

    Raises:
        ValueError: If the page does not have both markers, once each.
        OSError: If it cannot be read or written.
    """
    start, end = (marker.format(name) for marker in MARKERS)
    whole = page.read_text(encoding='utf-8')
    if whole.count(start) != 1 or whole.count(end) != 1 or whole.index(start) > whole.index(end):
        raise ValueError(f"the page must have the line '{start}' and, below it, the line '{end}', once each")
    before, after = whole[: whole.index(start)], whole[whole.index(end) :]
    return write_whole(page, f'{before}{start}\n\n{text}\n{after}')


def figure(rows: Sequence[Row], about: Mapping[str, Any], *, dpi: int = 110) -> bytes:
    """Draw the ratios: a dot for each pair, a bar between their quartiles, a mark at the median.

    Args:
        rows: See above.
        about: As for `as_markdown`.
        dpi: Dots per inch.

    Returns:
        A PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

    measures = list(dict.fromkeys(row['measure'] for row in rows))
    networks = list(dict.fromkeys(row['network'] for row in rows))
    height = 0.24 * (len(rows) + len(measures)) + 1.2
    drawn = Figure(figsize=(9, height), dpi=dpi, layout='constrained')
    canvas = FigureCanvasAgg(drawn)
    axis = drawn.subplots()
    where = about['gpu'] or f'CPU, {about["threads"]} threads'
    axis.set_title(f'ResNet-{about["depth"]}, base_channels={about["base_channels"]}, {where}, {about["date"]}',
                   fontsize=11)  # fmt: skip

    y, places, labels = 0.0, [], []
    ratios = [b / a for row in rows for a, b in row['rounds']]
    low, high = min(*ratios, 0.9) / 1.03, max(*ratios, 1.1) * 1.03
    for measure in measures:
        axis.text(0.005, y, measure, transform=axis.get_yaxis_transform(), va='center', fontsize=9, weight='bold')
        axis.axhspan(y - 0.5, y + 0.5, color='0.95', zorder=0)
        for row in (row for row in rows if row['measure'] == measure):
            y += 1
            colour = f'C{networks.index(row["network"]) % 10}'
            values = [b / a for a, b in row['rounds']]
            axis.plot(values, [y] * len(values), 'o', color=colour, markersize=4, alpha=0.35, markeredgewidth=0)
            axis.plot(row['quartiles'], [y, y], color=colour, linewidth=3, solid_capstyle='butt')
            axis.plot(row['ratio'], y, '|', color='black', markersize=10, markeredgewidth=1.6)
            axis.text(1.01, y, f'{row["ratio"]:.3f}', transform=axis.get_yaxis_transform(), va='center', fontsize=9)
            places.append(y)
            labels.append(f'{row["network"]} / {row["baseline"]}')
        y += 1
    axis.axvline(1, color='0.3', linewidth=0.9, zorder=1)
    axis.set_xscale('log')
    axis.set_xlim(low, high)
    axis.set_ylim(y - 0.3, -0.8)
    axis.set_yticks(places, labels, fontsize=9)
    axis.xaxis.set_major_locator(FixedLocator(_round_numbers(low, high)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel('ratio to the baseline; below 1 is faster or smaller')
    axis.grid(axis='x', alpha=0.3)
    canvas.draw()  # `savefig` would draw twice
    return encode_image(np.asarray(canvas.buffer_rgba())[..., 2::-1])


def _round_numbers(low: float, high: float) -> list[float]:
    """About four to nine round numbers of a log scale."""
    steps = {1.6: np.arange(0.5, 2, 0.05), 2.5: np.arange(0.2, 5, 0.1), 12: (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10)}
    wide = 10.0 ** np.arange(-6, 7)
    numbers = next((values for span, values in steps.items() if high / low < span), wide)
    return [float(round(value, 6)) for value in numbers if low <= value <= high]
