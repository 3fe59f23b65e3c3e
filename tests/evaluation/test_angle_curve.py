"""Average precision over angles: counting as the metric does, summary and table."""

import math

import numpy as np
import pytest
import torch

from mmrotate_plugin.evaluation import DOTAMetric
from mmrotate_plugin.evaluation.angle_curve import THRESHOLDS, angle_table, precision_at_angle, summarise_angles

CLASSES = ('ship', 'plane', 'car')


def samples(seed=0, images=4, shift=2.5):
    """Objects, and detections of most of them a little beside, with false ones."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(images):
        boxes = np.column_stack([rng.uniform(20, 180, (8, 2)), rng.uniform(10, 40, (8, 2)), rng.uniform(-1, 1, 8)])
        labels = rng.integers(0, 2, 8)
        found = boxes + rng.normal(0, 1, boxes.shape) * [shift, shift, shift, shift, 0.05]
        found[:, 2:4] = found[:, 2:4].clip(1)
        none = dict(bboxes=torch.zeros(0, 5), labels=torch.zeros(0))
        pred = dict(bboxes=torch.tensor(found), labels=torch.tensor(labels), scores=torch.tensor(rng.uniform(0, 1, 8)))
        truth = dict(bboxes=torch.tensor(boxes), labels=torch.tensor(labels))
        made.append(dict(img_id=i, pred_instances=pred, gt_instances=truth, ignored_instances=none))
    return made


@pytest.mark.parametrize('mode', ['11points', 'area'])
def test_numbers_are_those_of_the_metric(mode):
    metric = DOTAMetric(iou_thrs=THRESHOLDS, eval_mode=mode)
    metric.dataset_meta = dict(classes=CLASSES)
    metric.process(None, samples())
    images = list(metric.results)
    expected = metric.measure(images)
    found = precision_at_angle(images, CLASSES, eval_mode=mode)
    assert found['AP50'] == expected['AP50'] and found['AP75'] == expected['AP75']
    assert found['AP50_95'] == expected['mAP']
    assert 0 < found['AP75'] < found['AP50'] < 1 and found['objects'] == 32
    assert math.isnan(found['classes']['car']) and found['AP50'] == np.mean([found['classes'][c] for c in CLASSES[:2]])


def row(degrees, value):
    return dict(degrees=degrees, mirrored=False, objects=3, AP50=value, AP75=value / 2, AP50_95=value / 4,
                classes=dict(ship=value))  # fmt: skip


def test_summary_names_the_worst_angle_and_leaves_out_angles_without_objects():
    rows = [row(0, 0.9), row(45, 0.3), row(60, math.nan), row(90, 0.6)]
    found = summarise_angles(rows, row(0, 0.5))['AP50']
    assert found == dict(
        mean=pytest.approx(0.6), worst=0.3, worst_at=45, best=0.9, spread=pytest.approx(0.6), together=0.5
    )
    assert math.isnan(summarise_angles([row(0, math.nan)], row(0, math.nan))['AP50']['mean'])


def test_table():
    rows = [row(0, 0.9), {**row(22.5, math.nan), 'mirrored': True}]
    report = dict(angles=rows, classes=['ship'], summary=summarise_angles(rows, rows[0]))
    lines = angle_table(report, per_class=True).split('\n')
    assert lines[0].split() == ['angle', 'mAP@0.5', '@0.75', '@0.5:0.95', 'objects', 'ship']
    assert lines[1].split() == ['0', '0.900', '0.450', '0.225', '3', '0.900']
    assert lines[2].split() == ['22.5,', 'mirrored', '-', '-', '-', '3', '-']
    assert [line.split()[0] for line in lines[3:]] == ['mean', 'worst', 'spread', 'together']
    assert 'ship' not in angle_table(report)
