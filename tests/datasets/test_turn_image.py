"""TurnImage: pixels and labels move by one map, exactly at quarter turns, and what is cut or lost is said."""

import math

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip('mmrotate')
from mmrotate.datasets.transforms import Rotate
from mmrotate.structures.bbox import QuadriBoxes, RotatedBoxes

from mmrotate_plugin.datasets import TurnImage
from mmrotate_plugin.datasets.transforms.turn_image import paint_beyond_disc, turn_image, within_disc
from mmrotate_plugin.evaluation.functional import rotated_iou
from mmrotate_plugin.structures.corners import box_corners
from mmrotate_plugin.structures.turns import turn_boxes, turn_matrix, turned_size

ELEMENTS = [(k, flip) for flip in (False, True) for k in range(4)]
SIZE = 60, 90
BOX = [38.0, 27.0, 30.0, 8.0, 0.4]


def corners(boxes):
    return box_corners(boxes).reshape(len(boxes), 8)


def drawn(box=BOX, size=SIZE, fine=16):
    """A bright box on a dark image, each pixel as bright as it is covered."""
    image = np.zeros((size[0] * fine, size[1] * fine), np.uint8)
    cv2.fillPoly(image, [np.rint(box_corners([box])[0] * fine - 0.5).astype(int)], 255)
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)


def moments(image):
    """Centre and direction of what is bright, in pixels and radians modulo pi."""
    weight = image.astype(np.float64) / image.sum()
    h, w = image.shape
    y, x = np.mgrid[:h, :w] + 0.5
    cx, cy = (weight * x).sum(), (weight * y).sum()
    xx, yy, xy = (weight * (x - cx) ** 2).sum(), (weight * (y - cy) ** 2).sum(), (weight * (x - cx) * (y - cy)).sum()
    return cx, cy, math.atan2(2 * xy, xx - yy) / 2


def instance(box, **other):
    return dict(bbox=corners(np.array([box]))[0].tolist(), bbox_label=0, ignore_flag=0, **other)


@pytest.mark.parametrize(('quarters', 'flip'), ELEMENTS)
def test_quarter_turns_move_pixels_as_numpy_does(quarters, flip):
    image = np.random.default_rng(0).integers(0, 255, (5, 8, 3), np.uint8)
    expected = np.rot90(image[:, ::-1] if flip else image, quarters)
    found = TurnImage(90 * quarters, flip=flip)(dict(img=image, ori_shape=(5, 8)))
    assert np.array_equal(found['img'], expected) and found['img'].flags.c_contiguous
    assert found['img_shape'] == found['ori_shape'] == expected.shape[:2]
    matrix = turn_matrix(90 * quarters, (5, 8), flip=flip)
    for row, column in ((0, 0), (4, 2), (1, 7)):
        x, y, _ = matrix @ (column + 0.5, row + 0.5, 1)
        assert np.array_equal(found['img'][int(y), int(x)], image[row, column])
    assert np.array_equal(found['homography_matrix'], matrix)


@pytest.mark.parametrize('flip', [False, True])
@pytest.mark.parametrize('degrees', [0, 90, 180, 270, 360, -90, 17, 45, 200.5, -33])
def test_labels_lie_on_the_pixels(degrees, flip):
    found = TurnImage(degrees, flip=flip)(dict(img=drawn(), gt_bboxes=RotatedBoxes(torch.tensor([BOX]))))
    x, y, angle = moments(found['img'])
    box = found['gt_bboxes'].tensor[0].tolist()
    # 240 bright pixels, rounded to 256 levels; the outline is drawn to 1/16 of a pixel
    assert math.hypot(x - box[0], y - box[1]) < 0.05
    assert abs(math.remainder(angle - box[4], math.pi)) < math.radians(0.3)
    still = degrees % 360 == 0 and not flip
    assert still or math.hypot(x - BOX[0], y - BOX[1]) > 2, 'a label that did not turn would not pass'


def test_all_kinds_of_boxes_turn_alike():
    boxes = np.array([BOX, [50, 30, 12, 20, -1.2]])
    for degrees, flip in ((90, False), (270, True), (33, False), (33, True)):
        turned = turn_boxes(boxes, degrees, SIZE, flip=flip)
        assert np.allclose(rotated_iou(turned, turn_boxes(corners(boxes), degrees, SIZE, flip=flip)).diagonal(), 1)
        assert (np.abs(turned[:, 4]) <= math.pi / 2).all() and np.array_equal(turned[:, 2:4], boxes[:, 2:4])
    upright = np.array([[3.0, 4, 30, 20]])
    assert turn_boxes(upright, 90, SIZE).tolist() == [[4, 60, 20, 87]]
    assert turn_boxes(upright, 0, SIZE, flip=True).tolist() == [[60, 4, 87, 20]]
    with pytest.raises(ValueError, match='degrees=45: horizontal boxes turn by multiples of 90 degrees only'):
        turn_boxes(upright, 45, SIZE)
    with pytest.raises(ValueError, match=r'\(1, 3\); they must be'):
        turn_boxes(np.zeros((1, 3)), 0, SIZE)
    assert turn_boxes(np.zeros((0, 5)), 30, SIZE).shape == (0, 5)


def test_turns_form_a_group():
    boxes = np.array([BOX])
    size, turned = SIZE, boxes
    for _ in range(4):
        turned, size = turn_boxes(turned, 90, size), turned_size(size, 90)
    assert size == SIZE and np.allclose(turned, boxes, rtol=0, atol=1e-12)
    back = turn_boxes(turn_boxes(boxes, 22.5, SIZE), -22.5, SIZE)
    assert np.allclose(back, boxes, rtol=0, atol=1e-12)


def test_labels_turn_before_and_behind_their_loading():
    from mmcv.transforms import Compose

    load = dict(type='mmdet.LoadAnnotations', with_bbox=True, box_type='qbox')
    for degrees in (90, 30):
        step = dict(type='mmrotate_plugin.TurnImage', degrees=degrees)
        found = []
        for pipeline in ([step, load], [load, step]):
            results = dict(img=drawn(), img_shape=SIZE, ori_shape=SIZE, instances=[instance(BOX)])
            found.append(Compose(pipeline)(results))
        first, second = (one['gt_bboxes'].tensor for one in found)
        assert torch.allclose(first, second, atol=1e-4) and isinstance(found[1]['gt_bboxes'], QuadriBoxes)
        assert not torch.allclose(first, torch.tensor(instance(BOX)['bbox']), atol=1)
        assert [one['gt_ignore_flags'].tolist() for one in found] == [[False], [False]]


def test_what_leaves_the_image_is_dropped_and_what_is_cut_is_ignored():
    boxes = [[45.0, 30, 20, 8, 0], [80.0, 8, 10, 6, 0], [70.0, 30, 40, 8, 0]]  # middle; corner; across the border
    names = [dict(name=i) for i in range(3)]
    instances = [instance(box, **name) for box, name in zip(boxes, names, strict=True)]

    def results():
        loaded = dict(gt_bboxes=RotatedBoxes(torch.tensor(boxes)), gt_bboxes_labels=np.arange(3))
        return dict(img=np.zeros(SIZE, np.uint8), instances=instances, **loaded)

    found = TurnImage(90)(results())
    assert [(i['name'], i['ignore_flag']) for i in found['instances']] == [(0, 0), (1, 0), (2, 0)]
    found = TurnImage(60)(results())
    assert [(i['name'], i['ignore_flag']) for i in found['instances']] == [(0, 0), (2, 1)]
    assert found['gt_bboxes_labels'].tolist() == [0, 2] and found['gt_ignore_flags'].tolist() == [False, True]
    for degrees in (0, 60, 90):
        found = TurnImage(degrees, disc=True)(results())
        assert [(i['name'], i['ignore_flag']) for i in found['instances']] == [(0, 0), (2, 1)]
    assert instances[2]['ignore_flag'] == 0, 'the annotations of the data set stay as they are'


def test_with_the_disc_all_angles_show_the_same():
    image = cv2.GaussianBlur(np.random.default_rng(0).uniform(0, 255, (61, 61)).astype(np.float32), (0, 0), 2)
    one = TurnImage(30, disc=True, pad_val=7)(dict(img=image))['img']
    back = turn_image(one, -30, pad_val=7)
    disc = paint_beyond_disc(image, 7)
    y, x = np.mgrid[:61, :61] + 0.5
    distance = np.hypot(x - 30.5, y - 30.5)
    inside = distance < 30.5 - 2 * 4  # pixels that the kernel reaches, twice
    assert (
        np.abs(back - disc)[inside].max() < 0.5
    )  # places rounded to 1/64 of a pixel, twice, where the image has slopes of 10
    assert np.array_equal(within_disc(np.stack([x, y], -1), (61, 61)), distance <= 30.51)
    assert (disc[0, :5] == 7).all() and np.array_equal(disc[30, 2:-2], image[30, 2:-2])
    assert np.abs(back - image)[distance > 32].max() > 10, 'the corners are painted'


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.int32, np.float32])
@pytest.mark.parametrize('shape', [(20, 30), (20, 30, 1), (20, 30, 3), (20, 30, 7)])
def test_any_bands_and_depth(dtype, shape):
    image = np.full(shape, 200, dtype)
    found = TurnImage(30)(dict(img=image))['img']
    assert found.shape == shape and found.dtype == dtype and np.allclose(found, image, rtol=1e-5)
    found = TurnImage(30, pad_val=3)(dict(img=image))['img']
    assert np.allclose(found[0, 0], 3) and np.allclose(found[10, 15], 200)
    assert (TurnImage(30, disc=True, pad_val=3)(dict(img=image))['img'][0, 0] == 3).all()


def test_refusals():
    with pytest.raises(ValueError, match=r"degrees='30' must be a finite number"):
        TurnImage('30')
    with pytest.raises(ValueError, match='degrees=nan must be a finite number'):
        TurnImage(float('nan'))
    with pytest.raises(ValueError, match='gt_masks is loaded: leave it out'):
        TurnImage(30)(dict(img=drawn(), gt_masks=1))
    assert repr(TurnImage(30)) == 'TurnImage(degrees=30.0, flip=False, disc=False, pad_val=None)'


def test_mmrotates_own_turns_no_labels_that_are_loaded_later():
    """If this fails, mmrotate's `Rotate` has learned to, and could replace the class."""
    results = dict(img=drawn(), img_shape=SIZE, instances=[instance(BOX)])
    found = Rotate(30)({**results})
    assert found['instances'] == results['instances']
    assert Rotate(90)({**results})['img'].shape == SIZE, 'and cuts what is not square'
