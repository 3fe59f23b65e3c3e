"""Summarise the results of several training runs: means, spreads, and tables of them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..utils import table
from .method_comparison import METHODS

ROWS = tuple(row for rows in METHODS.values() for row in rows)
QUALITY = {
    'within 1σ': 'coverage_1_all', '2σ': 'coverage_2_all', '3σ': 'coverage_3_all',
    'calibration error': 'calibration_error_all', 'NLL, mean': 'nll_mean_all', 'NLL, median': 'nll_median_all',
    'PDQ': 'pdq',
}  # fmt: skip
RANKING = {
    'AUSE, box': 'ause_box', 'with score': 'ause_box_with_score', 'correlation': 'spearman_box',
    'AUSE, false': 'ause_false', 'score - σ': 'ause_false_with_score',
}  # fmt: skip


def summarise(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge trees of numbers into one, with `{'mean', 'std', 'values'}` in place of each number.

    Args:
        runs: One tree per training run, all with numbers at the same places.

    Returns:
        A tree of the same form. The standard deviation is that of the sample (0 for one run); nan is left out of both.
    """
    out = {}
    for key, value in runs[0].items():
        values = [run[key] for run in runs if key in run]
        out[key] = summarise(values) if isinstance(value, Mapping) else _spread(values)
    return out


def _spread(values: Sequence[float]) -> dict[str, Any]:
    there = np.array([value for value in values if math.isfinite(value)])
    mean = float(there.mean()) if there.size else math.nan
    std = float(there.std(ddof=1)) if there.size > 1 else (0.0 if there.size else math.nan)
    return {'mean': mean, 'std': std, 'values': list(values)}


def markdown(summary: Mapping[str, Any]) -> str:
    """Format a summary of the conditions of `Evaluation.run`: mean ± standard deviation over the training runs."""
    blocks = [_maps(summary)]
    for name, condition in summary.items():
        if 'methods' in condition:
            blocks.append(f'### {name}, detector told {condition["noise_std"]["mean"]:g} grey levels')
            blocks += [_ratios(condition['methods']), _quality(condition['methods']), _ranking(condition['methods'])]
    return '\n\n'.join(block for block in blocks if block) + '\n'


def _maps(summary: Mapping[str, Any]) -> str:
    return table.markdown([['condition', 'mAP'], *([name, cell(part['map'])] for name, part in summary.items())])


def _ratios(methods: Mapping[str, Any]) -> str:
    rows, names = [], []
    for row in ROWS:
        numbers = {key[6:]: value for key, value in methods.get(row, {}).get('raw', {}).items() if key[:6] == 'ratio_'}
        if numbers and row != 'monte_carlo':
            rows.append([row, *map(cell, numbers.values())])
            names = list(numbers)
    return table.markdown([['median σ over that of Monte Carlo', *names], *rows]) if rows else ''


def _quality(methods: Mapping[str, Any]) -> str:
    rows = [['boxes', *QUALITY]]
    for kind in ('raw', 'fitted'):
        for row in ROWS:
            numbers = methods.get(row, {}).get(kind)
            if numbers and (row, kind) != ('confidence', 'raw'):
                label = row if kind == 'raw' else f'{row}, error fitted'
                rows.append([label, *(cell(numbers[key]) for key in QUALITY.values())])
    return table.markdown(rows)


def _ranking(methods: Mapping[str, Any]) -> str:
    rows = []
    for row in ROWS:
        raw, fitted = (methods.get(row, {}).get(kind) for kind in ('raw', 'fitted'))
        if row == 'confidence' and raw:
            cells = [cell(raw['ause_box_by_score']), '', '', cell(raw['ause_false_by_score']), '', '']
        elif raw:
            cells = [cell(raw[key]) for key in RANKING.values()] + [cell(fitted['ause_box']) if fitted else '']
        else:
            continue
        rows.append([row, *cells])
    if not rows:
        return ''
    some = next(iter(methods.values()))['raw']
    rows.append(['no ranking', cell(some['ause_box_random']), '', '', cell(some['ause_false_random']), '', ''])
    return table.markdown([['ranking', *RANKING, 'AUSE, box, error fitted'], *rows])


def cell(number: Mapping[str, Any]) -> str:
    """Format mean ± spread: three decimals below 1, two below 10, else one."""
    mean, std = number['mean'], number['std']
    if not math.isfinite(mean):
        return 'none'
    if abs(mean) >= 1000:
        return f'{mean:.1e}'
    digits = 3 if abs(mean) < 1 else 2 if abs(mean) < 10 else 1
    return f'{mean:.{digits}f}' + (f' ± {std:.{digits}f}' if len(number['values']) > 1 else '')
