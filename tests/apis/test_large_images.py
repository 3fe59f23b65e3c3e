"""Detection by patches: complete, merged, in the places of the whole image."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.structures import InstanceData
from torch import nn

pytest.importorskip('mmrotate')
from mmcv.transforms import Compose
from mmdet.structures import DetDataSample

from mmrotate_plugin.apis.config import register_hosts
from mmrotate_plugin.apis.inference import Detector
from mmrotate_plugin.apis.large_images import PatchDetector, merge, nms_of, spans
from mmrotate_plugin.utils.errors import UsageError

CFG = Config(dict(model=dict(test_cfg=dict(nms=dict(type='nms_rotated', iou_threshold=0.1)))))


class Spots(nn.Module):
    """Finds white squares of 4 x 4 pixels that are whole in a patch; the score grows with the distance to its edge."""

    def __init__(self):
        super().__init__()
        self.cfg = CFG
        self.data_preprocessor = SimpleNamespace(device=torch.device('cpu'))
        self.batches = []

    def test_step(self, data):
        self.batches.append([tuple(image.shape) for image in data['inputs']])
        return self(data)

    def forward(self, data):
        results = []
        for image, sample in zip(data['inputs'], data['data_samples'], strict=True):
            size = image.shape[-1]
            corners = (nn.functional.avg_pool2d(image[:1].float(), 4, 1) == 255).nonzero()[:, 1:].flip(1)
            centres = corners + 2.0
            score = torch.minimum(centres, size - centres).amin(1) / size + 0.1
            boxes = torch.cat([centres, torch.full_like(centres, 4), torch.zeros(len(centres), 1)], 1)
            found = InstanceData(bboxes=boxes, scores=score, labels=torch.zeros(len(boxes), dtype=torch.long))
            result = DetDataSample(metainfo=sample.metainfo)
            result.pred_instances = found
            results.append(result)
        return results


@pytest.fixture
def detector():
    register_hosts()
    load = dict(type='mmdet.LoadImageFromNDArray')
    pack = dict(type='mmdet.PackDetInputs', meta_keys=('img_shape',))
    made = Detector.__new__(Detector)  # without a config and weights
    made.model, made.pipeline = Spots(), Compose([load, pack])
    return made


def draw(height, width, centres):
    image = np.zeros((height, width, 3), np.uint8)
    for x, y in centres:
        image[y - 2 : y + 2, x - 2 : x + 2] = 255
    return image


def test_every_object_is_found_once_in_its_place(detector):
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(range(8, 250, 12), range(8, 180, 12)), -1).reshape(-1, 2)
    grid += rng.integers(-3, 4, grid.shape)
    find = PatchDetector(detector, size=64, overlap=16, batch_size=3, show=False)
    found = find(draw(190, 260, grid))
    centres = found.boxes[:, :2].round().astype(int)
    assert sorted(map(tuple, centres)) == sorted(map(tuple, grid))
    assert (np.diff(found.scores) <= 0).all()
    shapes = [shape for batch in detector.model.batches for shape in batch]
    assert set(shapes) == {(3, 64, 64)} and max(map(len, detector.model.batches)) == 3
    assert not detector.model._forward_hooks  # nothing stays behind


def test_without_enough_overlap_objects_on_the_seams_are_lost(detector):
    """Control: the overlap does something."""
    seam = [(63, 30), (30, 30)]
    image = draw(64, 128, seam)
    assert len(PatchDetector(detector, size=64, overlap=1, show=False)(image).boxes) == 1
    assert len(PatchDetector(detector, size=64, overlap=16, show=False)(image).boxes) == 2


def test_threshold_and_better_of_two(detector):
    find = PatchDetector(detector, size=64, overlap=32, show=False)
    image = draw(64, 128, [(50, 32)])  # in two patches, farther from the edge in the second
    assert find(image).scores == pytest.approx([0.1 + 18 / 64])
    assert len(find(image, score_thr=0.9).boxes) == 0


def test_images_smaller_than_a_patch(detector):
    find = PatchDetector(detector, size=64, overlap=16, show=False)
    assert find(draw(20, 30, [(10, 10)])).boxes[:, :2].tolist() == [[10, 10]]
    assert len(find(draw(20, 200, [(10, 10), (190, 10)])).boxes) == 2


def test_progress_is_told(detector, capsys):
    PatchDetector(detector, size=64, overlap=16, batch_size=2, show=True)(draw(64, 500, []))
    text = capsys.readouterr().err
    assert '11 patches [' in text and '] 6/6, ' in text


@pytest.mark.parametrize(
    'options, words',
    [
        (dict(size=16, overlap=0), '--patch-size must be 32 pixels or more, not 16'),
        (dict(size=64, overlap=64), '--patch-overlap must be 1 or more and below the patch size 64, not 64'),
        (dict(size=64, overlap=0), 'not 0'),
        (dict(size=64, overlap=8, batch_size=0), '--patch-batch-size must be 1 or more, not 0'),
    ],
)
def test_wrong_numbers(detector, options, words):
    with pytest.raises(UsageError, match=words):
        PatchDetector(detector, **options)


def test_where_the_nms_is():
    two_stage = dict(test_cfg=dict(rpn=dict(nms=dict(iou_threshold=0.8)), rcnn=dict(nms=dict(iou_threshold=0.5))))
    assert nms_of(Config(dict(model=two_stage))) == dict(iou_threshold=0.5)
    assert nms_of(Config(dict(model=dict(detector=two_stage)))) == dict(iou_threshold=0.5)
    with pytest.raises(UsageError, match='no nms'):
        nms_of(Config(dict(model=dict(test_cfg=dict(max_per_img=100)))))


class Pieces(Spots):
    """Finds all that is white, cut or whole, as horizontal or rotated boxes with deviations, all equally sure."""

    rotated = True

    def forward(self, data):
        results = []
        for image, sample in zip(data['inputs'], data['data_samples'], strict=True):
            count, _, stats, _ = cv2.connectedComponentsWithStats(image[0].numpy())
            x, y, w, h = torch.tensor(stats[1:count, :4]).float().unbind(1)
            boxes = torch.stack([x + w / 2, y + h / 2, w, h, 0 * x] if self.rotated else [x, y, x + w, y + h], 1)
            dark = torch.tensor([[1.0, 1, 2, 2, 0]] if self.rotated else [[0.0, 0, 2, 2]])
            boxes = torch.cat([boxes, dark]) if not image[:, 0, 0].any() and sample.img_shape[0] > HEIGHT else boxes
            scores = torch.full((len(boxes),), 0.9)
            result = DetDataSample(metainfo=sample.metainfo)
            result.pred_instances = InstanceData(
                bboxes=boxes, scores=scores, labels=scores.long(), bboxes_std=boxes / 10, scores_std=scores / 10
            )
            results.append(result)
        return results


HEIGHT = 100  # patches that are higher are padded in these tests


def test_no_piece_of_an_object_that_a_neighbour_has_whole_is_left(detector):
    rng = np.random.default_rng(3)
    grid = np.stack(np.meshgrid(range(14, 320, 26), range(14, 270, 26)), -1).reshape(-1, 2)
    grid += rng.integers(-2, 3, grid.shape)
    image = np.zeros((283, 333, 3), np.uint8)
    half = rng.integers(2, 11, grid.shape)  # up to 20 pixels long, as long as the overlap
    for (x, y), (a, b) in zip(grid, half, strict=True):
        image[y - b : y + b, x - a : x + a] = 255
    for nms in (dict(iou_threshold=0.1), dict(iou_threshold=0.1, class_agnostic=True)):
        for batch, rotated in ((1, True), (7, False)):
            kind = 'nms_rotated' if rotated else 'nms'
            cfg = Config(dict(model=dict(test_cfg=dict(nms=dict(type=kind, **nms)))))
            detector.model = Pieces()
            detector.model.cfg, detector.model.rotated = cfg, rotated
            found = PatchDetector(detector, size=64, overlap=20, batch_size=batch, show=False)(image)
            boxes = found.boxes
            centres = boxes[:, :2] if rotated else (boxes[:, :2] + boxes[:, 2:]) / 2
            sides = boxes[:, 2:4] if rotated else boxes[:, 2:] - boxes[:, :2]
            rows = np.concatenate([centres, sides / 2], 1).round().astype(int)
            assert sorted(map(tuple, rows)) == sorted(map(tuple, np.concatenate([grid, half], 1)))
            assert found.boxes_std.shape == boxes.shape and len(found.scores_std) == len(boxes)


def test_objects_longer_than_the_overlap_stay(detector):
    detector.model = Pieces()
    for start, stop in ((30, 90), (10, 120), (40, 70), (61, 92)):
        image = np.zeros((64, 200, 3), np.uint8)
        image[30:34, start:stop] = 255
        boxes = PatchDetector(detector, size=64, overlap=20, show=False)(image).boxes
        assert len(boxes) and all(start <= x <= stop for x in boxes[:, 0])


def test_what_is_found_on_the_padding_is_left_out(detector):
    detector.model = Pieces()
    image = draw(HEIGHT - 10, 70, [(30, 40)])
    found = PatchDetector(detector, size=HEIGHT + 28, overlap=16, show=False)(image)
    assert found.boxes[:, :2].tolist() == [[30, 40]]
    grey = np.full((50, 40, 5), 700, np.uint16)  # any depth and number of channels: the padding is the median
    seen = []
    detector.pipeline = lambda data: seen.append(data['img']) or dict(inputs=None, data_samples=None)
    detector.model.test_step = lambda _: [DetDataSample(pred_instances=InstanceData(
        bboxes=torch.zeros(0, 5), scores=torch.zeros(0), labels=torch.zeros(0).long()))]  # fmt: skip
    PatchDetector(detector, size=64, overlap=16, show=False)(grey)
    assert seen[0].shape == (64, 64, 5) and seen[0].dtype == np.uint16 and (seen[0] == 700).all()


@pytest.mark.parametrize(
    'length, size, overlap', [(200, 64, 20), (65, 64, 63), (64, 64, 1), (30, 64, 8), (1000, 64, 50)]
)
def test_patches_cover_an_axis_and_know_their_overlaps(length, size, overlap):
    found = spans(length, size, overlap)
    assert all(a.after == b.before == a.stop - b.start >= overlap for a, b in zip(found, found[1:], strict=False))
    assert found[0].before == found[-1].after == 0
    assert all(b.first == a.last for a, b in zip(found, found[1:], strict=False))  # cores share the axis out
    assert found[0].first == -np.inf and found[-1].last == np.inf
    assert all(span.stop - span.start == size for span in found)
    if length >= size:
        assert found[0].start == 0 and found[-1].stop == length


def test_of_two_patches_the_better_stays_and_of_one_patch_both():
    rows = [[50, 50, 40, 10, 0.3, 0.9, 0], [50, 51, 40, 10, 0.3, 0.8, 1], [50, 50, 16, 8, 0.3, 0.7, 0]]
    values = torch.tensor([*rows, [90, 50, 9, 9, 0, 0.6, 0]])
    found = InstanceData(bboxes=values[:, :5], scores=values[:, 5], labels=values[:, 6].long())
    nms = dict(iou_threshold=0.5)
    assert merge(found, [0, 1, 2, 3], nms).tolist() == [0, 3]  # another class, a piece of it, and another place
    assert merge(found, [0, 0, 0, 0], nms).tolist() == [0, 1, 2, 3]
    turned = found.bboxes[:1][:, [0, 1, 3, 2, 4]] + torch.tensor([0, 0, 0, 0, np.pi / 2])  # the same, written otherwise
    found.bboxes = torch.cat([found.bboxes[:1], turned, found.bboxes[2:]])
    assert 1 not in merge(found, [0, 1, 2, 3], nms).tolist()
    assert merge(found[:0], [], nms).tolist() == []
