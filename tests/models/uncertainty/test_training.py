"""The loss that takes the propagated variance, in unmodified dense heads."""

from pathlib import Path

import mmdet
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import nn

from mmrotate_plugin.models.detectors.uncertain_detector import UncertainDetector
from mmrotate_plugin.models.losses import HeteroscedasticLoss
from mmrotate_plugin.models.uncertainty.head_trace import UnsupportedDetector

mmrotate = pytest.importorskip('mmrotate')

SIZE = 129  # two pixels at a stride of 128, which group norms ask for
HOSTS = {'mmdet': mmdet, 'mmrotate': mmrotate}
HEADS = {
    'mmdet retinanet': ('retinanet/retinanet_r50_fpn_1x_coco', 4),
    'mmdet fcos': ('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco', 4),
    'mmdet atss': ('atss/atss_r50_fpn_1x_coco', 4),
    'mmrotate retinanet': ('rotated_retinanet/rotated-retinanet-rbox-le90_r50_fpn_1x_dota', 5),
    'mmrotate fcos': ('rotated_fcos/rotated-fcos-hbox-le90_r50_fpn_1x_dota', 4),
}


def build(name, columns, **head):
    """A small one of a host's detectors, with the loss."""
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules as register_mmdet
    from mmrotate.utils import register_all_modules as register_mmrotate

    register_mmdet(init_default_scope=False)
    register_mmrotate(init_default_scope=False)
    host = next(host for host in HOSTS.values() if (configs(host) / f'{name}.py').exists())
    cfg = Config.fromfile(configs(host) / f'{name}.py')
    init_default_scope(host.__name__)
    cfg.model.backbone = dict(
        type='mmrotate_plugin.ADFResNet', depth=18, base_channels=16, norm_eval=True,
        init_cfg=dict(type='Constant', layer='BatchNorm2d', val=1),
    )  # fmt: skip
    cfg.model.neck.update(in_channels=[16, 32, 64, 128], out_channels=32)
    cfg.model.bbox_head.update(in_channels=32, feat_channels=32, stacked_convs=1, **head)
    cfg.model.bbox_head.loss_bbox = dict(type='mmrotate_plugin.HeteroscedasticLoss', columns=columns)
    torch.manual_seed(0)
    detector = MODELS.build(cfg.model)
    detector.init_weights()
    return UncertainDetector(detector, noise_std=8.0).train()


def configs(host):
    return Path(host.__file__).parent / '.mim/configs'


def sample(rotated, boxes=2):
    from mmdet.structures import DetDataSample
    from mmrotate.structures import RotatedBoxes

    found = RotatedBoxes(torch.tensor([[20.0, 30, 30, 16, 0.3], [45, 40, 24, 20, -0.4]])[:boxes])
    empty = found[:0]
    if not rotated:
        found, empty = found.convert_to('hbox').tensor, torch.zeros(0, 4)
    shape = (SIZE, SIZE)
    out = DetDataSample(metainfo=dict(img_shape=shape, ori_shape=shape, pad_shape=shape, scale_factor=(1, 1)))
    out.gt_instances = InstanceData(bboxes=found, labels=torch.zeros(boxes, dtype=torch.long))
    out.ignored_instances = InstanceData(bboxes=empty, labels=torch.zeros(0, dtype=torch.long))
    return [out]


def step(model, rotated, boxes=2):
    losses = model(torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)), sample(rotated, boxes),
                   mode='loss')  # fmt: skip
    total, logged = model.parse_losses(losses)
    total.backward()
    return total, logged


@pytest.mark.slow
@pytest.mark.parametrize('name', HEADS)
def test_a_step_of_each_head(name):
    config, columns = HEADS[name]
    model = build(config, columns)
    total, logged = step(model, 'mmrotate' in name)
    assert torch.isfinite(total) and logged['loss_bbox'] != 0
    for key, parameter in model.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), key
    gain = model.bbox_head.loss_bbox.log_gain.grad
    assert gain.shape == (columns,) and (gain != 0).all()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    optimizer.step()
    assert torch.isfinite(step(model, 'mmrotate' in name)[0])


def test_variance_reaches_the_loss_and_the_weights():
    """The control: without the variance, the loss is another and its gain learns nothing."""
    model = build(*HEADS['mmrotate fcos'])
    _, with_noise = step(model, True)
    gains = [model.bbox_head.loss_bbox.log_gain.grad.clone()]
    model.zero_grad()
    model.noise.noise_std = 0.0
    _, without = step(model, True)
    gains.append(model.bbox_head.loss_bbox.log_gain.grad)
    assert (gains[0] != 0).all() and (gains[1] == 0).all()
    assert with_noise['loss_bbox'] != without['loss_bbox']
    # all other losses see the means alone, which are those of the plain network
    for name in ('loss_cls', 'loss_centerness', 'loss_angle'):
        assert with_noise[name] == without[name]


def test_an_image_without_objects():
    model = build(*HEADS['mmrotate fcos'])
    total, _ = step(model, True, boxes=0)
    assert torch.isfinite(total)


def test_other_losses_train_as_ever():
    model = build(*HEADS['mmrotate fcos'])
    model.bbox_head.loss_bbox = plain = nn.Module()
    plain.forward = lambda pred, target, weight, avg_factor: ((pred - target).abs().sum(1) * weight).sum() / avg_factor
    torch.manual_seed(0)
    x = torch.randn(1, 3, SIZE, SIZE)
    assert torch.equal(model.loss(x, sample(True))['loss_bbox'], model.detector.loss(x, sample(True))['loss_bbox'])


def test_angles_may_have_it_too():
    angle = dict(type='mmrotate_plugin.HeteroscedasticLoss', columns=1)
    model = build(*HEADS['mmrotate fcos'], loss_angle=angle)
    step(model, True)
    assert (model.bbox_head.loss_angle.log_gain.grad != 0).all()


def test_heads_that_cannot():
    model = build('rotated_fcos/rotated-fcos-le90_r50_fpn_1x_dota', 5)
    with pytest.raises(UnsupportedDetector, match=r'RotatedFCOSHead cannot hand .*cos.* supported are the'):
        step(model, True)
    model = build(*HEADS['mmrotate fcos'])
    model.bbox_head.loss_cls = HeteroscedasticLoss(4)
    with pytest.raises(UnsupportedDetector, match=r"'bbox_head.loss_cls' of RotatedFCOSHead .* supported are"):
        step(model, True)
    model = build(*HEADS['mmrotate fcos'])
    model.enabled = False
    with pytest.raises(TypeError, match='put the detector into an enabled'):
        step(model, True)
