"""Draw the curves of a report: training, precision and recall, F1, calibration."""

import io
import math
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from .angle_curve import COLOURS, INK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes

Points = tuple[Sequence[float], Sequence[float]]
NAMED = 10  # most classes that a legend names
LEGEND = 7  # most lines of a legend inside the axes


@contextmanager
def drawn(title: str, *, size: tuple[float, float] = (4.8, 3.4)) -> 'Iterator[tuple[Axes, io.BytesIO]]':
    """Give axes to draw into, and a stream that holds the PNG file afterwards."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=160, layout='constrained')
    FigureCanvasAgg(figure)
    axes, file = figure.subplots(), io.BytesIO()
    axes.set_title(title, fontsize=10, color=INK, loc='left')
    axes.tick_params(labelsize=9, colors=INK)
    axes.set_axisbelow(True)
    yield axes, file
    figure.savefig(file, format='png', metadata={'Software': None})


def lines_figure(
    curves: Mapping[str, Points], *, title: str, x: str, y: str = '', log: bool = False, marker: str = ''
) -> bytes:
    """Draw named curves over a common axis.

    Args:
        curves: Positions and values by name; values that are not finite leave gaps.
        title, x, y: Texts.
        log: Use a logarithmic vertical axis if all values are positive.
        marker: Matplotlib's name of a marker.

    Returns:
        A PNG file.
    """
    with drawn(title) as (axes, file):
        for i, (name, (places, values)) in enumerate(curves.items()):
            style = '-' if i < len(COLOURS) else '--'
            dot = marker or ('o' if len(places) == 1 else '')
            colour = COLOURS[i % len(COLOURS)]
            axes.plot(places, values, style, marker=dot, markersize=4, linewidth=1.4, color=colour, label=name)
        every = [value for _, values in curves.values() for value in values if math.isfinite(value)]
        if log and every and min(every) > 0:
            axes.set_yscale('log')
        axes.set_xlabel(x, fontsize=10)
        axes.set_ylabel(y, fontsize=10)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, ncols=1 + len(curves) // LEGEND)
    return file.getvalue()


def class_curves_figure(
    classes: Mapping[str, Points],
    together: Points,
    *,
    title: str,
    x: str,
    y: str,
    mark: tuple[float | None, float | None, str] | None = None,
) -> bytes:
    """Draw a curve for each class and a thick one for all, between 0 and 1.

    Args:
        classes: Positions and values by name of the class; only the first `NAMED` have a colour and a name each.
        together: That of all classes.
        title, x, y: Texts.
        mark: Position, value and text of a point on the thick curve.

    Returns:
        A PNG file.
    """
    with drawn(title) as (axes, file):
        for i, (name, points) in enumerate(classes.items()):
            known = i < NAMED
            colour, style = (COLOURS[i % len(COLOURS)], '-' if i < len(COLOURS) else '--') if known else ('0.75', '-')
            label = name if known else '_' if i > NAMED else 'other classes'
            axes.plot(*points, style, color=colour, linewidth=1.1, label=label, zorder=3 if known else 2)
        axes.plot(*together, color=INK, linewidth=2.4, label='all classes', zorder=4)
        place, height, text = mark or (None, None, '')
        if place is not None and height is not None and math.isfinite(place + height):
            axes.plot(place, height, 'o', color=INK, markersize=7, markeredgecolor='white', zorder=5, label=text)
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), xlabel=x, ylabel=y)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, loc='center left', bbox_to_anchor=(1.0, 0.5), frameon=False)
    return file.getvalue()


def reliability_figure(bins: Sequence[Mapping[str, Any]], *, title: str) -> bytes:
    """Draw the precision of detections over their score; the numbers above the bars count detections.

    Args:
        bins: With `low`, `high`, `count`, `score` and `precision`.
        title: Title of the figure.

    Returns:
        A PNG file.
    """
    with drawn(title) as (axes, file):
        axes.plot([0, 1], [0, 1], '--', color='0.5', linewidth=1, label='calibrated')
        full = [one for one in bins if one['count']]
        low, high, height = (np.array([one[key] for one in full]) for key in ('low', 'high', 'precision'))
        axes.bar(low, height, high - low, align='edge', color=COLOURS[0], alpha=0.35, edgecolor=COLOURS[0])
        axes.plot(
            [one['score'] for one in full], height, 'o', color=COLOURS[0], markersize=5, label='precision at mean score'
        )
        for one in full:
            place = (one['low'] + one['high']) / 2, one['precision'] + 0.015
            axes.text(*place, f'{one["count"]:,}', ha='center', fontsize=7, color=INK)
        axes.set(xlim=(0, 1), ylim=(0, 1.08), xlabel='score', ylabel='precision')
        axes.legend(fontsize=8, loc='upper left')
    return file.getvalue()


def quantile_figure(levels: Sequence[float], found: Mapping[str, Sequence[float]], *, title: str) -> bytes:
    """Draw the fraction of residuals below each predicted quantile, one curve for each coordinate.

    Args:
        levels: (L,) probabilities.
        found: (L,) fractions by name of the coordinate.
        title: Title of the figure.

    Returns:
        A PNG file.
    """
    with drawn(title) as (axes, file):
        axes.plot([0, 1], [0, 1], '--', color='0.5', linewidth=1, label='calibrated')
        for i, (name, values) in enumerate(found.items()):
            axes.plot(levels, values, 'o-', color=COLOURS[i % len(COLOURS)], markersize=3, linewidth=1.2, label=name)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel='predicted probability', ylabel='fraction of residuals below')
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return file.getvalue()
