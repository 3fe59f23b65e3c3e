"""Derivatives of kept detections by their own rows are those of the whole post-processing."""

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope

pytest.importorskip('mmrotate')
from mmdet.structures import DetDataSample

from mmrotate_plugin.adf import Gaussian
from mmrotate_plugin.models.uncertainty import dense_rows, methods
from mmrotate_plugin.models.uncertainty.data_samples import values_of
from mmrotate_plugin.models.uncertainty.head_trace import Trace
from mmrotate_plugin.models.uncertainty.keep_graph import keep_graph
from mmrotate_plugin.models.uncertainty.kept_rows import linearize_rows
from mmrotate_plugin.models.uncertainty.region_rows import RegionReader

SIZES = [(9, 7), (5, 4)]
TEST = dict(nms_pre=40, score_thr=0.3, max_per_img=8, min_bbox_size=0)
CE = dict(type='mmdet.CrossEntropyLoss', use_sigmoid=False)
ANCHORS = dict(ratios=[0.5, 2.0], strides=[8, 16], octave_base_scale=4, scales_per_octave=2)
HEADS = {
    'points and centre-ness': dict(type='mmdet.FCOSHead', strides=[8, 16], test_cfg=TEST),
    'anchors': dict(
        type='mmdet.RetinaHead', anchor_generator=dict(type='mmdet.AnchorGenerator', **ANCHORS), test_cfg=TEST
    ),
    'softmax of anchors': dict(
        type='mmdet.RetinaHead', anchor_generator=dict(type='mmdet.AnchorGenerator', **ANCHORS), loss_cls=CE,
        test_cfg={**TEST, 'score_thr': 0.1},
    ),
    'rotated, two sines': dict(
        type='mmrotate.RotatedFCOSHead', strides=[8, 16], use_hbbox_loss=True, scale_angle=False,
        bbox_coder=dict(type='mmrotate.DistanceAnglePointCoder', angle_version='le90'),
        angle_coder=dict(type='mmrotate.PSCCoder', angle_version='le90', dual_freq=True, num_step=3),
        test_cfg=dict(TEST, nms=dict(type='nms_rotated', iou_threshold=0.1)),
        loss_angle=dict(type='mmdet.L1Loss'), loss_bbox=dict(type='mmdet.GIoULoss'),
    ),
    'fields': dict(
        type='mmrotate_plugin.ReFCOSHead', strides=[8, 16], regress_ranges=[(-1, 48), (48, 1e8)],
        test_cfg=dict(TEST, nms=dict(type='nms_rotated', iou_threshold=0.1)),
    ),
}  # fmt: skip


@pytest.fixture(autouse=True, scope='module')
def registered():
    from mmdet.utils import register_all_modules
    from mmrotate.utils import register_all_modules as register_mmrotate

    register_all_modules(init_default_scope=False)
    register_mmrotate(init_default_scope=False)


@pytest.fixture(autouse=True)
def scope(registered):  # noqa: ARG001  comes first
    init_default_scope('mmdet')


class HeadAlone(BaseModel):
    """A detector that is a head whose outputs are given."""

    def __init__(self, head, outputs):
        super().__init__()
        self.bbox_head = head
        head.forward = lambda x: outputs  # noqa: ARG005  no features

    def forward(self, x):
        return x

    def predict(self, x, samples, rescale):
        for sample, found in zip(samples, self.bbox_head.predict(x, samples, rescale=rescale), strict=True):
            sample.pred_instances = found
        return samples


def samples():
    metas = [dict(img_shape=(72, 56), scale_factor=(0.5, 0.25)), dict(img_shape=(64, 56), scale_factor=(2.0, 2.0))]
    return [DetDataSample(metainfo=dict(meta, ori_shape=(72, 56))) for meta in metas]


def build(name):
    """A head, and random outputs of its shapes with variances, for two images."""
    from mmdet.registry import MODELS

    cfg = ConfigDict(num_classes=3, in_channels=8, feat_channels=8, stacked_convs=0, **HEADS[name])
    cfg.test_cfg.setdefault('nms', dict(type='nms', iou_threshold=0.3))
    head = MODELS.build(cfg).eval()
    shapes = head([torch.zeros(2, 8, *size) for size in SIZES])
    generator = torch.Generator().manual_seed(0)

    def drawn(like):
        mean = torch.randn(like.shape, generator=generator)
        return Gaussian(mean, torch.rand(like.shape, generator=generator) + 0.1)

    return head, tuple([drawn(level) for level in kind] for kind in shapes if kind is not None)


def number_by_number(detections, leaves, variances):
    """Variances (N, D) by a backward pass for each number."""

    def variance(number):
        gradients = torch.autograd.grad(number, leaves, retain_graph=True, allow_unused=True)
        return sum((g.square() * v).sum() for g, v in zip(gradients, variances, strict=True) if g is not None)

    return torch.stack([torch.stack([variance(number) for number in row]) for row in detections])


@pytest.mark.parametrize('name', HEADS)
def test_variances_are_those_of_backward_passes_for_each_number(name):
    head, outputs = build(name)
    trace = Trace(HeadAlone(head, outputs))
    found, raw, line = methods.linearize(trace, None, samples(), rescale=True)
    assert trace.readable and len(values_of(found)) > 4
    actual = line.variance([var for _, var in raw])

    leaves = [mean.clone().requires_grad_() for mean, _ in raw]
    parts = iter([leaf.clone() for leaf in leaves])
    plain = tuple([next(parts) for _ in kind] for kind in outputs)
    with keep_graph():
        results = head.predict_by_feat(*plain, batch_img_metas=[s.metainfo for s in samples()], rescale=True)
    again = [DetDataSample(pred_instances=part) for part in results]
    detections = values_of(again)
    assert torch.equal(detections.detach(), values_of(found))
    variances = [var for _, var in raw]
    # sums of a few products in float32
    torch.testing.assert_close(actual, number_by_number(detections, leaves, variances), rtol=1e-5, atol=1e-7)

    # the check sees a place that is the next one
    line.place = (line.place + 1) % sum(line.sizes)
    assert not torch.allclose(line.variance(variances), actual, rtol=0.01)


@pytest.mark.parametrize('name', HEADS)
@pytest.mark.parametrize('empty', [[0], [1], [0, 1]])
def test_an_image_may_have_no_detections(name, empty):
    head, outputs = build(name)
    full = len(values_of(methods.linearize(Trace(HeadAlone(head, outputs)), None, samples(), rescale=True)[0]))
    for level in outputs[0]:
        if head.use_sigmoid_cls:
            level.mu[empty] = -100
        else:
            level.mu[empty] = 100 * (torch.arange(level.shape[1]) % 4 == 3)[:, None, None].float()  # background
    trace = Trace(HeadAlone(head, outputs))
    found, raw, line = methods.linearize(trace, None, samples(), rescale=True)
    assert trace.readable and [len(found[i].pred_instances) for i in empty] == [0] * len(empty)
    variance = line.variance([var for _, var in raw])
    assert len(variance) == len(values_of(found)) < full and (len(variance) > 0) == (len(empty) == 1)


def test_a_coder_that_mixes_rows_is_differentiated_as_a_whole():
    head, outputs = build('anchors')
    own = head.bbox_coder.decode
    head.bbox_coder.decode = lambda priors, raw, max_shape: own(priors, raw - raw.mean(0), max_shape=max_shape)
    trace = Trace(HeadAlone(head, outputs))
    _, raw, line = methods.linearize(trace, None, samples(), rescale=True)
    assert not trace.readable
    again, _, other = methods.linearize(trace, None, samples(), rescale=True)
    variances = [var for _, var in raw]
    assert torch.equal(line.variance(variances), other.variance(variances)) and len(values_of(again)) > 4


def test_other_candidates_than_the_heads_are_not_followed(monkeypatch):
    head, outputs = build('points and centre-ness')
    own = dense_rows._candidates

    def shifted(*args):
        level, index, labels, scores = own(*args)
        return level, index, labels.roll(1), scores

    monkeypatch.setattr(dense_rows, '_candidates', shifted)
    trace = Trace(HeadAlone(head, outputs))
    methods.linearize(trace, None, samples(), rescale=True)
    assert not trace.readable


def region_head(**options):
    from mmdet.registry import MODELS

    return MODELS.build(dict(type='mmdet.BBoxHead', num_classes=3, in_channels=4, roi_feat_size=1, **options)).eval()


@pytest.mark.parametrize('agnostic', [True, False])
@pytest.mark.parametrize('stages', [1, 3])
def test_regions_of_equal_scores_are_told_by_their_boxes(agnostic, stages):
    head = region_head(reg_class_agnostic=agnostic)
    generator = torch.Generator().manual_seed(0)
    counts = (6, 9)
    corners = 60 * torch.rand(sum(counts), 2, generator=generator)
    rois = torch.cat([torch.zeros(sum(counts), 1), corners, corners + 30], 1)
    logits = [torch.randn(sum(counts), 4, generator=generator) for _ in range(stages)]
    for stage in logits:
        stage[::2, 1] += 40  # a score of 1
    deltas = torch.randn(sum(counts), 4 if agnostic else 12, generator=generator)

    def predict(*outputs):
        *scores, boxes = outputs
        mean = sum(scores) / float(stages) if stages > 1 else scores[0]
        return head.predict_by_feat(
            rois.split(counts), mean.split(counts), boxes.split(counts), [s.metainfo for s in samples()],
            rcnn_test_cfg=ConfigDict(score_thr=0.05, nms=dict(type='nms', iou_threshold=0.9), max_per_img=9),
            rescale=True,
        )  # fmt: skip

    reader = RegionReader()
    *earlier, last = logits
    given = reader.give([last, deltas], earlier)
    with reader.reading(head):
        found = values_of([DetDataSample(pred_instances=part) for part in predict(*earlier, *given)])
    assert (found[:, -1] == 1).sum() > 4
    line = linearize_rows(reader.rows(), [*logits, deltas], found)
    leaves = [part.clone().requires_grad_() for part in (*logits, deltas)]
    whole = values_of([DetDataSample(pred_instances=part) for part in predict(*leaves)])
    assert torch.equal(whole.detach(), found)
    variances = [torch.rand(leaf.shape, generator=generator) for leaf in leaves]
    expected = number_by_number(whole, leaves, variances)
    torch.testing.assert_close(line.variance(variances), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('regions', [0, 5])
def test_regions_may_be_none_or_none_of_them_a_detection(regions):
    head, rois = region_head(reg_class_agnostic=False), torch.zeros(regions, 5)
    logits, deltas = torch.tensor([[0.0, 0, 0, 50]]).repeat(regions, 1), torch.zeros(regions, 12)
    reader = RegionReader()
    given = reader.give([logits, deltas], [])
    with reader.reading(head):
        results = head.predict_by_feat(
            [rois], [given[0]], [given[1]], [samples()[0].metainfo],
            rcnn_test_cfg=ConfigDict(score_thr=0.05, nms=dict(type='nms', iou_threshold=0.9), max_per_img=9),
            rescale=True,
        )  # fmt: skip
    line = linearize_rows(reader.rows(), [logits, deltas], values_of([DetDataSample(pred_instances=results[0])]))
    assert line.variance([logits, deltas]).shape == (0, 5)
