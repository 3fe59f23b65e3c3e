"""What a report says about the run."""

from types import SimpleNamespace

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import DefaultScope

from mmrotate_plugin.engine.report.collect import facts_of
from mmrotate_plugin.models.utils.complexity import count_macs


@pytest.mark.needs_torch('2.1', 'torch.utils.flop_counter')
def test_multiply_adds_of_a_two_stage_detector_are_those_of_a_prediction():
    model = get_config('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py').model
    model.backbone.update(depth=18, base_channels=8, init_cfg=None)
    model.neck.update(in_channels=[8, 16, 32, 64], out_channels=16)
    model.rpn_head.update(in_channels=16, feat_channels=16)
    model.roi_head.bbox_roi_extractor.out_channels = model.roi_head.bbox_head.in_channels = 16
    model.roi_head.bbox_head.update(fc_out_channels=32, num_classes=3)
    with DefaultScope.overwrite_default_scope('mmdet'):
        detector = MODELS.build(model).eval()
    x, shape = torch.zeros(1, 3, 64, 64), (64, 64)
    facts = facts_of(SimpleNamespace(model=detector, cfg=Config(), experiment_name='x', seed=0), (3, 64, 64))
    sample = DetDataSample(metainfo=dict(img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0), img_id=0))
    assert facts['macs'] == count_macs(detector, lambda: detector.predict(x, [sample], rescale=False))
    assert facts['macs'] > count_macs(detector, lambda: detector.rpn_head(detector.extract_feat(x)))
    assert facts['macs_of'].startswith('backbone, neck, rpn_head, roi_head, ') and facts['macs_of'].endswith(' regions')
