"""The synthetic scenes: the same every time, and the boxes are where the pixels are."""

import hashlib
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import mmrotate_plugin.datasets
from mmrotate_plugin.datasets.synthetic.canvas import Sketch
from mmrotate_plugin.datasets.synthetic.layouts import LAYOUTS
from mmrotate_plugin.datasets.synthetic.objects import KINDS
from mmrotate_plugin.datasets.synthetic.scenes import CLASSES, PALETTE, draw_scene, lay_out, paint
from mmrotate_plugin.structures.corners import box_corners

PACKAGE = str(Path(mmrotate_plugin.datasets.__file__).parents[1])
DEFAULTS = {'num_objects': (6, 14), 'scale': (0.9, 1.3)}


def digest(seed, index, **options):
    scene = draw_scene(seed, index, **options)
    return hashlib.sha256(scene.image.tobytes() + scene.labels.tobytes() + scene.rboxes.tobytes()).hexdigest()


def test_scene_does_not_depend_on_order_or_process():
    forth = [digest(3, i, size=97) for i in range(6)]
    back = [digest(3, i, size=97) for i in reversed(range(6))][::-1]
    assert forth == back
    assert len(set(forth)) == 6
    assert digest(4, 0, size=97) != forth[0]
    # a process that has numpy and OpenCV only: neither torch nor mmengine is loaded by the scenes
    code = f"""
import hashlib, sys, types
for name in ('', '.datasets', '.datasets.synthetic', '.structures'):
    path, name = {PACKAGE!r} + name.replace('.', '/'), 'mmrotate_plugin' + name
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [path]
from mmrotate_plugin.datasets.synthetic.scenes import draw_scene
s = draw_scene(3, 5, size=97)
print(hashlib.sha256(s.image.tobytes() + s.labels.tobytes() + s.rboxes.tobytes()).hexdigest())
assert 'torch' not in sys.modules and 'mmengine' not in sys.modules
"""
    other = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == forth[5]


@pytest.mark.parametrize('size', [64, 129, 160, 257, (200, 120)])
def test_size_and_types(size):
    scene = draw_scene(0, 1, size=size)
    width, height = size if isinstance(size, tuple) else (size, size)
    assert scene.image.shape == (height, width, 3)
    assert scene.image.dtype == np.uint8
    assert scene.labels.dtype == np.int64
    assert scene.rboxes.shape == (len(scene.labels), 5)
    assert scene.polygons.shape == (len(scene.labels), 4, 2)
    # the camera changes light and colours, but shows what is painted; another scene does not look like it
    painted, other = (paint(lay_out(0, i, size=size, **DEFAULTS), 0, i) for i in (1, 2))
    likeness = [np.corrcoef(scene.image.ravel(), picture.ravel())[0, 1] for picture in (painted, other)]
    assert likeness[0] > 0.8 > 0.5 > likeness[1]
    assert scene.image.std() > 5


def test_number_of_objects():
    assert len(draw_scene(0, 0, num_objects=0).labels) == 0
    counts = [len(draw_scene(0, i, size=257, num_objects=(3, 5)).labels) for i in range(10)]
    assert max(counts) <= 5
    assert np.mean(counts) > 2.5


def test_objects_lie_in_the_image_and_keep_apart():
    checked = 0
    for index in range(40):
        sketch = lay_out(1, index, size=161, **DEFAULTS)
        boxes = sketch.rboxes
        assert ((boxes[:, :2] > 0) & (boxes[:, :2] < 161)).all()
        polygons = box_corners(boxes).astype(np.float32)
        for i in range(len(boxes)):
            for j in range(i):
                if np.hypot(*(boxes[i, :2] - boxes[j, :2])) < 80:
                    area, _ = cv2.intersectConvexConvex(polygons[i], polygons[j])
                    assert area < 0.05 * min(boxes[i, 2] * boxes[i, 3], boxes[j, 2] * boxes[j, 3])
                    checked += 1
    assert checked > 200


def test_every_class_at_all_headings():
    labels, headings = [], []
    for index in range(250):
        sketch = lay_out(2, index, size=193, **DEFAULTS)
        labels.append(sketch.labels)
        headings.append(sketch.rboxes[sketch.labels != CLASSES.index('storage-tank'), 4])
    counts = np.bincount(np.concatenate(labels), minlength=len(CLASSES))
    assert counts.min() > 0.04 * counts.sum()
    sectors, _ = np.histogram(np.concatenate(headings), bins=12, range=(-np.pi, np.pi))
    assert sectors.min() > 0.4 * sectors.mean()
    assert sectors.sum() == sum(len(h) for h in headings)


def test_corners_begin_with_the_edge_ahead():
    polygon = box_corners(np.array([10.0, 20.0, 8.0, 2.0, np.pi / 2]))  # heading down the screen
    np.testing.assert_allclose(polygon, [(11, 16), (11, 24), (9, 24), (9, 16)], atol=1e-12)


def alone(label, rbox, size=161):
    """Pixels that one object changes in an otherwise empty scene."""
    empty = lay_out(7, 0, size=size, num_objects=0, scale=(1, 1))
    empty.clutter.clear()
    before = paint(empty, 7, 0, shadows=False)
    empty.items.append((label, np.asarray(rbox, float)))
    after = paint(empty, 7, 0, shadows=False)
    return np.abs(after.astype(int) - before).max(-1)


def extent(change, angle):
    """Centre and size of the changed pixels in a frame turned by `angle`."""
    y, x = np.nonzero(change > 8)
    along = np.stack([np.cos(angle) * (x + 0.5) + np.sin(angle) * (y + 0.5),
                      -np.sin(angle) * (x + 0.5) + np.cos(angle) * (y + 0.5)])  # fmt: skip
    low, high = along.min(1), along.max(1)
    centre = (low + high) / 2
    turned = np.array([np.cos(angle) * centre[0] - np.sin(angle) * centre[1],
                       np.sin(angle) * centre[0] + np.cos(angle) * centre[1]])  # fmt: skip
    return turned, high - low


@pytest.mark.parametrize('label', range(len(CLASSES)), ids=CLASSES)
@pytest.mark.parametrize('degrees', [0, 37, 90, 151, 225, 300])
def test_box_agrees_with_the_pixels(label, degrees):
    kind = KINDS[label]
    length, angle = kind.length[1], np.deg2rad(degrees)
    if kind.name == 'storage-tank':
        angle = 0.0
    width = length * kind.ratio[1]
    centre, size = extent(alone(label, (80.3, 79.6, length, width, angle)), angle)
    # a pixel counts by its centre, and one that is half covered may go either way
    np.testing.assert_allclose(centre, (80.3, 79.6), atol=0.6)
    np.testing.assert_allclose(size, (length, width), atol=1.6)
    wrong_centre, wrong_size = extent(alone(label, (80.3, 79.6, length, width, angle)), angle + 0.6)
    if kind.name not in ('plane', 'storage-tank'):
        assert np.abs(wrong_size - (length, width)).max() > 2


@pytest.mark.parametrize('name', ['ship', 'large-vehicle', 'plane'])
def test_front_and_back_can_be_told_apart(name):
    label = CLASSES.index(name)
    length = KINDS[label].length[1]
    there = alone(label, (80, 80, length, length * KINDS[label].ratio[0], 0.0)) > 8
    mirrored = there[:, ::-1][:, :160]  # about x = 80.5 in a 161 image
    assert (there[:, 1:] != mirrored).sum() > 0.04 * there.sum()


def test_every_layout_draws_objects():
    for layout in LAYOUTS:
        counts = []
        for seed in range(4):
            sketch = Sketch(np.random.default_rng(seed), 193, 193, 1.0, 10)
            layout(sketch)
            counts.append(len(sketch.items))
            assert paint(sketch, 0, seed).shape == (193, 193, 3)
        assert max(counts) >= 6, layout.__name__


def test_objects_stand_out_from_the_ground():
    contrast = []
    for index in range(12):
        sketch = lay_out(5, index, size=161, **DEFAULTS)
        full = paint(sketch, 5, index, shadows=False).astype(int)
        items, sketch.items = sketch.items, []
        bare = paint(sketch, 5, index, shadows=False).astype(int)
        change = np.abs(full - bare).max(-1)
        for _, (x, y, *_) in items:
            contrast.append(change[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3].max())
    assert np.percentile(contrast, 2) > 20


@pytest.mark.parametrize(
    'options, words',
    [
        ({'size': 16}, 'size=16'),
        ({'num_objects': (5, 2)}, r'num_objects=\(5, 2\)'),
        ({'num_objects': -1}, 'num_objects=-1'),
        ({'scale': (0.0, 1.0)}, 'scale='),
    ],
)
def test_bad_arguments_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        draw_scene(0, 0, **options)


def test_negative_seed_is_named():
    with pytest.raises(ValueError, match='seed=-1'):
        draw_scene(-1, 0)


def test_palette_has_a_colour_per_class():
    assert len(PALETTE) == len(CLASSES) == len(set(PALETTE))


def test_noise_has_the_asked_for_deviation_on_each_half():
    clean, other = (draw_scene(3, 1, size=257, noise_std=std).image.astype(float) for std in (0.0, (4, 12)))
    added = other - clean
    inside = (clean > 60) & (clean < 195)  # five deviations from where grey levels end
    for half, std in ((slice(0, 128), 4), (slice(128, None), 12)):
        values = added[:, half][inside[:, half]]
        # rounding adds 1/12; five standard errors
        assert abs(values.std() - (std**2 + 1 / 12) ** 0.5) < 5 * std / (2 * len(values)) ** 0.5
        assert abs(values.mean()) < 5 * std / len(values) ** 0.5
    assert (draw_scene(3, 1, size=257).image == clean).all()
    again = draw_scene(3, 1, size=257, noise_std=(4, 12)).image
    assert (again == other).all() and (draw_scene(3, 2, size=257, noise_std=(4, 12)).image != again).any()


@pytest.mark.parametrize('noise', [-1, (1, -1), (1, 2, 3), float('nan'), 'loud'])
def test_wrong_noise(noise):
    with pytest.raises(ValueError, match='noise_std='):
        draw_scene(0, 0, noise_std=noise)
