"""The views of an image are compared with the image, and each number is that of a case done by hand."""

import math

import numpy as np
import pytest
import torch

from mmrotate_plugin.evaluation import ViewAgreementMetric
from mmrotate_plugin.evaluation.metrics.view_agreement_metric import mean_rectangles
from mmrotate_plugin.structures.corners import box_corners

BOXES = [[20.0, 20, 20, 8, 0.5], [60, 30, 12, 6, -1.0], [40, 70, 9, 9, 0.2]]


def view(boxes=BOXES, scores=(0.9, 0.8, 0.7), degrees=0.0, mirrored=False, scale=1.0):
    boxes = torch.tensor(boxes, dtype=torch.float64)
    return dict(
        bboxes=boxes, labels=torch.zeros(len(boxes)).long(), scores=torch.tensor(scores, dtype=torch.float64),
        degrees=degrees, mirrored=mirrored, scale=scale,
    )  # fmt: skip


def measured(*images, **options):
    metric = ViewAgreementMetric(**options)
    metric.process(None, [dict(img_id=i, tta_views=list(views)) for i, views in enumerate(images)])
    return metric, metric.evaluate(len(images))


def test_views_that_agree_differ_by_nothing():
    other = [[20, 20, 8, 20, 0.5 + math.pi / 2], *BOXES[1:]]  # another name of the same rectangle
    _, numbers = measured([view(), view(other, degrees=90.0)], [view(), view(degrees=90.0)])
    assert {key: numbers[f'tta/{key}'] for key in ('matched', 'lost', 'new')} == dict(matched=6, lost=0, new=0)
    assert max(numbers[f'tta/{key}'] for key in ('centre', 'size', 'angle', 'score')) < 1e-9


def test_differences_are_those_of_the_pairs():
    moved = [[23.0, 24, 20, 8, 0.5], [60, 30, 12.6, 6, -1.0 + math.radians(2)]]
    metric, numbers = measured([view(), view(moved, (0.9, 0.6), degrees=180.0)])
    assert (numbers['tta/matched'], numbers['tta/lost'], numbers['tta/new']) == (1, 2, 1)  # 5 pixels of 8 are no match
    assert numbers['tta/centre'] == 0 and numbers['tta/size'] == pytest.approx(0.05)
    assert numbers['tta/angle'] == pytest.approx(2) and numbers['tta/score'] == pytest.approx(0.2)
    (row,) = metric.report['views']
    assert (row['degrees'], row['matched'], row['detections'], row['longest']) == (180, 1, 3, 20)
    assert [image['img_id'] for image in metric.report['images']] == [0]


def test_a_view_is_compared_with_the_first_of_its_scale():
    large = [[21.0, 20, 20, 8, 0.5], *BOXES[1:]]
    views = [view(), view(degrees=90.0), view(large, scale=1.5), view(large, degrees=90.0, scale=1.5)]
    metric, _ = measured(views)
    assert [(row['scale'], row['centre']['max']) for row in metric.report['views']] == [(1, 0), (1.5, 1), (1.5, 0)]


def test_low_scores_do_not_count_but_may_be_partners():
    _, numbers = measured([view(scores=(0.9, 0.31, 0.1)), view(scores=(0.9, 0.29, 0.2), degrees=90.0)])
    assert (numbers['tta/matched'], numbers['tta/lost'], numbers['tta/new']) == (2, 0, 0)
    _, numbers = measured([view(scores=(0.9, 0.31, 0.1)), view(scores=(0.9, 0.29, 0.2), degrees=90.0)], score_thr=0.5)
    assert numbers['tta/matched'] == 1


def test_nothing_found_gives_counts_alone():
    _, numbers = measured([view([], ()), view([], (), degrees=90.0)])
    assert numbers == {'tta/matched': 0, 'tta/lost': 0, 'tta/new': 0}


def test_samples_without_views_give_no_number():
    metric = ViewAgreementMetric()
    metric.process(None, [dict(img_id=0)])
    assert metric.compute_metrics(metric.results) == {} and metric.report == {}


def test_polygons_and_horizontal_boxes_are_compared_too():
    boxes = np.array(BOXES)
    assert np.allclose(mean_rectangles(box_corners(boxes).reshape(-1, 8)), boxes)
    for kind in (box_corners(boxes).reshape(-1, 8), boxes[:, [0, 1, 0, 1]] + [-5, -5, 5, 5]):
        _, numbers = measured([view(kind), view(kind, degrees=90.0)])
        assert numbers['tta/matched'] == 3


@pytest.mark.parametrize('score_thr', [-0.1, 1.5])
def test_the_threshold_is_checked(score_thr):
    with pytest.raises(ValueError, match=f'score_thr={score_thr} must be between 0 and 1'):
        ViewAgreementMetric(score_thr)
