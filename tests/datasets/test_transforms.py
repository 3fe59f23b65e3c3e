import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Resize
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
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
        ((500, 1000), dict(scale=(800, 512)), (385, 801)),
        ((300, 400), dict(scale=(500, 100), keep_ratio=False), (97, 513)),
        ((100, 200), dict(scale_factor=0.5), (65, 97)),
        ((100, 200), dict(scale_factor=(0.5, 1.0)), (97, 97)),
        ((1, 3), dict(), (33, 33)),
        ((49, 50), dict(), (65, 65)),  # 49 lies between 33 and 65: up
        ((190, 190), dict(multiple=16), (193, 193)),
    ],
)
def test_sides_are_the_nearest_32m_plus_1(size, options, expected):
    results = SymmetricResize(**options)(dict(img=noise(*size, 3)))
    assert results['img'].shape[:2] == results['img_shape'] == expected
    assert results['scale_factor'] == (expected[1] / size[1], expected[0] / size[0])


def test_boxes_masks_and_maps_follow():
    image, (h, w) = noise(50, 100, 3), (50, 100)
    square = np.zeros((1, h, w), np.uint8)
    square[:, 20:30, 40:60] = 1
    results = SymmetricResize(scale=(200, 100))(
        dict(
            img=image,
            gt_bboxes=HorizontalBoxes(torch.tensor([[10.0, 20.0, 30.0, 40.0]])),
            gt_masks=BitmapMasks(square, h, w),
            gt_seg_map=square[0],
        )
    )
    assert results['img_shape'] == (97, 193)
    x, y = 193 / 100, 97 / 50
    assert torch.allclose(results['gt_bboxes'].tensor, torch.tensor([[10 * x, 20 * y, 30 * x, 40 * y]]))
    assert results['gt_masks'].masks.shape == (1, 97, 193)
    assert results['gt_seg_map'].shape == (97, 193)
    rows, columns = np.nonzero(results['gt_seg_map'])
    assert abs(rows.mean() + 0.5 - 25 * y) < 1 and abs(columns.mean() + 0.5 - 50 * x) < 1
    from mmrotate.structures import RotatedBoxes

    turned = SymmetricResize(scale=64)(
        dict(img=noise(32, 32), gt_bboxes=RotatedBoxes(torch.tensor([[8.0, 16.0, 10.0, 4.0, 0.5]])))
    )
    assert torch.allclose(turned['gt_bboxes'].tensor, torch.tensor([[16.25, 32.5, 20.3125, 8.125, 0.5]]))


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
    assert len(sizes) > 1 and all(h == w and h % 32 == 1 and 65 <= h <= 193 for h, w in sizes)


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
