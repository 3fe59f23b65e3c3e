"""Measures against shapely and by hand, copies, and findings; each finding is absent from data without the fault."""

import math

import cv2
import numpy as np
import pytest
from shapely.geometry import Polygon, box

from mmrotate_plugin.datasets import SyntheticAerialDataset
from mmrotate_plugin.datasets.statistics import DataPart, find_problems, measure
from mmrotate_plugin.datasets.statistics.collect import part_of_dataset, to_corners
from mmrotate_plugin.datasets.statistics.duplicates import same_files, twice_labelled
from mmrotate_plugin.datasets.statistics.measure import measure_objects
from mmrotate_plugin.datasets.statistics.problems import line_of
from mmrotate_plugin.structures.corners import box_corners

SIZE = (100, 80)


def part(boxes, labels=None, owners=None, *, name='train', classes=('ship', 'car'), paths=('a.png',), **more):
    boxes = np.asarray(boxes, np.float64).reshape(-1, 5)
    count = len(boxes)
    return DataPart(
        name,
        classes,
        list(paths),
        np.array([SIZE] * len(paths)),
        box_corners(boxes).reshape(-1, 4, 2),
        np.zeros(count, np.int64) if labels is None else np.array(labels),
        np.zeros(count, np.int64) if owners is None else np.array(owners),
        np.zeros(count, bool),
        **more,
    )


def kinds(*parts):
    return [problem.kind for problem in find_problems(parts, [measure_objects(one) for one in parts])]


def test_sides_and_angles_are_those_of_the_boxes():
    rng = np.random.default_rng(0)
    sides = np.sort(rng.uniform(4, 30, (50, 2)), axis=1)
    sides[:, 1] += 2  # no square, whose angle is ambiguous
    angles = rng.uniform(-math.pi / 2, math.pi / 2, 50)
    boxes = np.column_stack([rng.uniform(30, 50, (50, 2)), sides[:, ::-1], angles])
    swapped = boxes[:, [0, 1, 3, 2, 4]] + [0, 0, 0, 0, math.pi / 2]  # the same boxes in other words
    for written in (boxes, swapped):
        found = measure_objects(part(written))
        # minAreaRect computes in float32, about the centre: corners of 16 pixels to 2e-6
        assert np.abs(found.longer - sides[:, 1]).max() < 1e-3 and np.abs(found.shorter - sides[:, 0]).max() < 1e-3
        turned = (found.degrees - np.degrees(angles) + 90) % 180 - 90
        assert np.abs(turned).max() < 0.05
        assert (found.degrees >= -90).all() and (found.degrees < 90).all()
    assert np.abs(measure_objects(part(boxes + [0, 0, 1, 0, 0])).longer - sides[:, 1]).min() > 0.9


def test_the_share_outside_is_that_of_shapely():
    rng = np.random.default_rng(1)
    boxes = np.column_stack([rng.uniform(-10, 110, 60), rng.uniform(-10, 90, 60), rng.uniform(5, 40, (60, 2)),
                             rng.uniform(-2, 2, 60)])  # fmt: skip
    found = measure_objects(part(boxes))
    shapes = [Polygon(corners) for corners in box_corners(boxes)]
    expected = np.array([1 - shape.intersection(box(0, 0, *SIZE)).area / shape.area for shape in shapes])
    assert (found.outside > 0.01).sum() > 20 and (expected < 1e-9).sum() > 10
    # what reaches less than a pixel beyond the edge does not count
    assert np.abs(found.outside - expected)[found.beyond].max() < 1e-4
    assert expected[~found.beyond].max() < 0.2 and found.outside[~found.beyond].max() == 0


def test_numbers_of_a_part():
    numbers = measure(part([[20, 20, 10, 4, 0], [40, 40, 20, 4, 1], [60, 40, 8, 8, 0]], [0, 0, 1], [0, 1, 1],
                           paths=('a.png', 'b.png', 'c.png')))  # fmt: skip
    assert (numbers['images'], numbers['images_without_objects'], numbers['objects']) == (3, 1, 3)
    assert numbers['objects_per_image']['max'] == 2 and numbers['image_width']['50%'] == 100
    ship, car = numbers['classes']['ship'], numbers['classes']['car']
    assert (ship['objects'], ship['images'], car['objects']) == (2, 2, 1)
    assert ship['aspect_ratio']['max'] == pytest.approx(5) and car['size']['50%'] == pytest.approx(8)
    assert sum(ship['angles'].values()) == 2 and ship['angles']['50..60'] == 1  # 1 radian is 57 degrees


def test_numbers_without_any_object():
    numbers = measure(part([]))
    assert numbers['objects'] == 0 and numbers['size'] is None and kinds(part([])) == ['no object']


def test_boxes_labelled_twice_in_any_order_of_corners():
    one = part([[20, 20, 20, 6, 0.3], [20, 20, 20, 6, 0.3], [60, 40, 20, 6, 0.3], [60, 40, 6, 20, 0.3 + math.pi / 2]])
    one.polygons[1] = one.polygons[1][[2, 1, 0, 3]]  # from another corner, the other way round
    assert twice_labelled(one) == [(0, 1), (2, 3)]
    one.polygons[1] += 0.5  # less than a pixel
    assert (0, 1) in twice_labelled(one)
    one.polygons[1] += 4
    one.polygons[2:] += [[[0, 0]], [[0, 8]]]
    assert twice_labelled(one) == []
    across = part([[20, 20, 20, 6, 0.3]] * 2, owners=[0, 1], paths=('a.png', 'b.png'))
    assert twice_labelled(across) == []


def test_boxes_in_a_crowd_are_compared_with_all_near_ones():
    rng = np.random.default_rng(2)
    boxes = np.column_stack([rng.uniform(0, 500, (300, 2)), np.full((300, 2), (9, 5)), rng.uniform(-1, 1, 300)])
    copies = rng.choice(300, 20, replace=False)
    found = twice_labelled(part(np.vstack([boxes, boxes[copies] + [0.2, -0.2, 0, 0, 0]])))
    assert {(int(copies[i]), 300 + i) for i in range(20)} <= set(found) and len(found) < 25


def test_files_of_one_content(tmp_path):
    for name, content in (('a', b'same'), ('b', b'same'), ('c', b'semi'), ('d', b'longer')):
        (tmp_path / name).write_bytes(content)
    paths = [str(tmp_path / name) for name in 'abcd']
    assert same_files([*paths, 'synthetic://no/file.png']) == [[0, 1]]


def test_findings_of_files_and_classes(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    names = ('a.png', 'b.png', 'c.png')
    for name in names:
        cv2.imwrite(str(tmp_path / name), image if name != 'c.png' else image // 2)
    a, b, c = (str(tmp_path / name) for name in names)
    good = part([[20, 20, 10, 4, 0], [50, 50, 10, 4, 0]], [0, 1], paths=(a,))
    val = part([[20, 20, 10, 4, 0], [50, 50, 10, 4, 0]], [0, 1], paths=(c,), name='val')
    assert kinds(good, val) == []
    assert kinds(good, part([[20, 20, 10, 4, 0]], [0], paths=(c,), name='val')) == ['not shared']
    assert kinds(part([[20, 20, 10, 4, 0]], [0], paths=(a,)), val) == ['not shared']
    copy = part([[20, 20, 10, 4, 0], [50, 50, 10, 4, 0]], [0, 1], paths=(b,), name='val')
    assert kinds(good, copy) == ['image in two parts']
    assert kinds(part([], paths=(a, b))) == ['same image', 'no object']
    other = part([[20, 20, 10, 4, 0], [50, 50, 10, 4, 0]], [1, 0], classes=('car', 'ship'), paths=(c,), name='val')
    assert kinds(good, other) == ['other lists']
    wrong = part([[20, 20, 10, 4, 0], [20, 20, 10, 4, 0], [-3, 20, 10, 4, 0]], [0, 1, 0], paths=(a,),
                 unlabelled=['x.png'], broken=['y.png is an empty file'], refused=3, outside=2,
                 refused_first='a.txt:1: no', other_classes={'plane': 7})  # fmt: skip
    assert kinds(wrong) == ['no label file', 'broken', 'left out', 'other classes', 'mostly outside', 'two classes']
    texts = [line_of(problem) for problem in find_problems([wrong], [measure_objects(wrong)])]
    assert texts[0] == 'train: 1 image without label file (x.png)'
    assert texts[2] == 'train: 3 objects left out that cannot be used, 2 outside of the image (a.txt:1: no)'
    assert texts[5] == 'train: 1 box labelled twice, with two classes (a.png: ship and car)'


def test_a_data_set_of_scenes_is_collected():
    data = SyntheticAerialDataset(length=3, size=65, num_objects=2, pipeline=[])
    found = part_of_dataset(data, 'train')
    assert len(found.paths) == 3 and len(found.labels) == 6 and found.sizes.tolist() == [[65, 65]] * 3
    assert found.polygons[0].ravel().tolist() == data.get_data_info(0)['instances'][0]['bbox']


def test_corners_of_boxes_of_any_form():
    assert to_corners([1, 2, 5, 8]) == [1, 2, 5, 2, 5, 8, 1, 8]
    assert np.allclose(to_corners([3, 5, 4, 6, math.pi]), [5, 8, 1, 8, 1, 2, 5, 2])
    with pytest.raises(ValueError, match='6 numbers'):
        to_corners([0] * 6)
