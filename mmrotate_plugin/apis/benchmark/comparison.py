"""Compare the ratios of two benchmarks: which differ by more than their noise."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...utils.errors import UsageError

SIGNIFICANCE = 0.01  # probability of a rank sum as extreme by chance
SETTINGS = ('device', 'gpu', 'cpu', 'threads', 'depth', 'base_channels', 'versions')
Row = Mapping[str, Any]


def compare(old: Sequence[Row], new: Sequence[Row], *, least: float = 0.03) -> list[dict[str, Any]]:
    """Compare the rows that both have.

    Ratios of pairs are compared by Wilcoxon's rank sum: a change counts if chance would give one as extreme in less
    than 1 of 100 comparisons, and if it is at least `least`, as two processes differ by their addresses too. Sizes have
    no such noise; there a change counts if it exceeds `least` and the ranges do not overlap.

    Args:
        old, new: Rows of `benchmark.json`.
        least: Smallest relative change that counts.

    Returns:
        For each row: 'measure', 'network', 'baseline', 'old' and 'new' (ratios), 'change' (their quotient) and
        'verdict': 'slower', 'faster', 'larger', 'smaller', 'within noise', or 'too few pairs' to tell.

    Raises:
        UsageError: If no row is in both.
    """
    before = {_key(row): row for row in old}
    found = []
    for row in new:
        if _key(row) in before:
            a, b = (_ratios(each) for each in (before[_key(row)], row))
            change = float(np.median(b) / np.median(a))
            verdict = _verdict(a, b, change, least, sizes=row['unit'] == 'byte')
            names = {name: row[name] for name in ('measure', 'network', 'baseline')}
            found.append({**names, 'old': np.median(a), 'new': np.median(b), 'change': change, 'verdict': verdict})
    if not found:
        raise UsageError('--compare: no measure is in both benchmarks; the same networks, sizes and measures would do')
    return found


def regressions(compared: Sequence[Row]) -> list[str]:
    """Say what became slower or larger, one line each."""
    return [
        f'{row["measure"]}, {row["network"]} / {row["baseline"]}: {row["verdict"]}, '
        f'{row["old"]:.3f} to {row["new"]:.3f}'
        for row in compared
        if row['verdict'] in ('slower', 'larger')
    ]


def differing_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Name the settings in which two benchmarks differ, as far as both tell them."""
    return [name for name in SETTINGS if name in old and name in new and old[name] != new[name]]


def _verdict(a: np.ndarray, b: np.ndarray, change: float, least: float, *, sizes: bool) -> str:
    small = max(change, 1 / change) < 1 + least
    if sizes:
        apart = a.max() < b.min() or b.max() < a.min()
        return 'within noise' if small or not apart else 'larger' if change > 1 else 'smaller'
    if rank_sum(np.arange(len(a)), len(a) + np.arange(len(b))) >= SIGNIFICANCE:  # not even if none overlaps
        return 'too few pairs'
    if small or rank_sum(a, b) >= SIGNIFICANCE:
        return 'within noise'
    return 'slower' if change > 1 else 'faster'


def rank_sum(a: np.ndarray, b: np.ndarray) -> float:
    """Return the two-sided probability of Wilcoxon's rank-sum test, exact; ties count half.

    The counts of all arrangements follow Mann & Whitney (Annals of Mathematical Statistics 18, 1947): the largest of
    all values either belongs to `b`, and exceeds all of `a`, or to `a`.
    """
    m, n = len(a), len(b)
    above = float((b[:, None] > a).sum() + 0.5 * (b[:, None] == a).sum())
    counts = {(i, 0): [1] for i in range(m + 1)} | {(0, j): [1] for j in range(n + 1)}
    for i in range(1, m + 1):
        for j in range(1, n + 1):
            total = [0] * (i * j + 1)
            for u, count in enumerate(counts[i - 1, j]):
                total[u] += count
            for u, count in enumerate(counts[i, j - 1]):
                total[u + i] += count
            counts[i, j] = total
    extreme = min(above, m * n - above)
    tail = sum(count for u, count in enumerate(counts[m, n]) if u <= extreme)
    return min(1.0, 2 * tail / sum(counts[m, n]))


def _key(row: Row) -> tuple[str, str, str]:
    return row['measure'], row['network'], row['baseline']


def _ratios(row: Row) -> np.ndarray:
    return np.array([b / a for a, b in row['rounds']])
