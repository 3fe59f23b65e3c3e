"""Detectors of mmdet and mmrotate, unmodified, give detections with standard deviations."""

from importlib import import_module
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from narrow import narrow_

import mmrotate_plugin  # noqa: F401
from mmrotate_plugin.registry import MODELS

SIZE = 64
ROTATED = [
    'rotated_retinanet/rotated-retinanet-rbox-le90_r50_fpn_1x_dota',
    'rotated_fcos/rotated-fcos-hbox-le90_r50_fpn_1x_dota',
    'rotated_atss/rotated-atss-le90_r50_fpn_1x_dota',
    's2anet/s2anet-le135_r50_fpn_1x_dota',
    'oriented_rcnn/oriented-rcnn-le90_r50_fpn_1x_dota',
    'roi_trans/roi-trans-le90_r50_fpn_1x_dota',
    'rotated_faster_rcnn/rotated-faster-rcnn-le90_r50_fpn_1x_dota',
]
STRAIGHT = [
    'retinanet/retinanet_r50_fpn_1x_coco',
    'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco',
    'atss/atss_r50_fpn_1x_coco',
    'pafpn/faster-rcnn_r50_pafpn_1x_coco',
]
REDET = Path(__file__).parents[3] / 'configs/synthetic/redet_re18_refpn_synthetic.py'


def config_of(name):
    if name == 'redet':
        return Config.fromfile(REDET)
    host = import_module('mmrotate' if name in ROTATED else 'mmdet')
    return Config.fromfile(Path(host.__file__).parent / '.mim/configs' / f'{name}.py')


def shrink_(model):
    """ResNet-18, few proposals, and scores low enough that random weights detect something."""
    if model.backbone.type.endswith('.ResNet') or model.backbone.type == 'ResNet':
        model.backbone.update(depth=18, init_cfg=None)
        model.neck.in_channels = [64, 128, 256, 512]
        narrow_(model)
    test = model.test_cfg
    if 'rpn' in test:
        test.rpn.update(nms_pre=20, max_per_img=8)
    last = test.get('rcnn', test)
    last.update(score_thr=0.0, nms_pre=20, max_per_img=6)


def samples_of():
    from mmdet.structures import DetDataSample

    meta = dict(img_shape=(SIZE, SIZE), ori_shape=(SIZE, SIZE), scale_factor=(1.0, 1.0), img_id=0)
    return [DetDataSample(metainfo=meta)]


@pytest.mark.slow
@pytest.mark.parametrize('name', [*ROTATED, *STRAIGHT, 'redet'])
def test_detector_says_how_sure_it_is(name):
    from mmdet.registry import MODELS as MMDET_MODELS
    from mmdet.utils import register_all_modules as register_mmdet

    register_mmdet(init_default_scope=False)
    if name not in STRAIGHT:
        import_module('mmrotate.utils').register_all_modules(init_default_scope=False)
    cfg = config_of(name)
    init_default_scope('mmdet' if name in STRAIGHT else 'mmrotate')
    shrink_(cfg.model)
    detector = MMDET_MODELS.build(cfg.model)
    detector.init_weights()
    with torch.no_grad():  # heads start so small that all scores are equal
        for key, parameter in detector.named_parameters():
            if 'head' in key and parameter.dim() > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
    net = MODELS.build(dict(type='mmrotate_plugin.UncertainDetector', detector=detector, noise_std=8.0)).eval()
    image = torch.randn(1, 3, SIZE, SIZE)
    with torch.no_grad():
        (plain,) = detector.predict(image.clone(), samples_of())
        (found,) = net.predict(image.clone(), samples_of())
    plain, found = plain.pred_instances, found.pred_instances
    assert len(plain) > 0
    for key in ('scores', 'labels', 'bboxes'):
        a, b = (getattr(part[key], 'tensor', part[key]) for part in (plain, found))
        assert torch.equal(a, b), key
    assert net.trace.readable  # the kept rows were decoded again, and are the detections
    net.trace.readable = False
    (whole,) = net.predict(image.clone(), samples_of())
    for key in ('scores_std', 'bboxes_std'):
        torch.testing.assert_close(found[key], whole.pred_instances[key], rtol=1e-5, atol=1e-6)
    assert torch.isfinite(found.scores_std).all() and (found.scores_std > 0).all()
    boxes = getattr(found.bboxes, 'tensor', found.bboxes)
    # sides, or the centre of a rotated box, that the coder clips to the image do not move
    border = SIZE if boxes.shape[1] == 4 else SIZE - 1
    clipped = (boxes == 0) | (boxes == border)
    clipped[:, 4 if boxes.shape[1] == 4 else 2 :] = False
    assert torch.isfinite(found.bboxes_std).all() and torch.equal(found.bboxes_std > 0, ~clipped)
    assert not clipped.all()
