"""Labels lie on the pixels that the network gets, and detections come back to the image, for every shape and resize."""

import copy
import importlib
import math
import pickle
import sys

import cv2
import numpy as np
import pytest
import shapely
import torch
from mmengine.dataset import Compose
from mmengine.structures import InstanceData, PixelData

pytest.importorskip('mmrotate')
from mmdet.datasets.transforms import Resize
from mmdet.models.detectors.base import BaseDetector
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmrotate.structures.bbox import QuadriBoxes, RotatedBoxes

from mmrotate_plugin.apis.inference import map_on_image
from mmrotate_plugin.datasets import SymmetricResize
from mmrotate_plugin.hosts import mends
from mmrotate_plugin.structures import CentredScale, bring_back, content_slices, stretch_rotated, whole_input

KINDS = [  # those of the ready configs, and what users write
    dict(scale=193),
    dict(scale=(833, 513), multiple=64),
    dict(scale=1025, multiple=64),
    dict(),
    dict(scale_factor=0.37, multiple=64),
    dict(scale=(225, 129), keep_ratio=False),
]
RATIO = 5  # longest side over shortest of the random images; a stretch by 5 makes boxes of a pixel otherwise


def random_boxes(rng, n, width, height):
    """Ships and squares of any angle, (n, 5); float64, so that round-off of the labels is all that is seen."""
    long = rng.uniform(0.05, 1, n) * max(width, height)
    sides = np.stack([long, long * rng.choice([1, 0.5, 0.1, 0.02], n)], 1)
    sides = np.where(rng.random((n, 1)) < 0.5, sides, sides[:, ::-1])
    centres = rng.uniform(0, 1, (n, 2)) * (width, height)
    return torch.tensor(np.concatenate([centres, sides, rng.uniform(-math.pi / 2, math.pi / 2, (n, 1))], 1))


def moved(corners, matrix):
    """Corners (N, 4, 2) by a homography, in float64."""
    return corners @ matrix[:2, :2].T + matrix[:2, 2]


def best_rectangles(corners):
    """OpenCV's, about the centre of each, where its float32 has the most digits."""
    middle = corners.mean(1, keepdim=True)
    around = (corners - middle).numpy().astype(np.float32)
    rows = [[*c, *s, math.radians(t)] for c, s, t in map(cv2.minAreaRect, around)]
    boxes = torch.tensor(rows, dtype=torch.float64)
    boxes[:, :2] += middle[:, 0]
    return boxes


def iou(a, b):
    """Of pairs, by shapely: mmcv's operator is wrong for needles and for equal boxes.

    On a grid, since GEOS without one takes some pairs that are equal up to round-off for disjoint.
    """
    unit = b[:, 2:4].amax(1).double()[:, None, None]
    middle = b[:, None, :2].double()
    a, b = (shapely.polygons(((RotatedBoxes.rbox2corner(boxes.double()) - middle) / unit).numpy()) for boxes in (a, b))
    both = shapely.area(shapely.intersection(a, b, grid_size=1e-8))
    return both / (shapely.area(a) + shapely.area(b) - both)


def shapes(rng, n):
    """Some of everything, among them the extreme ones."""
    extreme = [(1, 1), (1, 400), (400, 1), (2, 3), (1, 33), (1024, 1024), (4000, 20), (193, 193)]
    sizes = np.exp(rng.uniform(math.log(10), math.log(2500), (n - len(extreme), 2))).astype(int)
    return extreme + [tuple(map(int, s)) for s in sizes]


@pytest.mark.parametrize('options', KINDS)
def test_labels_follow_pixels_and_detections_come_back_for_all_shapes(options, monkeypatch):
    # the pixels are looked at below; here only the map of 1000 shapes and boxes counts
    monkeypatch.setattr(
        'mmrotate_plugin.datasets.transforms.symmetric_resize.resize_symmetric', lambda image, *_: image
    )
    rng = np.random.default_rng(0)
    step = SymmetricResize(**options)
    truth, labels, ideal, back, back_ideal = [], [], [], [], []
    for height, width in shapes(rng, 1000 // len(KINDS) + 1):
        if not step.keep_ratio and max(height, width) > RATIO * min(height, width):
            continue
        boxes = random_boxes(rng, 1, width, height)
        results = step(dict(img=np.broadcast_to(np.uint8(0), (height, width)), gt_bboxes=RotatedBoxes(boxes.clone())))
        corners = RotatedBoxes.rbox2corner(boxes)
        matrix = torch.tensor(results['homography_matrix']).double()
        truth.append(boxes)
        labels.append(results['gt_bboxes'].tensor)
        ideal.append(best_rectangles(moved(corners, matrix)))
        # a detector that sees the pixels perfectly reports the rectangle; hosts' heads divide, `bring_back` moves
        sample = DetDataSample(metainfo=dict(scale_factor=results['scale_factor'], ori_shape=(height, width)))
        found = RotatedBoxes(labels[-1].clone())
        found.rescale_([1 / s for s in results['scale_factor']])
        sample.pred_instances = InstanceData(bboxes=found.tensor)
        bring_back([sample])
        inside = ((boxes[:, :2] >= 0) & (boxes[:, :2] <= torch.tensor([width, height]))).all(1)
        assert inside.all() and len(sample.pred_instances) == 1
        back.append(sample.pred_instances.bboxes)
        back_ideal.append(best_rectangles(moved(RotatedBoxes.rbox2corner(labels[-1]), torch.linalg.inv(matrix))))
    truth, labels, ideal, back, back_ideal = map(torch.cat, (truth, labels, ideal, back, back_ideal))
    assert iou(labels, ideal).min() > 0.99
    assert iou(back, back_ideal).min() > 0.99
    if step.keep_ratio:  # one factor: the very box
        assert iou(back, truth).min() > 0.99


def test_the_check_fails_for_the_hosts_method_which_is_still_wrong():
    """If this fails, mmrotate has mended `RotatedBoxes.rescale_`; then ours in host_mends.py can go."""
    rng = np.random.default_rng(0)
    boxes = random_boxes(rng, 200, 640, 480)
    scale = 193 / 640, 129 / 480  # what rounding each side alone makes of it
    ideal = best_rectangles(RotatedBoxes.rbox2corner(boxes) * torch.tensor(scale))
    theirs, ours = RotatedBoxes(boxes.clone()), RotatedBoxes(boxes.clone())
    RotatedBoxes.rescale_.of_host(theirs, scale)
    ours.rescale_(scale)
    assert (iou(theirs.tensor, ideal) < 0.95).mean() > 0.3
    assert iou(ours.tensor, ideal).min() > 0.99


@pytest.mark.parametrize('keep_ratio', [True, False])
def test_mmdets_own_resize_is_right_too(keep_ratio):
    """Keeping the ratio it rounds sides to whole pixels, so the factors of small images differ as well."""
    rng = np.random.default_rng(1)
    step = Resize(scale=(300, 200), keep_ratio=keep_ratio)
    for width, height in ((640, 480), (37, 15), (90, 400)):
        boxes = random_boxes(rng, 20, width, height)
        results = step(dict(img=np.zeros((height, width), np.uint8), gt_bboxes=RotatedBoxes(boxes.clone())))
        scale = torch.tensor(results['scale_factor']).double()
        ideal = best_rectangles(RotatedBoxes.rbox2corner(boxes) * scale)
        assert scale[0] != scale[1] and iou(results['gt_bboxes'].tensor, ideal).min() > 0.99
        results['gt_bboxes'].rescale_([1 / s for s in results['scale_factor']])
        ideal = best_rectangles(RotatedBoxes.rbox2corner(ideal.double()) / scale)
        assert iou(results['gt_bboxes'].tensor, ideal).min() > 0.99


@pytest.mark.parametrize('size', [(480, 640), (300, 90), (60, 61)])
@pytest.mark.parametrize('step', [SymmetricResize(scale=257), SymmetricResize((257, 129), keep_ratio=False)])
def test_a_drawn_rectangle_lies_under_its_label(size, step):
    """The pixels themselves: a filled ship is moved by the transform, and a rectangle is fitted to what is bright."""
    height, width = size
    side = min(size)
    box = torch.tensor([[0.45 * width, 0.55 * height, 0.6 * side, 0.12 * side, 0.7]])
    fine = 16  # times finer, so that a pixel says how much of it is covered
    image = np.zeros((height * fine, width * fine), np.uint8)
    corners = RotatedBoxes.rbox2corner(box)[0].numpy()
    cv2.fillPoly(image, [np.rint(corners * fine - 0.5).astype(int)], 255)
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    results = step(dict(img=image, gt_bboxes=RotatedBoxes(box)))
    y, x = np.nonzero(results['img'] > 127)
    seen = best_rectangles(torch.tensor(np.stack([x, y], 1) + 0.5)[None])
    seen[:, 2:4] += 1  # from the outermost centres of pixels to their borders
    assert torch.allclose(seen[:, :2], results['gt_bboxes'].tensor[:, :2].double(), atol=0.6)
    # one pixel of error at each side of a ship that is `short` pixels wide
    short = results['gt_bboxes'].tensor[:, 2:4].min()
    assert iou(results['gt_bboxes'].tensor, seen).item() > 1 - 2 / short.item()


def test_stretching_keeps_shape_dtype_and_gradients():
    boxes = torch.tensor([[[10.0, 20, 8, 2, 0.6], [1, 1, 0, 0, 1.0]], [[1, 1, 3, 3, math.pi / 4], [5, 5, 0, 4, 0.1]]])
    for dtype in (torch.float16, torch.float32, torch.float64):
        out = stretch_rotated(boxes.to(dtype), 1.5, 0.5)
        assert out.shape == boxes.shape and out.dtype == dtype and torch.isfinite(out).all()
    empty = RotatedBoxes(torch.zeros(0, 5))
    empty.rescale_((1.5, 0.5))
    assert empty.tensor.shape == (0, 5)
    boxes = torch.tensor([[10.0, 20, 8, 2, 0.6], [3, 4, 2, 9, -1.1]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda b: stretch_rotated(b, 1.5, 0.5), boxes)
    wrapped = RotatedBoxes(boxes, clone=False)
    wrapped.rescale_((1.5, 0.5))
    assert wrapped.tensor.requires_grad
    square = stretch_rotated(torch.tensor([0.0, 0, 1, 1, math.pi / 4]), 2, 1)  # a rhombus with sides of sqrt(2.5)
    assert square[2:4].tolist() == pytest.approx([2.5**0.5 * 1.6, 2 / 2.5**0.5])


def test_equal_factors_are_left_to_the_host_and_other_boxes_are_right_there():
    box = torch.tensor([[10.0, 20, 8, 2, 0.6]])
    ours, theirs = RotatedBoxes(box.clone()), RotatedBoxes(box.clone())
    ours.rescale_((1.3, 1.3))
    RotatedBoxes.rescale_.of_host(theirs, (1.3, 1.3))
    assert torch.equal(ours.tensor, theirs.tensor)
    corners = RotatedBoxes.rbox2corner(box)
    polygon = QuadriBoxes(corners.reshape(1, 8))
    polygon.rescale_((2.0, 0.5))
    assert torch.allclose(polygon.tensor.reshape(1, 4, 2), corners * torch.tensor([2.0, 0.5]))
    moved_box = RotatedBoxes(box.clone())
    moved_box.project_(np.diag([2.0, 0.5, 1]).astype(np.float32))  # the host's own map of corners
    ours = RotatedBoxes(box.clone())
    ours.rescale_((2.0, 0.5))
    assert iou(ours.tensor, moved_box.tensor).min() > 0.999


class Perfect(BaseDetector):
    """Finds what it is told, in pixels of its input, and divides by the factor as heads do."""

    def __init__(self, found):
        super().__init__()
        self.found = found

    def predict(self, inputs, samples, rescale=True):  # noqa: ARG002
        for sample in samples:
            found = copy.deepcopy(self.found)
            if rescale:
                scale = [1 / s for s in sample.metainfo['scale_factor']]
                boxes = {4: HorizontalBoxes, 5: RotatedBoxes, 8: QuadriBoxes}[found.bboxes.shape[1]](found.bboxes)
                boxes.rescale_(scale)
                found.bboxes = boxes.tensor
                if 'masks' in found:  # pasted into an array of the image's size
                    size = sample.metainfo['ori_shape']
                    found.masks = torch.nn.functional.interpolate(found.masks[None].float(), size)[0] > 0
            sample.pred_instances = found
        return samples

    extract_feat = loss = _forward = None


META = dict(ori_shape=(50, 90), img_shape=(65, 97), scale_factor=CentredScale((1, 1), (3.5, 7.5)), img_id=0)


@pytest.mark.parametrize(
    'boxes, expected',
    [
        ([[13.5, 17.5, 23.5, 57.5], [0, 10, 20, 30]], [[10, 10, 20, 50], [0, 2.5, 16.5, 22.5]]),
        ([[13.5, 17.5, 9, 3, 0.4]], [[10, 10, 9, 3, 0.4]]),
        ([[13.5, 17.5, 23.5, 17.5, 23.5, 27.5, 13.5, 27.5]], [[10, 10, 20, 10, 20, 20, 10, 20]]),
        ([[1.0, 17.5, 4, 3, 0.4]], []),  # on the padding
    ],
)
def test_predictions_leave_the_detector_in_the_frame_of_the_image(boxes, expected):
    boxes = torch.tensor(boxes, dtype=torch.float32)
    detector = Perfect(InstanceData(bboxes=boxes, scores=torch.ones(len(boxes))))
    sample = DetDataSample(metainfo=META)
    (found,) = detector(None, [sample], mode='predict')
    assert torch.allclose(
        found.pred_instances.bboxes, torch.tensor(expected, dtype=torch.float32).reshape(-1, boxes.shape[1])
    )
    assert found.metainfo['scale_factor'].offset == (3.5, 7.5) and found.metainfo['ori_shape'] == (50, 90)

    class Around(Perfect):  # a detector within a detector is moved once
        def predict(self, inputs, samples):
            return self.found(inputs, samples, mode='predict')

    (again,) = Around(detector)(None, [DetDataSample(metainfo=META)], mode='predict')
    assert torch.equal(again.pred_instances.bboxes, found.pred_instances.bboxes)
    with pytest.raises(RuntimeError, match='mode'):
        detector(None, [sample], mode='unknown')


def test_masks_and_segmentation_maps_are_cut_to_the_image():
    masks = torch.zeros(1, 65, 97)
    masks[:, 8:58, 4:94] = 1  # the image
    found = InstanceData(bboxes=torch.tensor([[4.0, 8.0, 94.0, 58.0]]), masks=masks)
    (sample,) = Perfect(found)(None, [DetDataSample(metainfo=META)], mode='predict')
    assert sample.pred_instances.masks.shape == (1, 50, 90) and sample.pred_instances.masks.all()
    sample = DetDataSample(metainfo=META)
    sample.pred_sem_seg = PixelData(sem_seg=masks[:, :65, :97])
    bring_back([sample])
    assert sample.pred_sem_seg.sem_seg.shape == (1, 50, 90) and sample.pred_sem_seg.sem_seg.all()


def test_a_pipeline_without_a_resize_has_the_factor_1():
    detector = Perfect(InstanceData(bboxes=torch.tensor([[5.0, 6, 7, 8, 0.1]])))
    (found,) = detector(None, [DetDataSample(metainfo=dict(ori_shape=(9, 9), img_shape=(9, 9)))], mode='predict')
    assert torch.allclose(found.pred_instances.bboxes, torch.tensor([[5.0, 6, 7, 8, 0.1]]))


def test_the_place_on_the_canvas_survives_workers_and_samples():
    scale = CentredScale((0.5, 0.25), (3, 4.5))
    for copied in (pickle.loads(pickle.dumps(scale)), copy.deepcopy(scale)):
        assert copied == (0.5, 0.25) and copied.offset == (3, 4.5)
    with whole_input([DetDataSample(metainfo=META)]):
        pass
    with whole_input(None):  # nothing to do in training
        pass
    rows, columns = content_slices(META, (65, 97))
    assert (rows.start, rows.stop, columns.start, columns.stop) == (7, 58, 3, 94)
    assert content_slices(META, (128, 128))[0] == rows  # more padding at the right and at the bottom
    assert content_slices({}, (20, 30)) == (slice(0, 20), slice(0, 30))


def test_maps_over_the_input_are_cut_to_the_image():
    results = SymmetricResize(scale=65)(dict(img=np.zeros((40, 100), np.uint8)))
    height, width = results['img_shape']
    sx, (ox, oy) = results['scale_factor'][0], results['scale_factor'].offset
    ramp = (torch.arange(width) + 0.5)[None] + 100 * (torch.arange(height) + 0.5)[:, None]
    out = map_on_image(ramp, results, (40, 100))
    expected = ((np.arange(100) + 0.5) * sx + ox)[None] + 100 * ((np.arange(40) + 0.5) * sx + oy)[:, None]
    inner = (slice(2, -2), slice(2, -2))  # linear interpolation keeps planes, away from the edges
    assert np.allclose(out[inner], expected[inner], atol=1e-2)


def test_hosts_are_mended_also_where_they_are_imported_later(tmp_path, monkeypatch):
    (tmp_path / 'later_host.py').write_text('class RotatedBoxes:\n    def rescale_(self, scale_factor): ...\n')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(mends.MENDS, 'later_host', mends._mend_rotated_boxes)
    try:
        assert importlib.import_module('later_host').RotatedBoxes.rescale_.of_host
        assert importlib.reload(sys.modules['later_host']).RotatedBoxes.rescale_.of_host
    finally:
        sys.modules.pop('later_host', None)
    assert {'mmrotate.structures.bbox.rotated_boxes', 'mmdet.models.detectors.base'} <= set(mends.MENDS)


def test_spawned_data_workers_import_this_package():
    pipeline = Compose([dict(type='Resize', scale=(9, 9))])
    assert b'mmrotate_plugin.hosts.data_workers' in pickle.dumps(pipeline)
    assert len(pickle.loads(pickle.dumps(pipeline)).transforms) == len(copy.deepcopy(pipeline).transforms) == 1
