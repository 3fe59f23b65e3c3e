import math

import numpy as np
import pytest

from mmrotate_plugin.datasets.transforms.corruptions import Corruption
from mmrotate_plugin.evaluation.method_comparison import METHODS, Plan, judge, ratios, without_deviations
from mmrotate_plugin.evaluation.method_tables import markdown, summarise

COUNT, IMAGES = 20, 6
ERROR = np.array([0.3, 0.3, 0.4, 0.4, 0.02])


def record(seed, count=COUNT):
    """An image of boxes far from each other, found with errors of a known deviation, and as many false detections."""
    rng = np.random.default_rng(seed)
    place = np.stack([np.arange(count) * 100.0, np.zeros(count)], 1)
    truth = np.column_stack([place, np.full((count, 2), [30.0, 12.0]), rng.uniform(-0.5, 0.5, count)])
    std = ERROR * rng.uniform(0.3, 2, (count, 1))
    found = truth + std * rng.standard_normal((count, 5))
    false = truth + [0, 500, 0, 0, 0]
    scores = np.concatenate([rng.uniform(0.5, 1, count), rng.uniform(0.1, 0.6, count)])
    return {
        'bboxes': np.concatenate([found, false]), 'bboxes_std': np.concatenate([std, std]), 'scores': scores,
        'scores_std': np.full(2 * count, 0.01), 'labels': np.zeros(2 * count),
        'gt_bboxes': truth, 'gt_labels': np.zeros(count), 'gt_ignored': np.zeros(count, dtype=bool),
    }  # fmt: skip


@pytest.fixture
def records():
    return [record(seed) for seed in range(IMAGES)]


def scaled(records, factor):
    return [r | {'bboxes_std': r['bboxes_std'] * factor, 'scores_std': r['scores_std'] * factor} for r in records]


def test_right_deviations_are_right_and_wrong_ones_are_mended(records):
    n = 5 * COUNT * IMAGES
    tolerance = 5 * math.sqrt(0.683 * 0.317 / n)
    right, wrong = judge(records, records), judge(scaled(records, 0.1), records)
    assert right['raw']['coverage_1_all'] == pytest.approx(0.683, abs=tolerance)
    assert right['raw']['ratio_angle'] == right['raw']['ratio_score'] == 1
    assert wrong['raw']['coverage_1_all'] < 0.2
    assert wrong['raw']['ratio_cx'] == pytest.approx(0.1) == wrong['raw']['ratio_score']
    # the other half's error brings both to the same place
    assert wrong['fitted']['coverage_1_all'] == pytest.approx(0.683, abs=1.5 * tolerance)
    assert wrong['fitted']['nll_mean_all'] == pytest.approx(right['fitted']['nll_mean_all'], abs=1e-6)
    assert wrong['fitted']['nll_mean_all'] < wrong['raw']['nll_mean_all'] - 1


def test_confidence_alone_has_one_error_for_all(records):
    alone = judge([without_deviations(r) for r in records], None)
    right = judge(records, None)
    assert 'ratio_cx' not in alone['raw']
    assert alone['raw']['ause_box'] == pytest.approx(alone['raw']['ause_box_random'])
    # one deviation for all is a worse likelihood, and no ranking
    assert alone['fitted']['nll_mean_all'] > right['fitted']['nll_mean_all'] + 0.05
    assert right['raw']['ause_box'] < 0.8 * right['raw']['ause_box_random']
    assert right['raw']['ause_false_by_score'] == alone['raw']['ause_false_by_score']


def test_score_and_deviation_together(records):
    """A lower bound of the score ranks better where the deviation of false detections is larger, and only there."""
    doubtful = [r | {'scores_std': np.where(r['bboxes'][:, 1] > 250, 0.2, 0.01)} for r in records]
    raw = judge(doubtful, None)['raw']
    assert raw['ause_false_with_score'] < 0.7 * raw['ause_false_by_score']
    same = judge(records, None)['raw']
    assert same['ause_false_with_score'] == pytest.approx(same['ause_false_by_score'])


def test_one_image_has_no_other_half(records):
    assert set(judge(records[:1], records)) == {'raw'}


def test_ratios_leave_out_what_does_not_move(records):
    truth = scaled(records, 1)
    for r in truth:
        r['bboxes_std'][:, 4] = 0
        r['bboxes_std'][::3, 0] = 0
    found = ratios(scaled(records, 1.2), truth)
    assert math.isnan(found['ratio_angle']) and found['ratio_cx'] == pytest.approx(1.2)


def condition(records, factor):
    return {'clean': {'map': 0.8 * factor}, 'gaussian:8': {
        'noise_std': 8.0, 'map': 0.7, 'methods': {
            'confidence': judge([without_deviations(r) for r in records], None),
            'propagated': judge(scaled(records, factor), records),
            'monte_carlo': judge(records, records)}}}  # fmt: skip


def test_tables_hold_means_and_spreads(records):
    records = records[:2]
    summary = summarise([condition(records, 1.0), condition(records, 0.8)])
    number = summary['gaussian:8']['methods']['propagated']['raw']['ratio_w']
    assert number['values'] == pytest.approx([1, 0.8]) and number['mean'] == pytest.approx(0.9)
    assert number['std'] == pytest.approx(0.2 / math.sqrt(2))
    text = markdown(summary)
    assert '| clean | 0.720 ± 0.113 |' in text and '### gaussian:8, detector told 8 grey levels' in text
    assert '| propagated | 0.900 ± 0.141 |' in text and '| propagated, error fitted |' in text
    assert all(len({line.count('|') for line in block.splitlines()}) == 1 for block in text.split('\n\n'))
    assert '±' not in markdown(summarise([{'clean': {'map': 0.8}}]))


@pytest.mark.parametrize('options, text', [
    (dict(methods=('magic',)), "method 'magic' is unknown: use some of confidence"),
    (dict(num_images=2), 'num_images=2 must be 4 or more'),
    (dict(num_jacobian=99), 'num_jacobian=99 must be from 1 to num_images=24'),
])  # fmt: skip
def test_wrong_plans(options, text):
    with pytest.raises(ValueError, match=text):
        Plan((Corruption('gaussian', 8),), **options)


def test_noise_is_told_and_other_corruptions_are_assumed():
    plan = Plan((), assumed_noise=5.0)
    assert plan.told(Corruption('impulse', 9)) == 9 and plan.told(Corruption('blur', 1)) == 5
    assert set(plan.methods) == set(METHODS) and plan.as_dict()['corruptions'] == []
