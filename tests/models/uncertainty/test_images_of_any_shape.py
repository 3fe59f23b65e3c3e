"""Detections with deviations of images that a resize stretched, or put into the middle of the input."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

pytest.importorskip('mmrotate')
from mmdet.structures import DetDataSample

from mmrotate_plugin.models.detectors.uncertain_detector import UncertainDetector
from mmrotate_plugin.structures import CentredScale

SIZE = 65
OFFSET = (12.5, 4.0)


@pytest.fixture(scope='module')
def net():
    from mmdet.registry import MODELS
    from mmrotate.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    cfg = Config.fromfile(Path(__file__).parents[3] / 'configs/adf/rotated-fcos_adfr18_fpn_synthetic.py')
    init_default_scope('mmrotate')
    cfg.model.test_cfg.update(score_thr=0.0, max_per_img=12)
    torch.manual_seed(0)
    net = MODELS.build(cfg.model)
    net.init_weights()
    nn.init.normal_(net.bbox_head.conv_cls.weight, std=0.1)
    nn.init.normal_(net.bbox_head.conv_angle.weight, std=0.1)
    return net.eval()


def sample(scale, offset=(0, 0)):
    shape = [round((SIZE - 2 * o) / s) for o, s in zip(offset, scale, strict=True)][::-1]
    scale = CentredScale(scale, offset) if any(offset) else scale
    return [DetDataSample(metainfo=dict(img_shape=(SIZE, SIZE), ori_shape=shape, scale_factor=scale, img_id=0))]


@pytest.mark.parametrize('enabled', [True, False])
def test_detections_come_back_from_the_middle_of_the_input(net, enabled):
    image = torch.randn(1, 3, SIZE, SIZE)
    model = UncertainDetector(net, noise_variance=1e-4, enabled=enabled).eval()
    with torch.no_grad():
        (inside,) = net.predict(image, sample((1.0, 1.0)))  # in pixels of the input
        (plain,) = net(image, sample((0.5, 0.5), OFFSET), mode='predict')
        (out,) = model(image, sample((0.5, 0.5), OFFSET), mode='predict')
    boxes = inside.pred_instances.bboxes
    expected = torch.cat([(boxes[:, :2] - torch.tensor(OFFSET)) / 0.5, boxes[:, 2:4] / 0.5, boxes[:, 4:]], 1)
    end = torch.tensor([80.0, 114.0])  # of the image, (65 - 2 * 12.5) / 0.5 and (65 - 2 * 4) / 0.5
    kept = ((expected[:, :2] >= 0) & (expected[:, :2] <= end)).all(1)
    assert kept.sum() > 0
    assert torch.allclose(plain.pred_instances.bboxes[:, :4], expected[kept][:, :4], atol=1e-4)
    assert torch.equal(out.pred_instances.bboxes, plain.pred_instances.bboxes)
    if enabled:
        assert out.pred_instances.bboxes_std.shape == out.pred_instances.bboxes.shape
    with torch.no_grad():
        (raw,) = model.predict(image, sample((0.5, 0.5), OFFSET), rescale=False)
    assert torch.allclose(raw.pred_instances.bboxes[:, :4], boxes[:, :4], atol=1e-4)


def test_padding_has_no_noise(net):
    noise = UncertainDetector(net, noise_variance=1e-4).noise(torch.randn(1, 3, SIZE, SIZE), sample((0.5, 0.5), OFFSET))
    rows, columns = noise[0, 0].nonzero().unbind(1)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 60, 12, 52)
    whole = UncertainDetector(net, noise_variance=1e-4).noise(torch.randn(1, 3, SIZE, SIZE), sample((0.5, 0.5)))
    assert (whole > 0).all()


def test_deviations_follow_unequal_factors(net):
    """Two independent ways: derivatives of the whole map, and boxes of noisy images."""
    image = torch.randn(1, 3, SIZE, SIZE)
    scale = (0.4, 0.9)
    first, truth = (
        UncertainDetector(net, noise_variance=1e-6, method=method, num_samples=60).predict(image, sample(scale))[0]
        for method in ('jacobian', 'monte_carlo')
    )
    first, truth = first.pred_instances, truth.pred_instances
    moves = truth.bboxes_std > 1e-5
    ratio = (first.bboxes_std / truth.bboxes_std)[moves]
    # 5 standard errors of a standard deviation of 60 samples, of the median of many
    assert (ratio.median() - 1).abs() < 5 / 120**0.5 and moves.all(0).sum() == 5
