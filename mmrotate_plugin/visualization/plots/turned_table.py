"""The table of how detections turn with the image: a row for each angle."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ...utils.table import aligned

HEAD = (
    'angle',
    'matched',
    'lost',
    'new',
    'centre (px)',
    'max',
    'size (%)',
    'max',
    'angle (deg)',
    'max',
    'score',
    'max',
)
PARTS = (('centre', 1.0), ('size', 100.0), ('angle', 1.0), ('score', 1.0))


def turned_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Format what the turns of an image did to its detections: medians, each beside its maximum.

    Args:
        rows: For each turn `degrees`, `mirrored`, `exact` (default: yes), `scale` (default: 1), `detections`,
            `matched`, `lost`, `new`, and for each of `centre` (pixels), `size` (relative), `angle` (degrees) and
            `score` a `median` and a `max`.
    """
    lines: list[tuple[str, ...]] = [HEAD]
    for row in rows:
        scale = f', x{row["scale"]:g}' if row.get('scale', 1) != 1 else ''
        name = f'{row["degrees"]:g}{", mirrored" if row["mirrored"] else ""}{scale}'
        name += '' if row.get('exact', True) else ' (disc)'
        counts = f'{row["matched"]} of {row["detections"]}', str(row['lost']), str(row['new'])
        errors = [number(factor * row[part][key]) for part, factor in PARTS for key in ('median', 'max')]
        lines.append((name, *counts, *errors))
    return aligned(lines, right=range(1, len(HEAD)))


def number(value: float) -> str:
    """Format an error with two digits; nan, of no pairs, is a dash."""
    return '-' if math.isnan(value) else '0' if value == 0 else f'{value:.1e}' if value < 0.01 else f'{value:.2g}'
