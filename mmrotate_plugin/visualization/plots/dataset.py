"""Draw what a data set holds: objects by class, sizes, aspect ratios, angles, objects per image."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from .angle_curve import COLOURS, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DPI = 110
BINS = 30
MOST = 60  # classes in a figure
Values = Mapping[str, ArrayLike]  # of each part of the data, by its name


def class_figure(counts: Mapping[str, Sequence[int]], classes: Sequence[str]) -> bytes:
    """Draw the number of objects of each class as bars, one for each part of the data.

    Args:
        counts: For each part, the number of objects of each class.
        classes: Names; of more than sixty, the most frequent ones are drawn.

    Returns:
        A PNG file.
    """
    total = np.sum([list(values) for values in counts.values()], axis=0)
    order = np.argsort(-total, kind='stable')[:MOST]
    figure, axes = _figure(height=0.9 + 0.28 * len(order) * max(1, 0.6 * len(counts)))
    high, width = max(1, int(total.max(initial=1))), 0.8 / len(counts)
    for number, (name, values) in enumerate(counts.items()):
        there = np.asarray(values)[order]
        places = np.arange(len(order)) + (number - (len(counts) - 1) / 2) * width
        axes.barh(places, there, width, color=COLOURS[number % len(COLOURS)], label=name)
        for place, value in zip(places.tolist(), there.tolist(), strict=True):
            axes.annotate(f'{value}', (value, place), (3, 0), textcoords='offset points', va='center', fontsize=7.5)
    least = min((value for value in total[order].tolist() if value), default=1)
    if high > 50 * least:
        axes.set_xscale('symlog', linthresh=1)
        axes.set_xlim(0, 4 * high)
    else:
        axes.set_xlim(0, 1.15 * high)
    axes.set_yticks(np.arange(len(order)), [_short(classes[i]) for i in order.tolist()])
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.set_xlabel('objects')
    return _finish(figure, axes, len(counts))


def histogram(values: Values, *, label: str, logarithmic: bool = False) -> bytes:
    """Draw the distribution of a number in each part of the data, as shares.

    Args:
        values: (N,) numbers of each part. Those not finite, or not above 0 on a logarithmic axis, are left out.
        label: Of the horizontal axis.
        logarithmic: Whether the axis is.

    Returns:
        A PNG file.
    """
    kept = {name: np.asarray(part, np.float64) for name, part in values.items()}
    kept = {name: part[np.isfinite(part) & (part > 0 if logarithmic else True)] for name, part in kept.items()}
    everything = np.concatenate([*kept.values(), np.zeros(0)])
    figure, axes = _figure()
    if len(everything):
        low, high = float(everything.min()), float(everything.max())
        if logarithmic:
            low, high = (low / 1.2, high * 1.2) if high <= 1.01 * low else (low, high)
            edges = np.geomspace(low, high, BINS + 1)
            axes.set_xscale('log')
            axes.set_xlim(low, high)
            _plain_ticks(axes, low, high)
        else:
            edges = np.linspace(low - 0.5, high + 0.5, min(BINS, int(high - low) + 1) + 1)
        for number, (name, part) in enumerate(kept.items()):
            shares = np.histogram(part, edges)[0] / max(1, len(part))
            axes.stairs(100 * shares, edges, fill=True, alpha=0.18, color=COLOURS[number % len(COLOURS)])
            axes.stairs(100 * shares, edges, color=COLOURS[number % len(COLOURS)], linewidth=1.8, label=name)
        axes.set_ylim(0)
    axes.set_xlabel(label)
    axes.set_ylabel('share, %')
    return _finish(figure, axes, len(kept))


def angle_figure(degrees: Values) -> bytes:
    """Draw the distribution of the directions of the boxes on a half circle, as seen in the image.

    Args:
        degrees: (N,) angles of each part, in [-90, 90), clockwise as the image is seen.

    Returns:
        A PNG file.
    """
    edges = np.radians(np.arange(-90, 91, 10))
    figure, axes = _figure(polar=True)
    polar: Any = axes
    polar.set_theta_direction(-1)  # clockwise, as the image is seen
    polar.set_thetalim(-np.pi / 2, np.pi / 2)
    for number, (name, part) in enumerate(degrees.items()):
        part = np.asarray(part, np.float64)
        shares = np.histogram(np.radians(part), edges)[0] / max(1, len(part))
        around = np.repeat(edges, 2)[1:-1]
        axes.fill_between(around, 100 * np.repeat(shares, 2), alpha=0.18, color=COLOURS[number % len(COLOURS)])
        axes.plot(around, 100 * np.repeat(shares, 2), color=COLOURS[number % len(COLOURS)], linewidth=1.8, label=name)
    axes.set_xticks(np.radians(np.arange(-90, 91, 30)))
    axes.set_ylim(0)
    axes.set_title('direction of the longer side, share in %', fontsize=10, color=INK)
    return _finish(figure, axes, len(degrees))


def _figure(height: float = 3.4, *, polar: bool = False) -> tuple[Any, 'Axes']:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, height), dpi=DPI, layout='constrained')
    FigureCanvasAgg(figure)
    return figure, figure.subplots(subplot_kw={'projection': 'polar'} if polar else None)


def _finish(figure: Any, axes: 'Axes', parts: int) -> bytes:
    axes.tick_params(labelsize=9, colors=INK)
    axes.grid(color='0.9', linewidth=0.8)
    axes.set_axisbelow(True)
    if parts > 1:
        legend = figure.legend if axes.name == 'polar' else axes.legend
        legend(fontsize=9, frameon=False, loc='upper left' if axes.name == 'polar' else 'best')
    for side in ('top', 'right'):
        if side in axes.spines:
            axes.spines[side].set_visible(False)
    file = io.BytesIO()
    figure.savefig(file, format='png', metadata={'Software': None})
    return file.getvalue()


def _plain_ticks(axes: 'Axes', low: float, high: float) -> None:
    """Write 2, 5, 10, 20 in place of powers of ten."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

    steps = [m * 10.0**e for e in range(-3, 7) for m in (1, 2, 5)]
    axes.xaxis.set_major_locator(FixedLocator([step for step in steps if low <= step <= high]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _short(name: str) -> str:
    # a dollar sign would begin a formula
    return (name if len(name) <= 24 else f'{name[:22]}...').replace('$', r'\$')
