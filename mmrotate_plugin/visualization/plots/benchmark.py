"""Report a benchmark: rows of ratios as a table of text, as a page of Markdown, and as a figure.

A row is a dict of ``measure``, ``network``, ``baseline`` (texts), ``unit`` ('s', 'byte' or 'x', a factor), ``value``
and ``baseline_value`` (medians), ``rounds`` (pairs of values: baseline, network), ``ratio`` and ``quartiles`` (median
and quartiles of the ratios of these pairs).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...utils.atomic_files import write_whole
from ...utils.table import aligned, markdown
from ..pixels import encode_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEAD = ('measure', 'network', 'value', 'baseline', 'its value', 'ratio', 'quartiles')
PANELS = (('build',), ('train', 'eval'), ('detect',), ('memory', 'checkpoint'))  # measures that share an axis
MARKERS = ('<!-- benchmark {}: written by tools/benchmark.py -->', '<!-- end of benchmark {} -->')

Row = Mapping[str, Any]


def quantity(value: float, unit: str) -> str:
    """Format a number with three digits and its unit."""
    if unit == 'byte':
        return f'{value / 2**20:.3g} MiB' if value < 1000 * 2**20 else f'{value / 2**30:.3g} GiB'
    if unit == 's':
        return f'{value:.3g} s' if value >= 1 else f'{value * 1000:.3g} ms'
    return f'{value:.3g} x'


def cells(row: Row) -> tuple[str, ...]:
    """Return the texts of a row, in the order of `HEAD`."""
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


def subject(about: Mapping[str, Any]) -> str:
    """Say what was measured: networks of one kind, or configs."""
    if 'configs' in about:
        return ', '.join(about['configs'])
    return f'ResNet-{about["depth"]} of base_channels={about["base_channels"]}'


def as_text(rows: Sequence[Row]) -> str:
    """Format the table for a terminal."""
    return aligned([HEAD, *map(cells, rows)])


def as_markdown(rows: Sequence[Row], about: Mapping[str, Any]) -> str:
    """Format the table for a page, below what is needed to repeat the benchmark.

    Args:
        rows: See the module.
        about: 'date', 'command', 'cpu', 'gpu', 'cores', 'load', 'threads', 'depth', 'base_channels', 'rounds',
            'processes', 'errors' (relative, of networks claimed to be equal), 'left_out', 'imports' and 'versions'. Of
            whole configs, 'configs' (their names) in place of depth and base_channels.
    """
    where = about['gpu'] or f'{about["cpu"]}, {about["cores"]} cores'
    lines = [
        f'- {about["date"]}, {subject(about)}',
        f'- {where}; threads: {about["threads"]}; load average at the start {about["load"]:.1f}',
        f'- {", ".join(f"{name} {version}" for name, version in about["versions"].items())}',
        f'- rounds: {about["rounds"]}; new processes per network, for first build and memory: {about["processes"]}',
        f'- `{about["command"]}`',
    ]
    if about['errors']:
        checked = ', '.join(f'{name} {error:.0e}' for name, error in about['errors'].items())
        lines.append(f'- relative errors of what is claimed to be equal: {checked}')
    lines += [f'- {name} left out: {reason}' for name, reason in about['left_out'].items()]
    if about['imports']:
        e2cnn, rest = about['imports']['import_e2cnn'], about['imports']['import']
        lines.append(f'- not in the first build: importing e2cnn ({e2cnn:.1f} s) and what is above it ({rest:.1f} s)')
    return '\n'.join([*lines, '', markdown([HEAD, *map(cells, rows)])]) + '\n'


def write_into(page: Path, text: str, name: str) -> Path:
    """Replace what stands between the markers of that name in a page.

    Raises:
        ValueError: If the page does not have each marker once.
        OSError: If the page cannot be read or written.
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
        rows: See the module.
        about: As for `as_markdown`.
        dpi: Dots per inch.

    Returns:
        A PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    networks = list(dict.fromkeys(row['network'] for row in rows))
    panels: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        name = next(names[0] for names in PANELS if row['measure'].startswith(names))
        panels.setdefault(name, {}).setdefault(row['measure'], []).append(row)
    heights = [sum(map(len, panel.values())) + len(panel) + 2 for panel in panels.values()]
    drawn = Figure(figsize=(9, 0.24 * sum(heights) + 0.6), dpi=dpi, layout='constrained')
    canvas = FigureCanvasAgg(drawn)
    where = about['gpu'] or f'CPU, {about["threads"]} thread{"s" * (about["threads"] > 1)}'
    title = f'{subject(about)}, {where}, {about["date"]}'
    drawn.suptitle(title, fontsize=11)
    axes = drawn.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
    for axis, panel in zip(axes, panels.values(), strict=True):
        _draw_panel(axis, panel, networks)
    axes[-1].set_xlabel('ratio to the baseline (log scale); below 1 is faster or smaller')
    canvas.draw()  # `savefig` would draw twice
    return encode_image(np.asarray(canvas.buffer_rgba())[..., 2::-1])


def _draw_panel(axis: 'Axes', measures: Mapping[str, Sequence[Row]], networks: Sequence[str]) -> None:
    """Draw rows below the names of what they measure, on an axis of their own."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    across = axis.get_yaxis_transform()
    y, places, labels, ratios = -1, [], [], [0.9, 1.1]
    for measure, rows in measures.items():
        y += 1
        axis.axhspan(y - 0.5, y + 0.5, color='0.95', zorder=0)
        axis.text(0.005, y, measure, transform=across, va='center', fontsize=9, weight='bold')
        for row in rows:
            y += 1
            colour = f'C{networks.index(row["network"]) % 10}'
            values = [b / a for a, b in row['rounds']]
            axis.plot(values, [y] * len(values), 'o', color=colour, markersize=4, alpha=0.35, markeredgewidth=0)
            axis.plot(row['quartiles'], [y, y], color=colour, linewidth=3, solid_capstyle='butt')
            axis.plot(row['ratio'], y, '|', color='black', markersize=10, markeredgewidth=1.6)
            axis.text(1.01, y, f'{row["ratio"]:.3f}', transform=across, va='center', fontsize=9)
            places.append(y)
            labels.append(f'{row["network"]} / {row["baseline"]}')
            ratios += values
    low, high = min(ratios) / 1.03, max(ratios) * 1.03
    axis.axvline(1, color='0.3', linewidth=0.9, zorder=1)
    axis.set_xscale('log')
    axis.set_xlim(low, high)
    axis.set_ylim(y + 0.6, -0.6)
    axis.set_yticks(places, labels, fontsize=9)
    axis.xaxis.set_major_locator(FixedLocator(_round_numbers(low, high)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
    axis.tick_params(axis='x', labelsize=9)
    axis.grid(axis='x', alpha=0.3)


def _round_numbers(low: float, high: float) -> list[float]:
    """Choose about four to twelve round numbers in a range, for a log scale."""
    if high / low < 1.6:
        numbers = np.arange(0.05, 20, 0.05)
    elif high / low < 4:
        numbers = np.arange(0.2, 20, 0.2)
    else:
        steps = (1, 2, 5) if high / low < 1000 else (1,)
        numbers = np.outer(10.0 ** np.arange(-6, 7), steps).ravel()
    return [round(float(number), 6) for number in numbers if low <= number <= high]
