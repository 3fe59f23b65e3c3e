"""Draw the counts of a report: the confusion matrix, and found and missed objects in groups."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .angle_curve import COLOURS, INK
from .report_curves import drawn

NUMBERED = 20  # most classes whose cells have numbers
UNITS = {'size': 'root of the area (pixels)', 'aspect_ratio': 'long side / short side', 'angle': 'long side (degrees)'}


def confusion_figure(matrix: Sequence[Sequence[int]], classes: Sequence[str], *, title: str) -> bytes:
    """Draw a confusion matrix; colours are shares of a row, numbers are counts.

    Args:
        matrix: (C + 1, C + 1), rows of objects, columns of detections, background last.
        classes: (C,) names.
        title: Title of the figure.

    Returns:
        A PNG file.
    """
    counts = np.asarray(matrix, dtype=np.float64)
    names = [*(name if len(name) <= 18 else name[:17] + '…' for name in classes), 'background']
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(11.0, 2.6 + 0.42 * len(names))
    with drawn(title, size=(side + 0.6, side)) as (axes, file):
        axes.imshow(share, cmap='Blues', vmin=0, vmax=1)
        turned = 0 if len(names) <= 3 else 90
        axes.set_xticks(range(len(names)), names, rotation=turned, fontsize=8)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set_xlabel('detection')
        axes.set_ylabel('object')
        for i, j in zip(*np.nonzero(counts), strict=True) if len(names) <= NUMBERED + 1 else ():
            colour = 'white' if share[i, j] > 0.6 else INK
            axes.text(j, i, f'{counts[i, j]:.0f}', ha='center', va='center', fontsize=7, color=colour)
    return file.getvalue()


def groups_figure(name: str, groups: Sequence[Mapping[str, Any]], *, title: str) -> bytes:
    """Draw found and missed objects and false detections in groups.

    Args:
        name: One of `UNITS`.
        groups: With `low`, `high`, `objects`, `found`, `false`.
        title: Title of the figure.

    Returns:
        A PNG file.
    """
    place = np.arange(len(groups))
    found = np.array([group['found'] for group in groups])
    missed = np.array([group['objects'] for group in groups]) - found
    with drawn(title) as (axes, file):
        axes.bar(place - 0.2, found, 0.38, color=COLOURS[0], label='found')
        axes.bar(place - 0.2, missed, 0.38, bottom=found, color=COLOURS[1], label='missed')
        axes.bar(place + 0.2, [group['false'] for group in groups], 0.38, color='0.65', label='false detections')
        axes.set_xticks(place, [range_text(group['low'], group['high']) for group in groups])
        axes.set_xlabel(UNITS[name])
        axes.set_ylabel('number')
        axes.grid(axis='y', alpha=0.3)
        axes.legend(fontsize=8)
    return file.getvalue()


def range_text(low: float, high: float | None) -> str:
    """Name a range; None and infinity have no end."""
    return f'{low:g} and more' if high is None or high == float('inf') else f'{low:g} to {high:g}'
