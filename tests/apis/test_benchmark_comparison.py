"""Two benchmarks are compared by an exact rank test, and files of another kind are refused."""

from itertools import combinations

import numpy as np
import pytest

from mmrotate_plugin.apis.benchmark.comparison import compare, rank_sum, regressions
from mmrotate_plugin.utils.errors import UsageError


def row(ratios, *, unit='s', measure='train'):
    return {
        'measure': measure,
        'network': 'C8',
        'baseline': 'plain',
        'unit': unit,
        'rounds': [(1.0, float(r)) for r in ratios],
    }


def test_the_rank_sum_is_exact():
    """Against all ways of dealing the values out."""
    values = np.array([3.0, 1.0, 4.0, 1.5, 9.0, 2.6, 5.3])
    for chosen in ((0, 1, 2), (1, 3, 5), (2, 4, 6)):
        a, b = values[list(chosen)], np.delete(values, chosen)

        def above(places):
            x, y = values[list(places)], np.delete(values, places)
            return int((y[:, None] > x).sum())

        counts = np.array([above(places) for places in combinations(range(7), 3)])
        extreme = min(above(chosen), 12 - above(chosen))
        assert rank_sum(a, b) == pytest.approx(min(1, 2 * (counts <= extreme).mean()))
    assert rank_sum(np.arange(7.0), np.arange(7.0)) == 1


@pytest.mark.parametrize(
    ('old', 'new', 'verdict'),
    [
        (np.linspace(1, 1.1, 7), np.linspace(1.2, 1.3, 7), 'slower'),
        (np.linspace(1.2, 1.3, 7), np.linspace(1, 1.1, 7), 'faster'),
        (np.linspace(1, 1.3, 7), np.linspace(1.05, 1.35, 7), 'within noise'),
        (np.linspace(1, 1.001, 7), np.linspace(1.01, 1.011, 7), 'within noise'),  # apart, but by less than 3 %
        (np.linspace(1, 1.1, 3), np.linspace(2, 2.1, 3), 'too few pairs'),
    ],
)
def test_times(old, new, verdict):
    (found,) = compare([row(old)], [row(new), row(new, measure='eval')])
    assert found['verdict'] == verdict
    assert found['change'] == pytest.approx(np.median(new) / np.median(old))
    assert len(regressions([found])) == (verdict == 'slower')


@pytest.mark.parametrize(('new', 'verdict'), [([1.1], 'larger'), ([0.9], 'smaller'), ([1.02], 'within noise')])
def test_sizes_need_no_pairs(new, verdict):
    (found,) = compare([row([1.0, 1.0], unit='byte')], [row(new, unit='byte')])
    assert found['verdict'] == verdict
    assert compare([row([1.0, 1.2], unit='byte')], [row([1.15], unit='byte')])[0]['verdict'] == 'within noise'


def test_nothing_in_common():
    with pytest.raises(UsageError, match='no measure is in both'):
        compare([row([1.0])], [row([1.0], measure='eval')])
