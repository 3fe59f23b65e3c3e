"""The table of an equivariance check: rows of maps, columns of errors."""

import math
from collections.abc import Mapping
from typing import TypedDict

from ...utils.table import aligned

HEAD = ('map', 'size', 'claim', 'exact turns', 'change', '45 degrees', 'change', 'mean')


class MapErrors(TypedDict):
    """Equivariance errors of one map.

    Attributes:
        group: Fiber group that the map claims, or None.
        exact: Largest error at turns that should be exact.
        at_45: Error at 45 degrees; NaN if that angle was not measured.
        mean: Mean over the circle.
        change: Least relative change of the map itself under those exact turns.
        change_at_45: The same at 45 degrees.
        curve: One error per angle.
        shape: (C, H, W).
    """

    group: str | None
    exact: float
    at_45: float
    mean: float
    change: float
    change_at_45: float
    curve: list[float]
    shape: tuple[int, ...]


def equivariance_table(rows: Mapping[str, MapErrors], plain: Mapping[str, MapErrors]) -> str:
    """Format the errors of a network and of a plain one, each next to the change of the map itself."""
    lines: list[tuple[str, ...]] = [HEAD]
    for label, part in (('', rows), ('plain ', plain)):
        for name, row in part.items():
            if name == 'image' and label:
                continue
            claim = row['group'] or ('pipeline' if name == 'image' else 'not claimed')
            size = ' x '.join(map(str, reversed(row['shape'][-2:])))
            other = [number(row['at_45']), number(row['change_at_45']), number(row['mean'])]
            if name == 'image':
                other = ['-'] * 3  # the network's input is turned by other angles after the pipeline
            lines.append((label + name, size, claim, number(row['exact']), number(row['change']), *other))
    return aligned(lines)


def number(value: float) -> str:
    """Format an error; infinite ones are of maps whose shapes differ."""
    return '-' if math.isnan(value) else 'other shape' if math.isinf(value) else f'{value:.1e}'
