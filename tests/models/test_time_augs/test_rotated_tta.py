"""Views of an image: detections come back to their pixels, and views that agree give what each of them gives."""

import math
from copy import deepcopy

import numpy as np
import pytest
import torch

pytest.importorskip('mmdet')
from mmcv import transforms
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData
from torch import nn

from mmrotate_plugin.models.test_time_augs.rotated_tta import RotatedTTAModel
from mmrotate_plugin.utils.errors import UsageError

SIZE = 60, 90  # height and width
META = ('img_id', 'ori_shape', 'img_shape', 'scale_factor', 'homography_matrix')
KEEP = dict(type='mmrotate_plugin.SymmetricResize')
WHOLE = [dict(type='mmrotate_plugin.TurnImage', degrees=0)]
BOXES = np.array([[31.5, 22.25, 20, 8, 0.4], [70, 40, 6, 13, -1.3], [45, 30, 30, 29, 1.5]])


def corners(boxes):
    c, s = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    u, v = np.stack([c, s], 1) * boxes[:, 2:3] / 2, np.stack([-s, c], 1) * boxes[:, 3:4] / 2
    return boxes[:, None, :2] + np.stack([-u - v, u - v, u + v, -u + v], 1)


def rectangles(points):
    """Boxes of four corners in either sense of rotation."""
    w, h = points[:, 1] - points[:, 0], points[:, 2] - points[:, 1]
    sides = np.hypot(*w.T), np.hypot(*h.T)
    return np.column_stack([points.mean(1), *sides, np.arctan2(w[:, 1], w[:, 0])])


def quarter(points, size):
    """One quarter turn counter-clockwise, as np.rot90: what was at the right comes to the top."""
    x, y = np.moveaxis(points, -1, 0)
    return np.stack([y, size[1] - x], -1), size[::-1]


def mirror(points, size):
    x, y = np.moveaxis(points, -1, 0)
    return np.stack([size[1] - x, y], -1), size


def turn(degrees, flip=False):
    return [dict(type='mmrotate_plugin.TurnImage', degrees=degrees, flip=flip)]


def flip(direction):
    return [KEEP, dict(type='mmdet.RandomFlip', prob=1.0, direction=direction)]


# steps, quarter turns, whether mirrored before, and scale, each as the name of the transform says
VIEWS = {
    **{f'turn {90 * k}': (turn(90 * k), k, False, 1) for k in (1, 2, 3)},
    **{f'mirrored, turn {90 * k}': (turn(90 * k, flip=True), k, True, 1) for k in range(4)},
    'flip horizontal': (flip('horizontal'), 0, True, 1),
    'flip vertical': (flip('vertical'), 2, True, 1),
    'flip diagonal': (flip('diagonal'), 2, False, 1),
    'half size': ([dict(type='mmrotate_plugin.SymmetricResize', scale_factor=0.5)], 0, False, 0.5),
    'turned, larger': ([*turn(90), dict(type='mmrotate_plugin.SymmetricResize', scale_factor=1.7)], 1, False, 1.7),
    'mmdet': (
        [*turn(270), dict(type='mmdet.Resize', scale=(180, 120), keep_ratio=True),
         dict(type='mmdet.RandomFlip', prob=1.0), dict(type='mmdet.Pad', size=(200, 200))], 1, True, 2,
    ),
}  # fmt: skip


def batch(views, image=None, keys=META, number=1):
    """A batch of one image, as a loader gives it to the model."""
    image = np.zeros((*SIZE, 3), np.uint8) if image is None else image
    steps = [
        [*view, *([KEEP] if view is WHOLE else []), dict(type='mmdet.PackDetInputs', meta_keys=keys)] for view in views
    ]
    results = []
    for view in steps:
        data = dict(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2], img_id=7)
        results.append(transforms.TestTimeAug([[step] for step in view])(data))
    data = {key: [one[key][0] for one in results] for key in results[0]}
    return pseudo_collate([deepcopy(data) for _ in range(number)])


class Told(nn.Module):
    """Gives boxes that are known in the frame of each view, in order."""

    def __init__(self, views, **fields):
        super().__init__()
        self.views, self.fields = list(views), fields

    def test_step(self, data):
        boxes = torch.tensor(self.views.pop(0), dtype=torch.float64)
        for sample in data['data_samples']:
            found = InstanceData(
                bboxes=boxes, scores=0.9 - 0.1 * torch.arange(len(boxes)), labels=torch.arange(len(boxes))
            )
            for name, values in self.fields.items():
                found.set_field(values[: len(boxes)].clone(), name)
            sample.pred_instances = found
        return data['data_samples']


@pytest.mark.parametrize('name', VIEWS)
@pytest.mark.parametrize('kind', ['nms_rotated', 'weighted_boxes'])
def test_boxes_come_back_from_each_augmentation(name, kind):
    steps, quarters, mirrored, _ = VIEWS[name]
    points, size = corners(BOXES), SIZE
    if mirrored:
        points, size = mirror(points, size)
    for _ in range(quarters):
        points, size = quarter(points, size)
    model = RotatedTTAModel(Told([BOXES[:0], rectangles(points)]), dict(nms=dict(type=kind)), keep_views=True)
    (sample,) = model.test_step(batch([WHOLE, steps]))
    found = sample.pred_instances
    assert found.labels.tolist() == [0, 1, 2] and sample.metainfo['tta_view'] == 0
    back = corners(found.bboxes.numpy())
    apart = min(
        np.abs(np.roll(order, shift, 1) - corners(BOXES)).max()
        for shift in range(4) for order in (back, back[:, ::-1])
    )  # fmt: skip
    assert apart < 1e-4  # of a pixel
    moved = np.abs(points.mean(1) - BOXES[:, :2]).max()
    assert moved > 10 or not (quarters or mirrored), 'boxes left where they are would not pass'
    whole, view = sample.tta_views
    assert (whole['degrees'], whole['mirrored'], whole['scale']) == (0, False, 1)
    assert (view['degrees'], view['mirrored']) == (90 * quarters, mirrored)
    assert view['scale'] == pytest.approx(VIEWS[name][3])


def test_angles_off_the_grid_come_back():
    angle = math.radians(-30)  # counter-clockwise, and y points down
    middle, c, s = np.array(SIZE[::-1]) / 2, math.cos(angle), math.sin(angle)
    points = (corners(BOXES) - middle) @ np.array([[c, s], [-s, c]]) + middle
    (sample,) = RotatedTTAModel(Told([BOXES[:0], rectangles(points)])).test_step(batch([WHOLE, [*turn(30), KEEP]]))
    assert np.abs(corners(sample.pred_instances.bboxes.numpy()) - corners(BOXES)).max() < 1e-4


class Blobs(nn.Module):
    """Finds bright blobs by their moments, which turn with the image; `bias` does not."""

    def __init__(self, bias=0.0):
        super().__init__()
        self.bias = bias

    def test_step(self, data):
        import cv2

        for pixels, sample in zip(data['inputs'], data['data_samples'], strict=True):
            image = pixels[0].double().numpy()
            count, parts = cv2.connectedComponents((image > 60).astype(np.uint8))
            y, x = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
            rows = []
            for part in range(1, count):
                weight = np.where(parts == part, image, 0)
                weight /= weight.sum()
                cx, cy = (weight * x).sum(), (weight * y).sum()
                xx, yy = (weight * (x - cx) ** 2).sum(), (weight * (y - cy) ** 2).sum()
                xy = (weight * (x - cx) * (y - cy)).sum()
                root = math.hypot((xx - yy) / 2, xy)
                sides = [4 * math.sqrt((xx + yy) / 2 + sign * root) for sign in (1, -1)]
                rows.append([cx + self.bias, cy, *sides, math.atan2(2 * xy, xx - yy) / 2])
            boxes = torch.tensor(rows, dtype=torch.float64)
            found = InstanceData(bboxes=boxes, scores=boxes[:, 2] / 30, labels=torch.zeros(len(boxes)).long())
            offset = (np.array(sample.img_shape[::-1]) - np.array(sample.ori_shape[::-1])) / 2
            boxes[:, :2] -= torch.as_tensor(offset)
            sample.pred_instances = found[found.scores.argsort(descending=True)]
        return data['data_samples']


def blobs():
    image = np.zeros(SIZE)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    for i, (cx, cy, angle) in enumerate(((20, 20, 0.4), (60, 15, -1.0), (30, 45, 1.57), (70, 42, 0.785))):
        u = math.cos(angle) * (x - cx) + math.sin(angle) * (y - cy)
        v = -math.sin(angle) * (x - cx) + math.cos(angle) * (y - cy)
        image += 200 * np.exp(-(u**2) / (30 + 8 * i) - v**2 / 8)
    return np.repeat(image[..., None].round().astype(np.uint8), 3, axis=2)


QUARTERS = [WHOLE, *([*turn(degrees, flip=f), KEEP] for f in (False, True) for degrees in (90, 180, 270))]


@pytest.mark.parametrize('kind', ['nms_rotated', 'weighted_boxes'])
@pytest.mark.parametrize('bias', [0.0, 0.7])
def test_an_equivariant_detector_gives_what_it_gives_without(kind, bias):
    (alone,) = Blobs(bias).test_step({key: views[0] for key, views in batch([WHOLE], blobs()).items()})
    expected = alone.pred_instances
    model = RotatedTTAModel(Blobs(bias), dict(nms=dict(type=kind)), keep_views=True)
    results = model.test_step(batch(QUARTERS, blobs(), number=2))
    assert len(results) == 2 and len(expected) == 4
    for sample in results:
        found = sample.pred_instances
        apart = np.abs(corners(found.bboxes.numpy()) - corners(expected.bboxes.numpy())).max()
        views = [view['bboxes'] for view in sample.tta_views]
        spread = max(float((view[:, :2] - views[0][:, :2]).abs().max()) for view in views)
        if bias:  # the control: views that disagree move the average
            assert spread > 1
            assert kind == 'nms_rotated' or apart > 0.4
        else:
            assert len(found) == 4 and apart < 1e-9 and spread < 1e-9
            assert torch.allclose(found.scores, expected.scores, atol=1e-12)


@pytest.mark.parametrize('kind', ['nms_rotated', 'weighted_boxes'])
def test_deviations_turn_along(kind):
    std = torch.tensor([[1.0, 2, 3, 4, 0.1], [5, 6, 7, 8, 0.2], [9, 10, 11, 12, 0.3]])
    points, _ = quarter(corners(BOXES), SIZE)
    told = Told([BOXES[:0], rectangles(points)], bboxes_std=std, scores_std=std[:, 4])
    (sample,) = RotatedTTAModel(told, dict(nms=dict(type=kind))).test_step(batch([WHOLE, VIEWS['turn 90'][0]]))
    found = sample.pred_instances
    assert torch.allclose(found.bboxes_std, std[:, [1, 0, 2, 3, 4]])
    factor = 0.5 if kind == 'weighted_boxes' else 1  # half of the views found it
    assert torch.allclose(found.scores_std, factor * std[:, 4])


def test_without_detections_the_result_is_empty():
    (sample,) = RotatedTTAModel(Told([BOXES[:0]] * 2)).test_step(batch([WHOLE, VIEWS['turn 90'][0]]))
    assert len(sample.pred_instances) == 0


def test_the_number_of_detections_is_limited():
    (sample,) = RotatedTTAModel(Told([BOXES, BOXES]), dict(max_per_img=2)).test_step(batch([WHOLE, WHOLE]))
    assert sample.pred_instances.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ('views', 'keys', 'said'),
    [
        ([WHOLE], META[:-1], "PackDetInputs must have 'homography_matrix' among its meta_keys"),
        ([VIEWS['turn 90'][0]], META, r'none of the 1 views shows the image as it is \(90 degrees\)'),
        (
            [WHOLE, [dict(type='mmdet.Resize', scale=(90, 30), keep_ratio=False), *turn(90)]], META,
            'view 2: the map .* is not a turn or reflection at one scale: turn and reflect before Resize',
        ),
    ],
)  # fmt: skip
def test_views_whose_map_is_unknown_are_refused(views, keys, said):
    with pytest.raises(UsageError, match=said):
        RotatedTTAModel(Told([BOXES] * 2)).test_step(batch(views, keys=keys))


@pytest.mark.parametrize(
    ('cfg', 'said'),
    [
        (dict(nms=dict(type='soft_nms')), "tta_cfg.nms.type='soft_nms' must be one of 'nms_rotated', 'nms', 'weighted"),
        (dict(nms=dict(iou_threshold=2)), 'tta_cfg.nms.iou_threshold=2 must be between 0 and 1'),
        (dict(max_per_img=0), 'tta_cfg.max_per_img=0 must be a positive integer'),
        (dict(nms=dict(min_score=0)), 'tta_cfg.nms.min_score is unknown'),
    ],
)
def test_arguments_are_checked(cfg, said):
    with pytest.raises(ValueError, match=said):
        RotatedTTAModel(Told([]), cfg)


def test_masks_are_refused():
    told = Told([BOXES] * 2, masks=torch.zeros(3, *SIZE))
    with pytest.raises(UsageError, match='gives masks, which it does not move'):
        RotatedTTAModel(told).test_step(batch([WHOLE, VIEWS['turn 90'][0]]))


def test_a_polygon_cannot_be_averaged():
    eight = corners(BOXES).reshape(3, 8)
    with pytest.raises(UsageError, match=r'weighted boxes must be rotated, \(N, 5\), or horizontal'):
        RotatedTTAModel(Told([eight] * 2), dict(nms=dict(type='weighted_boxes'))).test_step(batch([WHOLE, WHOLE]))
