import math

import cv2
import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.registry import METRICS as ROOT
from mmengine.structures import BaseDataElement, InstanceData
from scipy import stats

from mmrotate_plugin.evaluation.functional.box_residuals import IGNORED, UNMATCHED, box_ious, match_boxes
from mmrotate_plugin.evaluation.functional.calibration_scores import (
    box_residuals,
    box_uncertainty,
    calibration_error,
    coverage,
    negative_log_likelihood,
    pdq,
    pearson,
    score_calibration_error,
    sparsification_error,
    spearman,
)
from mmrotate_plugin.evaluation.functional.pdq import spatial_quality
from mmrotate_plugin.evaluation.metrics.uncertainty_metric import UncertaintyMetric

N = 20_000
SMALL = (1.0, 0.7, 1.2, 0.9, 0.02)  # standard deviations, pixels and radians


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def gaussian(rng):
    """Residuals, and the standard deviations that they were drawn with."""
    std = rng.uniform(0.1, 5, N)
    return rng.standard_normal(N) * std, std


@pytest.mark.parametrize('sigmas, expected', [(1, 0.682689), (2, 0.954500), (3, 0.997300)])
def test_coverage_of_gaussian_residuals(gaussian, sigmas, expected):
    residual, std = gaussian
    tolerance = 4 * math.sqrt(expected * (1 - expected) / N)  # standard errors of a binomial
    assert abs(coverage(residual, std, sigmas) - expected) < tolerance
    assert abs(coverage(torch.tensor(residual), torch.tensor(std), sigmas) - expected) < tolerance
    assert expected - coverage(residual, std / 2, sigmas) > 4 * tolerance


def test_calibration_error_sees_wrong_scales_and_biases(gaussian):
    residual, std = gaussian
    # every level's fraction is within four of its binomial standard errors
    tolerance = 4 * np.mean([math.sqrt(p * (1 - p) / N) for p in np.arange(1, 10) / 10])
    assert calibration_error(residual, std) < tolerance
    levels = np.arange(1, 10) / 10
    for factor in (0.5, 2.0):
        expected = np.abs(stats.norm.cdf(factor * stats.norm.ppf(levels)) - levels).mean()
        assert calibration_error(residual, factor * std) == pytest.approx(expected, abs=tolerance)
        assert expected > 5 * tolerance
    expected = np.abs(stats.norm.cdf(stats.norm.ppf(levels) - 0.5) - levels).mean()
    assert calibration_error(residual + 0.5 * std, std) == pytest.approx(expected, abs=tolerance)
    median = np.abs((levels > 0.5) + (levels == 0.5) / 2 - levels).mean()
    assert calibration_error([0, 0], [0, 0]) == pytest.approx(median)


def test_likelihood_is_the_density_and_has_one_floor(gaussian):
    residual, std = gaussian
    expected = -stats.norm.logpdf(residual, scale=std)
    assert np.allclose(negative_log_likelihood(residual, std), expected, rtol=1e-12)
    assert negative_log_likelihood([0.0], [0.0], 0.01)[0] == pytest.approx(math.log(0.01 * math.sqrt(2 * math.pi)))
    assert negative_log_likelihood(residual, std).mean() < negative_log_likelihood(residual, std / 2).mean()
    with pytest.raises(ValueError, match='min_std=0 must be positive'):
        negative_log_likelihood(residual, std, 0)


def test_sparsification_error_of_oracle_random_and_reversed(rng):
    error = rng.exponential(size=500)
    assert sparsification_error(error, 3 * error) == pytest.approx(0, abs=1e-12)
    random = sparsification_error(error, np.ones(500))
    shuffled = [sparsification_error(error, rng.permutation(error)) for _ in range(400)]
    assert abs(np.mean(shuffled) - random) < 4 * np.std(shuffled) / 20
    assert sparsification_error(error, -error) > random > 0.1


def test_sparsification_error_is_that_of_the_definition(rng):
    error, uncertainty = rng.exponential(size=(2, 30))

    def curve(key):
        kept = [error[np.argsort(key)[:k]].mean() for k in range(1, 31)]
        return np.array(kept) / error.mean()

    expected = (curve(uncertainty) - curve(error)).mean()
    assert sparsification_error(error, uncertainty) == pytest.approx(expected)
    assert math.isnan(sparsification_error([0.0, 0.0], [1.0, 2.0]))
    with pytest.raises(ValueError, match='error has negative values, down to -1'):
        sparsification_error([-1.0], [1.0])


def test_correlations_follow_their_definition(rng):
    x, y = rng.integers(0, 8, (2, 50))  # with ties

    def correlation(a, b):
        a, b = a - a.mean(), b - b.mean()
        return (a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum())

    def ranks(values):  # a tie shares the mean of its ranks
        return np.array([(values < v).sum() + (values == v).sum() / 2 for v in values])

    assert pearson(x, y) == pytest.approx(correlation(x, y)) != pytest.approx(spearman(x, y))
    assert spearman(x, y) == pytest.approx(correlation(ranks(x), ranks(y)))
    assert spearman([1, 2, np.inf], [1, 2, 3]) == pytest.approx(1)  # a box without area has an infinite uncertainty


@pytest.mark.parametrize('x, y', [(np.arange(9), np.ones(9)), (np.ones(9), np.arange(9)), ([], []), ([1.0], [2.0])])
def test_correlations_without_a_definition(x, y):
    assert math.isnan(pearson(x, y)) and math.isnan(spearman(x, y))
    assert math.isnan(pearson([1, 2, np.inf], [1, 2, 3]))


def test_score_calibration_error(rng):
    scores = rng.uniform(size=N)
    hits = rng.uniform(size=N) < scores
    # a bin's gap has a variance of at most 1/4 over its n = N/10
    assert score_calibration_error(scores, hits) < 4 * 0.5 / math.sqrt(N / 10)
    expected = (abs(1 - 0.95) + abs(0 - 1.7) + abs(1 - 0.35)) / 4
    assert score_calibration_error([0.95, 0.85, 0.85, 0.35], [1, 0, 0, 1]) == pytest.approx(expected)
    with pytest.raises(ValueError, match='scores are 2 to 2'):
        score_calibration_error([2.0], [1])


@pytest.mark.parametrize(
    'pred, truth, expected',
    [
        ((10, 10, 40, 20, -89), (11, 9, 38, 22, 89), (-1, 1, 2, -2, 2)),
        ((10, 10, 40, 20, 89), (10, 10, 40, 20, -89), (0, 0, 0, 0, -2)),
        ((10, 10, 22, 20, 3), (10, 10, 19, 21, -86), (0, 0, 1, 1, -1)),
        ((10, 10, 22, 20, 80), (10, 10, 19, 21, -12), (0, 0, 1, 1, 2)),
        ((10, 10, 40, 20, 44), (10, 10, 40, 20, 0), (0, 0, 0, 0, 44)),
        ((10, 10, 40, 20, 350), (10, 10, 40, 20, 175), (0, 0, 0, 0, -5)),
    ],
)
def test_residuals_take_the_nearest_name_of_the_truth(pred, truth, expected):
    scale = np.array([1, 1, 1, 1, math.pi / 180])
    residual = box_residuals([pred * scale], [truth * scale])[0]
    assert residual / scale == pytest.approx(expected)
    named = [pred * scale - residual]  # the same box as the truth
    assert box_ious(named, [truth * scale])[0, 0] > 0.999
    assert np.abs(pred * scale - truth * scale - residual).sum() > 0.1 or expected[4] == 44


def test_residuals_of_horizontal_boxes_and_errors():
    assert box_residuals([[1, 2, 3, 4]], [[0, 0, 5, 5]]).tolist() == [[1, 2, -2, -1]]
    with pytest.raises(ValueError, match=r'pred is \(1, 4\) and truth is \(1, 5\)'):
        box_residuals([[1, 2, 3, 4]], [[0, 0, 5, 5, 0]])


def cv2_iou(a, b):
    a, b = (((x[0], x[1]), (x[2], x[3]), math.degrees(x[4])) for x in (a, b))
    found, points = cv2.rotatedRectangleIntersection(a, b)
    both = cv2.contourArea(cv2.convexHull(points)) if found else 0.0
    return both / (a[1][0] * a[1][1] + b[1][0] * b[1][1] - both)


@pytest.mark.parametrize('column, step', [(0, 0.2), (1, 0.2), (2, 0.2), (3, 0.2), (4, 0.01)])
def test_box_uncertainty_is_the_first_order_of_one_minus_iou(column, step):
    box = np.array([[50.0, 60.0, 40.0, 16.0, 0.0]])
    std = np.zeros((1, 5))
    std[0, column] = step
    error = 1 - cv2_iou(box[0], (box + std)[0])
    assert box_uncertainty(box, std)[0] == pytest.approx(error, rel=0.03)
    turned = box + [[0, 0, 0, 0, math.pi / 2]]
    if column < 2:
        swapped = std[:, [1, 0, 2, 3, 4]]
        assert box_uncertainty(turned, swapped) == pytest.approx(box_uncertainty(box, std))


def test_box_uncertainty_of_horizontal_boxes():
    box, std = np.array([[0.0, 0.0, 20.0, 10.0]]), np.array([[0.3, 0.0, 0.4, 0.0]])
    assert box_uncertainty(box, std)[0] == pytest.approx(0.5 / 20)


def test_ious_are_those_of_opencv(rng):
    a = np.column_stack([rng.uniform(20, 60, (8, 2)), rng.uniform(10, 50, (8, 2)), rng.uniform(-3, 3, 8)])
    b = np.column_stack([rng.uniform(20, 60, (8, 2)), rng.uniform(10, 50, (8, 2)), rng.uniform(-3, 3, 8)])
    expected = np.array([[cv2_iou(x, y) for y in b] for x in a])
    assert np.abs(box_ious(a, b) - expected).max() < 1e-4
    assert box_ious([[0, 0, 10, 10]], [[5, 0, 15, 10]])[0, 0] == pytest.approx(1 / 3)


def test_matching_takes_the_best_score_once_and_leaves_ignored_out():
    ious = np.array([[0.6, 0.0, 0.0], [0.9, 0.0, 0.0], [0.0, 0.8, 0.0], [0.0, 0.0, 0.7], [0.0, 0.9, 0.0]])
    found = match_boxes(ious, [0.9, 0.8, 0.7, 0.6, 0.5], [0, 0, 0, 1, 1], [0, 0, 1], [False, True, False])
    assert found.tolist() == [0, UNMATCHED, IGNORED, 2, UNMATCHED]  # the last is of another class
    assert match_boxes(ious, np.ones(5), np.zeros(5), np.zeros(3), np.zeros(3), 0.95).tolist() == [UNMATCHED] * 5


BOX = np.array([[50.0, 40.0, 40.0, 16.0, 0.4]])


def quality(shift=0.0, std=0.0, turn=0.0, box=BOX):
    pred = box + [[shift, 0, 0, 0, turn]]
    return spatial_quality(pred, np.full((1, 5), std) * [[1, 1, 1, 1, 0.02]], box)[0]


def test_perfect_certain_detections_have_a_pdq_of_one():
    image = dict(bboxes=BOX, bboxes_std=0 * BOX, scores=[1.0], labels=[2], gt_bboxes=BOX, gt_labels=[2])
    assert pdq([image, image]) == pytest.approx((1, 1, 1, 2, 0, 0))
    assert pdq([{**image, 'scores': [0.25]}]).pdq == pytest.approx(0.5)  # sqrt(1 * 0.25)
    assert pdq([{**image, 'labels': [1]}]).pdq == 0
    twice = {**image, 'gt_bboxes': np.concatenate([BOX, BOX + 200]), 'gt_labels': [2, 2]}
    assert pdq([twice])[:1] + pdq([twice])[3:] == pytest.approx((0.5, 1, 0, 1))
    assert math.isnan(pdq([]).pdq)


def test_spatial_quality_is_monotone_and_rewards_honest_uncertainty():
    for values in (
        [quality(shift=s, std=1.0) for s in (0, 1, 2, 4, 8)],
        [quality(turn=t, std=1.0) for t in (0, 0.05, 0.1, 0.2)],
        [quality(std=s) for s in (0, 0.5, 1, 2, 4)],
    ):
        assert all(a > b for a, b in zip(values, values[1:], strict=False)), values
    assert quality(shift=3, std=3) > 3 * quality(shift=3, std=0.1)
    assert quality(shift=0, std=3) < quality(shift=0, std=0.1)


@pytest.mark.parametrize('kind', ['rotated', 'horizontal'])
def test_spatial_quality_is_that_of_pixels(kind):
    """Each pixel of an image, its probability by sampling edges in the axes of the image."""
    n, rng = 4000, np.random.default_rng(1)
    if kind == 'rotated':
        pred, std, truth = [60, 50, 40, 16, 0.1], [1.5, 1.0, 2.0, 1.0, 0.05], [61, 51, 44, 18, 0.0]
    else:
        pred, std, truth = [40, 42, 80, 58], [2.0, 1.0, 1.5, 2.0], [41, 42, 79, 60]
    xs, ys = np.meshgrid(np.arange(20, 100, 1.0) + 0.5, np.arange(25, 75, 1.0) + 0.5, indexing='ij')
    if kind == 'horizontal':
        edges = np.array(pred) + rng.standard_normal((n, 4)) * std
        inside = (xs[..., None] > edges[:, 0]) & (xs[..., None] < edges[:, 2])
        inside &= (ys[..., None] > edges[:, 1]) & (ys[..., None] < edges[:, 3])
        x1, y1, x2, y2 = truth
    else:
        # an edge's deviation is a sum of parts; edges are independent of each other by definition
        cos, sin = math.cos(pred[4]), math.sin(pred[4])
        u = cos * (xs - pred[0]) + sin * (ys - pred[1])
        v = cos * (ys - pred[1]) - sin * (xs - pred[0])
        inside = np.ones(xs.shape + (n,), dtype=bool)
        for along, across, length, j in ((u, v, pred[2], 2), (v, u, pred[3], 3)):
            normal = (cos, sin) if j == 2 else (-sin, cos)
            for side in (-1, 1):
                dx, dy, dl, da = (rng.standard_normal(n) * std[k] for k in (0, 1, j, 4))
                edge = length / 2 + dl / 2 + side * (dx * normal[0] + dy * normal[1]) + da * across[..., None]
                inside &= side * along[..., None] < edge
        x1, y1, x2, y2 = truth[0] - 22, truth[1] - 9, truth[0] + 22, truth[1] + 9
    p = inside.mean(2)
    inside_truth = (xs > x1) & (xs < x2) & (ys > y1) & (ys < y2)
    area = (x2 - x1) * (y2 - y1)
    expected = math.exp((np.log(p[inside_truth].clip(1e-14)).sum() + np.log1p(-p[~inside_truth]).sum()) / area)
    found = spatial_quality([pred], [std], [truth])[0]
    assert found == pytest.approx(expected, rel=0.03)  # the width of a pixel, and the samples
    assert abs(spatial_quality([pred], [[3 * s for s in std]], [truth])[0] / expected - 1) > 0.1


def scene(rng, kind, factor, boxes_as=lambda boxes: boxes):
    """An image with 12 detected objects, one missed, one false detection and one of an ignored object."""
    centres = np.stack(np.meshgrid(np.arange(5), np.arange(3)), -1).reshape(-1, 2)[:14] * 100.0 + 50
    if kind == 'rotated':
        truth = np.column_stack([centres, np.tile([50.0, 24.0], (14, 1)), rng.uniform(-1.5, 1.5, 14)])
        scale = np.array(SMALL)
    else:
        truth = np.column_stack([centres - (25, 12), centres + (25, 12)])
        scale = np.array(SMALL[:4])
    std = scale * rng.uniform(0.2, 2, (14, 1))
    noise = rng.standard_normal(truth.shape) * std
    pred = truth + noise
    if kind == 'rotated':  # another name of the same box
        pred = np.where(np.arange(14)[:, None] % 2, pred[:, [0, 1, 3, 2, 4]] + [0, 0, 0, 0, math.pi / 2], pred)
        std = np.where(np.arange(14)[:, None] % 2, std[:, [0, 1, 3, 2, 4]], std)
    pred[13, :2] += 500  # false
    if kind != 'rotated':
        pred[13, 2:] += 500
    scores = np.full(14, 0.9)
    scores[13] = 0.6
    detected = np.r_[:12, 13, 12]  # 12 is ignored, 13 false and missed
    tensor = lambda x: torch.tensor(x, dtype=torch.float32)  # noqa: E731
    sample = BaseDataElement(metainfo=dict(img_id='7'))
    sample.pred_instances = InstanceData(
        bboxes=tensor(pred[detected]),
        scores=tensor(scores[detected]),
        labels=torch.ones(14, dtype=torch.long),
        bboxes_std=tensor(factor * std[detected]),
        scores_std=tensor(np.where(detected == 13, 0.2, 0.01)),
    )
    kept, ones = np.r_[:12, 13], torch.ones(14, dtype=torch.long)
    sample.gt_instances = InstanceData(bboxes=boxes_as(tensor(truth[kept])), labels=ones[:13])
    sample.ignored_instances = InstanceData(bboxes=boxes_as(tensor(truth[12:13])), labels=ones[:1])
    return sample


class Boxes:
    """As OpenMMLab's boxes: a tensor inside."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __len__(self):
        return len(self.tensor)


def evaluate(samples, **options):
    evaluator = Evaluator(dict(type='mmrotate_plugin.UncertaintyMetric', **options))
    for sample in samples:
        evaluator.process(data_samples=[sample])
    return evaluator.evaluate(len(samples))


@pytest.mark.parametrize('kind, names', [('rotated', ('cx', 'angle', 'all')), ('horizontal', ('x1', 'y2', 'all'))])
def test_metric_end_to_end(kind, names):
    images, count = 30, 30 * 12
    rng = np.random.default_rng(0)
    found = evaluate([scene(rng, kind, 1.0, Boxes if i % 2 else lambda x: x) for i in range(images)])
    half = evaluate([scene(np.random.default_rng(i), kind, 0.5) for i in range(images)])
    assert all(isinstance(value, float) and key.startswith('uncertainty/') for key, value in found.items())
    get = {key.partition('/')[2]: value for key, value in found.items()}
    halved = {key.partition('/')[2]: value for key, value in half.items()}
    assert (get['detections'], get['matched'], get['objects']) == (count + images, count, count + images)
    for name in names:
        tolerance = 4 * math.sqrt(0.683 * 0.317 / count)
        assert abs(get[f'coverage_1_{name}'] - 0.683) < tolerance
        assert abs(halved[f'coverage_1_{name}'] - 0.683) > tolerance
        assert get[f'calibration_error_{name}'] < 4 * 0.42 / math.sqrt(count) < halved[f'calibration_error_{name}']
        assert get[f'nll_mean_{name}'] < halved[f'nll_mean_{name}']
    assert get['spearman_box'] > 0.3 and get[f'spearman_{names[0]}'] > 0.2
    assert get['ause_box'] < get['ause_box_random'] == pytest.approx(get['ause_box_by_score'])  # scores are equal
    assert get['ause_false'] == get['ause_false_by_score'] == pytest.approx(0) and get['ause_false_random'] > 0.5
    assert get['score_calibration_error'] == pytest.approx(12 / 13 * 0.1 + 0.6 / 13, abs=1e-6)
    assert (get['pdq_true'], get['pdq_false'], get['pdq_missed']) == (count, images, images)
    assert get['pdq_label'] == pytest.approx(0.9) and 0 < get['pdq'] < math.sqrt(0.9) * 12 / 14


def test_metric_logs_one_table(monkeypatch):
    from mmengine.logging import MMLogger

    lines = []
    monkeypatch.setattr(MMLogger, 'info', lambda _, text, *__, **___: lines.append(text))
    evaluate([scene(np.random.default_rng(0), 'rotated', 1.0)], prefix='std')
    (text,) = [line for line in lines if 'coverage_1' in line]
    assert all(word in text for word in ('cx', 'angle', '0.683 is right', 'ause_false_random', 'pdq_missed'))


def test_metric_of_images_without_anything():
    sample = scene(np.random.default_rng(0), 'rotated', 1.0)
    sample.pred_instances = sample.pred_instances[:0]
    found = evaluate([sample])
    assert found['uncertainty/pdq'] == found['uncertainty/matched'] == 0
    assert math.isnan(found['uncertainty/nll_mean_all'])
    sample.gt_instances = sample.gt_instances[:0]
    del sample.ignored_instances
    found = evaluate([sample])
    assert found == {}, 'no number without ground truth'


def test_what_the_metric_refuses():
    sample = scene(np.random.default_rng(0), 'rotated', 1.0)
    del sample.pred_instances.scores_std
    with pytest.raises(ValueError, match=r'image 7: .* no scores_std, .*mmrotate_plugin.UncertainDetector'):
        evaluate([sample])
    sample = scene(np.random.default_rng(0), 'rotated', 1.0)
    sample.pred_instances.bboxes[0, 0] = math.nan
    with pytest.raises(ValueError, match='image 7: detections have a box or score that is not finite'):
        evaluate([sample])
    sample = scene(np.random.default_rng(0), 'rotated', 1.0)
    sample.pred_instances.bboxes_std[0, 0] = math.nan
    with pytest.raises(ValueError, match='bboxes_std has values that are negative or not finite'):
        evaluate([sample])
    sample = scene(np.random.default_rng(0), 'rotated', 1.0)
    sample.gt_instances.bboxes = torch.zeros(13, 8)
    with pytest.raises(ValueError, match=r'gt_instances are \(13, 8\).*ConvertBoxType'):
        evaluate([sample])
    for options, message in (
        (dict(iou_thr=0), 'iou_thr=0'), (dict(score_thr=5), 'score_thr=5'), (dict(num_bins=1), 'num_bins=1'),
        (dict(min_std=0), 'min_std=0'), (dict(pdq_score_thr=-1), 'pdq_score_thr=-1'),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            UncertaintyMetric(**options)


def test_the_metric_is_found_by_both_names():
    for name in ('UncertaintyMetric', 'mmrotate_plugin.UncertaintyMetric'):
        assert type(ROOT.build(dict(type=name))) is UncertaintyMetric
