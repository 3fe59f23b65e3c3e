"""An mmrotate config swaps its backbone for ReResNet by name, and everything else keeps working."""

import json
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

import mmrotate_plugin  # noqa: F401

mmrotate = pytest.importorskip('mmrotate')

CONFIGS = Path(mmrotate.__file__).parent / '.mim' / 'configs'
# Of mmrotate's configs with a ResNet there are 34 that differ in the kinds of their parts. These train a step and
# predict on a CPU with the plain ResNet; the others need operators that exist for CUDA only (convex_iou in cfa,
# oriented_reppoints, rotated_reppoints, sasm_reppoints; diff_iou_rotated in rotated_atss, rotated_fcos-le90), or name a
# detector that mmrotate does not have (s2anet-le135_r50_fpn_3x_hrsc).
NAMES = [
    'csl/rotated-retinanet-rbox-le90_r50_fpn_csl-gaussian_amp-1x_dota',
    'gliding_vertex/gliding-vertex-qbox_r50_fpn_1x_dota',
    'gliding_vertex/gliding-vertex-rbox_r50_fpn_1x_dota',
    'gwd/rotated-retinanet-hbox-oc_r50_fpn_gwd_1x_dota',
    'gwd/rotated-retinanet-rbox-le90_r50_fpn_gwd_1x_dota',
    'h2rbox/dior/h2rbox-le90_r50_fpn_adamw-1x_dior',
    'h2rbox_v2/h2rbox_v2-le90_r50_fpn-1x_dota',
    'kfiou/r3det-oc_r50_fpn_kfiou-ln_1x_dota',
    'kfiou/roi-trans-le90_r50_fpn_kfiou-ln_1x_dota',
    'kfiou/rotated-retinanet-hbox-le135_r50_fpn_kfiou_1x_dota',
    'kfiou/s2anet-le135_r50_fpn_kfiou-ln_1x_dota',
    'kld/r3det-oc_r50_fpn_kld-stable_1x_dota',
    'kld/r3det-oc_r50_fpn_kld_1x_dota',
    'kld/rotated-retinanet-hbox-oc_r50_fpn_kld_1x_dota',
    'kld/rotated-retinanet-rbox-le90_r50_fpn_kld_1x_dota',
    'oriented_rcnn/oriented-rcnn-le90_r50_fpn_1x_dota',
    'psc/rotated-fcos-hbox-le90_r50_fpn_psc-dual_1x_dota',
    'psc/rotated-retinanet-rbox-le90_r50_fpn_psc-dual_amp-1x_dota',
    'r3det/r3det-oc_r50_fpn_1x_dota',
    'roi_trans/roi-trans-le135_r50_fpn_1x_dota',
    'rotated_faster_rcnn/rotated-faster-rcnn-le90_r50_fpn_1x_dota',
    'rotated_fcos/rotated-fcos-hbox-le90_r50_fpn_1x_dota',
    'rotated_fcos/rotated-fcos-hbox-le90_r50_fpn_csl-gaussian_1x_dota',
    'rotated_fcos/rotated-fcos-le90_r50_fpn_kld_1x_dota',
    'rotated_retinanet/rotated-retinanet-hbox-le135_r50_fpn_1x_dota',
    'rotated_retinanet/rotated-retinanet-rbox-le135_r50_fpn_1x_dota',
    's2anet/cascade-s2anet-le135_r50_fpn_1x_dota',
]


def box_type(cfg):
    """The kind of boxes that the config's training pipeline ends with."""
    kinds = re.findall(r'"gt_bboxes": "(\w+)"', json.dumps(cfg.train_pipeline))
    return kinds[-1] if kinds else 'qbox'


def positive_widths(net):
    """An untrained FCOS head predicts boxes of width zero, of which KLD makes NaN, whatever the backbone."""
    torch.nn.init.constant_(net.bbox_head.conv_reg.bias, 4.0)


@pytest.mark.slow
@pytest.mark.parametrize('name', NAMES)
def test_swapped_config_trains_and_predicts(name, step_and_predict):
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    old = cfg.model.backbone
    options = {k: old[k] for k in ('num_stages', 'out_indices', 'norm_cfg', 'zero_init_residual') if k in old}
    cfg.model.backbone = dict(type='mmrotate_plugin.ReResNet', depth=18, **options)
    assert cfg.model.neck.in_channels == [256, 512, 1024, 2048]
    cfg.model.neck.in_channels = [64, 128, 256, 512]
    prepare = positive_widths if 'fcos-le90_r50_fpn_kld' in name else None
    net, loss, predictions = step_and_predict(cfg, box_type(cfg), prepare=prepare)
    assert torch.isfinite(loss)
    grads = {n: p.grad for n, p in net.backbone.named_parameters()}
    assert not [n for n, g in grads.items() if g is None or not torch.isfinite(g).all()]
    assert predictions.scores.shape[0] == predictions.bboxes.shape[0]


# all of NAMES pass; these differ most in what follows the backbone
ADF_NAMES = [
    'gwd/rotated-retinanet-hbox-oc_r50_fpn_gwd_1x_dota',
    'h2rbox_v2/h2rbox_v2-le90_r50_fpn-1x_dota',
    'oriented_rcnn/oriented-rcnn-le90_r50_fpn_1x_dota',
    'rotated_fcos/rotated-fcos-hbox-le90_r50_fpn_1x_dota',
]


@pytest.mark.slow
@pytest.mark.parametrize(
    'name, options',
    [*((name, {}) for name in ADF_NAMES), (ADF_NAMES[0], dict(mean='adf', noise_std=8.0, std=[58.395, 57.12, 57.375]))],
)
def test_adf_resnet_takes_the_place_of_the_resnet(name, options, step_and_predict):
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    old = cfg.model.backbone
    cfg.model.backbone = {**old, 'type': 'mmrotate_plugin.ADFResNet', 'depth': 18, 'init_cfg': None, **options}
    cfg.model.neck.in_channels = [64, 128, 256, 512]
    net, loss, predictions = step_and_predict(cfg, box_type(cfg))
    assert torch.isfinite(loss)
    learning = {n: p.grad for n, p in net.backbone.named_parameters() if p.requires_grad}
    assert learning and not [n for n, g in learning.items() if g is None or not torch.isfinite(g).all()]
    assert predictions.scores.shape[0] == predictions.bboxes.shape[0]
