"""A small detector with the head under test, and what it looks at."""

import math

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

pytest.importorskip('mmdet')
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes

import mmrotate_plugin  # noqa: F401
from mmrotate_plugin.structures import tensor_of
from mmrotate_plugin.testing import randomize_norms_

SIZE = 193
WIDTH = 32  # channels of the pyramid


def nms(box_type):
    return dict(type='nms_rotated' if box_type == 'rbox' else 'nms', iou_threshold=0.1)


def detector(group='C8', box_type='rbox', kind='SingleStageDetector', fields=True, **head):
    """Three stages of a ResNet-18, two levels, five classes; `fields=False` makes backbone and neck ordinary too."""
    stages = dict(depth=18, base_channels=16, num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(1, 2))
    levels = dict(in_channels=[32, 64], out_channels=WIDTH, num_outs=2)
    if fields:
        given = group or 'C8'
        parts = dict(
            backbone=dict(type='mmrotate_plugin.ReResNet', group=given, **stages),
            neck=dict(type='mmrotate_plugin.ReFPN', group=given, **levels),
        )
    else:
        parts = dict(backbone=dict(type='mmdet.ResNet', **stages), neck=dict(type='mmdet.FPN', **levels))
    options = dict(
        num_classes=5,
        in_channels=WIDTH,
        feat_channels=WIDTH,
        stacked_convs=1,
        strides=(8, 16),
        regress_ranges=((-1, 24), (24, 1e8)),
        norm_cfg=dict(type='GN', num_groups=2),
        box_type=box_type,
        group=group,
    )
    net = MODELS.build(
        dict(
            type=f'mmdet.{kind}',
            **parts,
            bbox_head=dict(type='mmrotate_plugin.ReFCOSHead', **{**options, **head}),
            test_cfg=ConfigDict(nms_pre=300, score_thr=0.01, nms=nms(box_type), max_per_img=40),
        )
    )
    net.init_weights()
    randomize_norms_(net)
    with torch.no_grad():  # outputs that differ from place to place
        for name in ('conv_cls', 'conv_reg'):
            getattr(net.bbox_head, name).weight.normal_(std=0.1)
    return net.eval()


def rotated(boxes):
    return pytest.importorskip('mmrotate.structures.bbox').RotatedBoxes(boxes)


def sample(boxes=None, labels=None, ignored=None, box_type='rbox'):
    made = DetDataSample(metainfo=dict(img_shape=(SIZE, SIZE), ori_shape=(SIZE, SIZE), scale_factor=(1.0, 1.0)))
    wrap, columns = (rotated, 5) if box_type == 'rbox' else (HorizontalBoxes, 4)
    boxes = torch.zeros(0, columns) if boxes is None else boxes
    labels = torch.zeros(len(boxes), dtype=torch.long) if labels is None else labels
    made.gt_instances = InstanceData(bboxes=wrap(boxes), labels=labels)
    ignored = torch.zeros(0, columns) if ignored is None else ignored
    made.ignored_instances = InstanceData(bboxes=wrap(ignored), labels=torch.zeros(len(ignored), dtype=torch.long))
    return made


def turned(boxes, quarter_turns, flip=False):
    """Boxes of an image that is flipped left-right and then turned counter-clockwise."""
    boxes = boxes.clone()
    if boxes.shape[1] == 4:
        corners = boxes.view(-1, 2, 2)
        if flip:
            corners = torch.stack([SIZE - corners[..., 0], corners[..., 1]], -1)
        for _ in range(quarter_turns):
            corners = torch.stack([corners[..., 1], SIZE - corners[..., 0]], -1)
        return torch.cat([corners.amin(1), corners.amax(1)], 1)
    if flip:
        boxes[:, 0], boxes[:, 4] = SIZE - boxes[:, 0], math.pi - boxes[:, 4]
    for _ in range(quarter_turns):
        boxes[:, 0], boxes[:, 1] = boxes[:, 1].clone(), SIZE - boxes[:, 0]
        boxes[:, 4] -= math.pi / 2
    return boxes


def detect(net, image):
    with torch.no_grad():
        found = net(image, [sample(box_type=net.bbox_head.box_type)], mode='predict')[0].pred_instances
    return tensor_of(found.bboxes), found.scores, found.labels
