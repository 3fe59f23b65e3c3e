"""Read the curves of a training from the files of mmengine's LocalVisBackend."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

POINTS = 1000  # of a curve
OWN = 'equivariance/'  # the names of EquivarianceHook
NO_CURVE = {'epoch', 'iter', 'step'}

Curve = dict[str, list[float]]


def read_scalars(work_dir: Path) -> dict[str, dict[str, Curve]]:
    """Read the scalars of a work directory, of all its runs in the order of time.

    A run that resumes an earlier one goes on with its curves; one that starts anew replaces them from its first
    iteration on. Runs without training iterations (tests) and lines that are cut off are left out.

    Args:
        work_dir: With ``TIME/vis_data/scalars.json``.

    Returns:
        By 'train', 'val' and 'equivariance', then by name: `step`, iterations, and `value`, at most `POINTS` of each.
    """
    found: dict[str, dict[str, list[tuple[int, float]]]] = {'train': {}, 'val': {}, 'equivariance': {}}
    for file in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        records = list(_records(file))
        first = next((record['iter'] for record in records if 'iter' in record), None)
        if first is None:
            continue
        for curves in found.values():
            for name, points in curves.items():
                curves[name] = [point for point in points if point[0] < first]
        now = 0
        for record in records:
            kind = 'val'
            if 'iter' in record:
                kind, now = 'train', int(record['iter'])
            elif any(name.startswith(OWN) for name in record):
                kind, now = 'equivariance', int(record.get('step', now))
            for name, value in record.items():
                if name not in NO_CURVE and isinstance(value, (int, float)) and not isinstance(value, bool):
                    found[kind].setdefault(name, []).append((now, float(value)))
    return {kind: {name: _curve(points) for name, points in curves.items() if points} for kind, curves in found.items()}


def _records(file: Path) -> Iterator[dict[str, Any]]:
    for line in file.read_text(encoding='utf-8', errors='replace').splitlines():
        try:
            record = json.loads(line)
        except ValueError:  # a run that was killed while it wrote
            continue
        if isinstance(record, dict):
            yield record


def _curve(points: list[tuple[int, float]]) -> Curve:
    rows = np.unique(np.linspace(0, len(points) - 1, min(POINTS, len(points))).round().astype(int))
    return {'step': [points[i][0] for i in rows], 'value': [points[i][1] for i in rows]}
