import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Resize
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.registry import TRANSFORMS

from mmrotate_plugin.datasets import SymmetricResize, resize_symmetric


def noise(*shape, dtype=np.uint8, seed=0):
    values = np.random.default_rng(seed).uniform(0, 255, shape)
    return (values * 200 if dtype == np.uint16 else values).astype(dtype)


MOVES = [lambda x: np.rot90(x, 1), lambda x: np.rot90(x, 2), lambda x: x[:, ::-1], lambda x: x[::-1]]


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize(
    'old, new', [((40, 40), (65, 65)), ((100, 83), (65, 97)), ((7, 1), (33, 33)), ((65, 65), (33, 33))]
)
@pytest.mark.parametrize('move', MOVES)
def test_resizing_commutes_with_turns_and_reflections_bit_for_bit(dtype, old, new, move):
    image = noise(*old, 3, dtype=dtype)
    size = new[::-1] if move(image).shape[:2] != image.shape[:2] else new
    moved, expected = resize_symmetric(move(image), size), move(resize_symmetric(image, new))
    assert moved.dtype == dtype
    assert np.array_equal(moved, expected)


def test_opencv_does_not_commute():
    image = noise(40, 40, 3)
    moved = cv2.resize(np.ascontiguousarray(np.rot90(image)), (65, 65))
    assert not np.array_equal(moved, np.rot90(cv2.resize(image, (65, 65))))


@pytest.mark.parametrize('old, new', [((50, 64), (65, 97)), ((90, 100), (65, 65))])
def test_values_are_those_of_linear_interpolation(old, new):
    image = noise(*old, 3)
    expected = cv2.resize(image, new[::-1], interpolation=cv2.INTER_LINEAR)
    assert np.abs(resize_symmetric(image, new).astype(int) - expected).max() <= 1, 'one grey level, by rounding'
    ramp = np.add.outer(np.arange(20.0), np.arange(20.0))  # linear interpolation keeps planes, away from the edges
    out = resize_symmetric(ramp, (40, 40))
    at = (np.arange(40) + 0.5) / 2 - 0.5
    assert np.abs(out - np.add.outer(at, at))[2:-2, 2:-2].max() < 1e-12, 'weights of 1/4 and 3/4 are exact'


@pytest.mark.parametrize(
    'size, options, expected',
    [
        ((1024, 1024), dict(scale=(1024, 1024)), (1025, 1025)),
        ((1025, 1025), dict(), (1025, 1025)),
        ((800, 800), dict(scale=1024), (1025, 1025)),
        ((500, 1000), dict(scale=(800, 512)), (417, 801)),
        ((300, 400), dict(scale=(500, 100), keep_ratio=False), (129, 513)),
        ((100, 200), dict(scale_factor=0.5), (65, 129)),
        ((100, 200), dict(scale_factor=(0.5, 1.0)), (129, 129)),
        ((1, 3), dict(), (33, 33)),
        ((1, 3000), dict(scale=193), (33, 193)),
        ((49, 50), dict(), (65, 65)),
        ((190, 190), dict(multiple=16), (193, 193)),
        ((768, 1024), dict(scale=1025, multiple=64), (769, 1025)),
        ((753, 1166), dict(scale=(833, 513), multiple=64), (513, 833)),
    ],
)
def test_sides_are_the_smallest_32m_plus_1_that_hold_the_image(size, options, expected):
    step = SymmetricResize(**options)
    results = step(dict(img=noise(*size, 3)))
    assert results['img'].shape[:2] == results['img_shape'] == expected
    scale = step._factors(size[1], size[0])
    assert results['scale_factor'] == scale and (scale[0] == scale[1] or step.scale_factor or not step.keep_ratio)
    content = size[1] * scale[0], size[0] * scale[1]
    offset = getattr(results['scale_factor'], 'offset', (0, 0))
    assert np.allclose(offset, [(n - c) / 2 for n, c in zip(expected[::-1], content, strict=True)], atol=1e-6)
    assert all(o < step.multiple / 2 or n == step.multiple + 1 for o, n in zip(offset, expected[::-1], strict=True))


@pytest.mark.parametrize('size, scale', [(1024, 1025), (800, 833), (193, 193), (100, 65), (37, 1025)])
def test_square_images_at_a_fitting_scale_have_no_padding(size, scale):
    image = noise(size, size)
    results = SymmetricResize(scale=scale)(dict(img=image))
    assert results['scale_factor'] == (scale / size, scale / size) and type(results['scale_factor']) is tuple
    assert np.array_equal(results['img'], resize_symmetric(image, (scale, scale)))  # as without a factor


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize('shape', [(1, 90, 3), (100, 37), (250, 120, 5), (3, 2, 1)])
@pytest.mark.parametrize('options', [dict(scale=97), dict(), dict(scale=(90, 50), multiple=3)])
def test_padded_images_commute_with_turns_and_reflections_bit_for_bit(dtype, shape, options):
    step, image = SymmetricResize(**options), noise(*shape, dtype=dtype)
    expected = step(dict(img=image))['img']
    for move in MOVES:
        moved = step(dict(img=move(image)))['img']
        assert moved.dtype == dtype and np.array_equal(moved, move(expected))


def test_padding_is_the_median_of_each_channel_or_what_is_asked_for():
    image = noise(50, 90, 4, dtype=np.uint16)
    corner = [SymmetricResize(pad_val=value)(dict(img=image))['img'][0, 0] for value in (None, 7, [1, 2, 3, 4])]
    assert np.array_equal(corner[0], np.floor(np.median(image, (0, 1)) + 0.5))
    assert corner[1].tolist() == [7] * 4 and corner[2].tolist() == [1, 2, 3, 4]
    assert (SymmetricResize()(dict(img=image))['padding_size']) == [4, 4, 8, 8]  # 97 - 90 and 65 - 50, halved
    with pytest.raises(ValueError, match="pad_val='black'"):
        SymmetricResize(pad_val='black')


def test_boxes_masks_and_maps_follow():
    image, (h, w) = noise(50, 100, 3), (50, 100)
    square = np.zeros((1, h, w), np.uint8)
    square[:, 20:30, 40:60] = 1
    polygon = [[np.array([40.0, 20, 60, 20, 60, 30, 40, 30])]]
    pieces = dict(
        img=image,
        gt_bboxes=HorizontalBoxes(torch.tensor([[40.0, 20.0, 60.0, 30.0]])),
        gt_masks=BitmapMasks(square, h, w),
        gt_seg_map=square[0],
    )
    results = SymmetricResize(scale=(200, 100))(dict(pieces))
    assert results['img_shape'] == (129, 225) and results['scale_factor'] == (2, 2)
    assert results['scale_factor'].offset == (12.5, 14.5)
    box = torch.tensor([[92.5, 54.5, 132.5, 74.5]])
    assert torch.equal(results['gt_bboxes'].tensor, box)
    assert results['homography_matrix'].tolist() == [[2, 0, 12.5], [0, 2, 14.5], [0, 0, 1]]
    assert results['gt_masks'].masks.shape == (1, 129, 225) and results['gt_seg_map'].shape == (129, 225)
    assert np.unique(results['gt_seg_map'][:14]) == 255 and np.unique(results['gt_masks'].masks[0, :14]) == 0
    for shown in (results['gt_masks'].masks[0] == 1, results['gt_seg_map'] == 1):
        rows, columns = np.nonzero(shown)
        assert abs(rows.mean() + 0.5 - 64.5) < 0.6 and abs(columns.mean() + 0.5 - 112.5) < 0.6
    moved = SymmetricResize(scale=(200, 100))(dict(img=image, gt_masks=PolygonMasks(polygon, h, w)))['gt_masks']
    assert moved.masks[0][0].tolist() == [92.5, 54.5, 132.5, 54.5, 132.5, 74.5, 92.5, 74.5]
    assert (moved.height, moved.width) == (129, 225)
    none = SymmetricResize()(dict(img=image, gt_masks=BitmapMasks(np.zeros((0, h, w), np.uint8), h, w)))
    assert none['gt_masks'].masks.shape == (0, 65, 129)
    again = SymmetricResize(scale=(400, 400))(dict(results))  # the matrices multiply
    at = again['homography_matrix'] @ np.array([40, 20, 1])
    assert np.allclose(at[:2], again['gt_bboxes'].tensor[0, :2], atol=1e-4)


def test_boxes_keep_their_pixels():
    """What a box surrounded before, it surrounds after: scene and boxes are turned upside down and compared."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[10:20, 30:50] = 255
    results = SymmetricResize()(dict(img=image, gt_bboxes=HorizontalBoxes(torch.tensor([[30.0, 10.0, 50.0, 20.0]]))))
    x1, y1, x2, y2 = results['gt_bboxes'].tensor[0].tolist()
    weight = results['img'][..., 0] / 255
    rows, columns = weight.sum(1), weight.sum(0)
    centre_y = (rows * (np.arange(65) + 0.5)).sum() / rows.sum()
    centre_x = (columns * (np.arange(65) + 0.5)).sum() / columns.sum()
    assert centre_x == pytest.approx((x1 + x2) / 2, abs=0.1)
    assert centre_y == pytest.approx((y1 + y2) / 2, abs=0.1)


@pytest.mark.parametrize('kind', ['RandomResize', 'RandomChoiceResize'])
def test_works_inside_of_random_resizes(kind):
    scale = dict(scale=[(80, 80), (200, 200)]) if kind == 'RandomResize' else dict(scales=[(80, 80), (200, 200)])
    step = TRANSFORMS.build(dict(type=kind, **scale, resize_type='mmrotate_plugin.SymmetricResize', keep_ratio=True))
    sizes = {step(dict(img=noise(100, 100, 3)))['img_shape'] for _ in range(20)}
    assert len(sizes) > 1 and all(h == w and h % 32 == 1 and 97 <= h <= 225 for h, w in sizes)


def test_bad_arguments_are_named():
    for options in (dict(scale=-3), dict(scale=(3, 'x')), dict(scale=(1, 2, 3)), dict(scale_factor=float('nan'))):
        with pytest.raises(ValueError, match=next(iter(options))):
            SymmetricResize(**options)
    with pytest.raises(ValueError, match='multiple=0'):
        SymmetricResize(multiple=0)
    with pytest.raises(ValueError, match='give one of'):
        SymmetricResize(scale=3, scale_factor=2)
    with pytest.raises(ValueError, match='scale=0'):
        SymmetricResize(scale=0)(dict(img=noise(9, 9)))
    assert 'multiple=32' in repr(SymmetricResize())


def test_is_found_by_mmcv_and_replaces_its_resize():
    assert TRANSFORMS.get('SymmetricResize') is SymmetricResize
    ours, theirs = (
        step(dict(img=noise(100, 100, 3)))
        for step in (SymmetricResize(scale=64), Resize(scale=(64, 64), keep_ratio=True))
    )
    assert set(ours) >= set(theirs)
