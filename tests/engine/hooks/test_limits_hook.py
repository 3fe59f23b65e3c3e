"""Counts that reach max_per_img or nms_pre."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from mmrotate_plugin.engine.hooks.limits_hook import Limits, LimitsHook


def choose(scores, score_thr, topk, results=None):
    kept = scores[scores > score_thr].sort(descending=True)[0][:topk]
    return kept, None, None, results


class Detector(nn.Module):
    """Two levels; keeps the scores of the candidates."""

    def __init__(self, heads, test_cfg):
        super().__init__()
        self.test_cfg, self.heads = test_cfg, heads

    def forward(self, images):
        inner = self.test_cfg.get('rcnn') or self.test_cfg
        found = []
        for image in images:
            levels = [self.heads.filter_scores_and_topk(level, 0.05, inner.get('nms_pre', 1000))[0] for level in image]
            scores = torch.cat(levels).sort(descending=True)[0][: inner['max_per_img']]
            found.append(SimpleNamespace(pred_instances=SimpleNamespace(scores=scores)))
        return found


@pytest.fixture
def heads(monkeypatch):
    module = ModuleType('some_heads')
    module.filter_scores_and_topk = choose
    monkeypatch.setitem(sys.modules, 'some_heads', module)
    return module


NMS = dict(type='nms_rotated', iou_threshold=0.1)


def images(*counts):
    """Two levels with so many candidates each."""
    return [[torch.linspace(0.1, 0.9, count) for count in pair] for pair in counts]


@pytest.mark.parametrize(
    'counts, said',
    [
        ([(2, 2), (1, 1)], None),
        ([(3, 2), (1, 1)], ['1 of 2 images have as many detections as model.test_cfg.max_per_img=5']),
        ([(4, 0), (1, 1), (0, 4)], ['in 2 of 3 images a level has as many candidates as model.test_cfg.nms_pre=4']),
        ([(9, 9)], ['1 of 1 images', 'max_per_img=5', 'nms_pre=4', 'max_per_img=10 model.test_cfg.nms_pre=8']),
    ],
)
def test_what_is_reached_is_told_once(counts, said, heads):
    model = Detector(heads, dict(nms=NMS, max_per_img=5, nms_pre=4))
    limits = Limits(model)
    with limits.watching():
        model(images(*counts))
    text = limits.hint()
    assert (text is None) == (said is None)
    assert all(part in text for part in said or ())
    assert limits.hint() is None
    assert heads.filter_scores_and_topk is choose  # back in its place
    model(images((9, 9)))
    assert limits.images == len(counts)  # nobody counts any more


def test_two_stages_count_detections_alone(heads):
    model = Detector(heads, dict(rpn=dict(nms_pre=4), rcnn=dict(nms=NMS, max_per_img=5)))
    limits = Limits(model)
    with limits.watching():
        model(images((4, 1)))
    assert 'model.test_cfg.rcnn.max_per_img=5' in limits.hint()
    assert (limits.full, limits.cut) == (1, 0)


def test_detectors_without_suppression_always_return_as_many(heads):
    model = Detector(heads, dict(max_per_img=5))
    limits = Limits(model)
    with limits.watching():
        model(images((9, 9)))
    assert limits.hint() is None


def test_detections_that_are_not_drawn_do_not_count(heads):
    model = Detector(heads, dict(nms=NMS, max_per_img=5, nms_pre=50))
    for threshold, reached in ((0.3, False), (0.05, True)):
        limits = Limits(model, score_thr=threshold)
        with limits.watching():
            model(images((3, 2)))  # two of them with 0.1
        assert (limits.hint() is not None) == reached


def test_candidates_that_would_not_be_drawn_do_not_count(heads):
    model = Detector(heads, dict(nms=NMS, max_per_img=500, nms_pre=4))
    for threshold, reached in ((0.7, False), (0.3, True)):  # the last that is kept has 0.6
        limits = Limits(model, score_thr=threshold)
        with limits.watching():
            model(images((9, 0)))
        assert (limits.hint() is not None) == reached


def test_a_detector_within_another_names_its_key(heads):
    outer = nn.Module()
    outer.__dict__['detector'] = Detector(heads, dict(nms=NMS, max_per_img=5, nms_pre=4))
    assert Limits(outer).prefix == 'model.detector.test_cfg'


def test_the_hook_warns_after_the_first_validation_that_reaches_it(heads):
    model, said = Detector(heads, dict(nms=NMS, max_per_img=5, nms_pre=50)), []
    runner = SimpleNamespace(model=model, logger=SimpleNamespace(warning=said.append))
    hook = LimitsHook()
    for counts, number in (((1, 1), 0), ((9, 9), 1), ((9, 9), 1)):
        hook.before_val_epoch(runner)
        model(images(counts))
        hook.after_val_epoch(runner, {})
        assert len(said) == number


def test_heads_of_mmdet_are_watched():
    pytest.importorskip('mmdet')
    from mmdet.models.dense_heads import base_dense_head

    original = base_dense_head.filter_scores_and_topk
    limits = Limits(Detector(base_dense_head, dict(nms=NMS, max_per_img=5, nms_pre=2)))
    with limits.watching():
        assert base_dense_head.filter_scores_and_topk is not original
        base_dense_head.filter_scores_and_topk(torch.rand(9, 3) + 0.1, 0.05, 2)
        assert limits._levels == [True]
        base_dense_head.filter_scores_and_topk(torch.zeros(9, 3), 0.05, 2)
        assert limits._levels == [True, False]
    assert base_dense_head.filter_scores_and_topk is original
