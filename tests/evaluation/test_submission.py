import zipfile

import numpy as np
import pytest
from evaluation_references import random_boxes, renamed

from mmrotate_plugin.evaluation import EvaluationError
from mmrotate_plugin.evaluation.functional import rotated_iou
from mmrotate_plugin.evaluation.functional.submission import (
    check_submission,
    merge_patches,
    parse_patch,
    write_submission,
)


@pytest.mark.parametrize(
    'name, expected',
    [
        ('P0001__1__824___0', ('P0001', 1, 824, 0)),
        ('P0001__1.0__0___824', ('P0001', 1, 0, 824)),
        ('P0001__0.5__412___7', ('P0001', 0.5, 412, 7)),
        ('P0001__1024__0___200', ('P0001', 1, 0, 200)),  # mmrotate's splitter writes the side
        ('P0001__v2__1__0___3', ('P0001__v2', 1, 0, 3)),
        ('P0001__2__1__0___3', ('P0001__2', 1, 0, 3)),
        ('P0001__0___3', ('P0001', 1, 0, 3)),
        ('a_b-c.d__1__5___6', ('a_b-c.d', 1, 5, 6)),
    ],
)
def test_names_of_patches(name, expected):
    assert parse_patch(name) == expected


@pytest.mark.parametrize('name', ['synthetic-00000', 'P1__1__0__0', 'P1__x___y', '__0___0', 'P1__1__0___0_b', ''])
def test_other_names_are_refused(name):
    with pytest.raises(EvaluationError, match='the name does not say where the patch was cut.*P0001__1__824___0'):
        parse_patch(name)


@pytest.mark.parametrize(
    'names, classes, message',
    [
        (['P1__1__0___0', 'P1'], ['ship'], "image 'P1': the name does not say"),
        (['a b__1__0___0'], ['ship'], "'a b' cannot be an image's name"),
        (['P1__0__0___0'], ['ship'], 'the scale of a patch cannot be 0'),
        (['P1__1__0___0'] * 2, ['ship'], 'is there twice'),
        (['P1__1__0___0'], ['car/van'], "class 'car/van': a submission has one file"),
        (['P1__1__0___0'], ['a\\b'], 'cannot be part of its name'),
        (['P1__1__0___0'], ['ship '], 'cannot be part of its name'),
        (['P1__1__0___0'], ['Ship', 'ship'], 'differs in capitals alone'),
    ],
)
def test_what_spoils_a_submission_is_refused(names, classes, message, tmp_path):
    with pytest.raises(EvaluationError, match=message):
        check_submission(names, classes, tmp_path / 'sub')


def test_folders_that_exist_are_refused(tmp_path):
    check_submission(['P1__1__0___0'], ['large vehicle'], tmp_path / 'deep' / 'sub')
    with pytest.raises(EvaluationError, match='exists already: remove it'):
        check_submission(['P1__1__0___0'], ['ship'], tmp_path)
    (tmp_path / 'file').write_text('')
    with pytest.raises(EvaluationError, match="cannot be made: '.*file' cannot be written"):
        check_submission(['P1__1__0___0'], ['ship'], tmp_path / 'file' / 'sub')


def patch(name, boxes, scores=None, labels=None):
    boxes = np.asarray(boxes, dtype=np.float64)
    ones = np.ones(len(boxes))
    return dict(img_id=name, bboxes=boxes, scores=ones if scores is None else scores,
                labels=0 * ones if labels is None else labels)  # fmt: skip


def test_boxes_come_back_to_the_whole_image_once():
    rng = np.random.default_rng(0)
    boxes = random_boxes(rng, 8, 10, 30, where=1)
    boxes[:, :2] = 200 + 60 * np.stack(np.divmod(np.arange(8), 4), axis=1)
    images = []
    for x, y, rate in ((0, 0, 1), (150, 100, 1), (75, 40, 0.5), (0, 0, 2)):
        there = renamed(boxes, rng) * [rate, rate, rate, rate, 1] - [x, y, 0, 0, 0]
        images.append(patch(f'P1__v2__{rate}__{x}___{y}', there, rng.random(8)))
    images.append(patch('P1__v3__1__0___0', boxes[:1]))
    merged = merge_patches(images, 0.1)
    assert list(merged) == ['P1__v2', 'P1__v3'] and len(merged['P1__v2']['scores']) == 8
    assert np.sort(rotated_iou(merged['P1__v2']['bboxes'], boxes).max(1))[0] > 1 - 1e-9
    assert (np.diff(merged['P1__v2']['scores']) <= 0).all()
    quads = merge_patches([patch('A__1__5___7', [[0, 0, 4, 0, 4, 4, 0, 4]])], 0.1)['A']['bboxes']
    assert quads.tolist() == [[5, 7, 9, 7, 9, 11, 5, 11]]


def test_files_are_those_that_the_server_takes(tmp_path):
    boxes = [[20, 30, 8, 4, 0], [60, 30, 8, 4, 0]]
    images = [patch('P1__1__100___0', boxes, np.array([0.123456, 0.9]), np.arange(2))]
    images.append(patch('P2__1__0___0', np.zeros((0, 5))))
    path = write_submission(merge_patches(images, 0.1), ['ship', 'plane', 'harbor'], tmp_path / 'deep' / 'sub')
    assert path == tmp_path / 'deep' / 'sub' / 'sub.zip'
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ['Task1_ship.txt', 'Task1_plane.txt', 'Task1_harbor.txt']
        line = archive.read('Task1_ship.txt').decode()
    assert line == 'P1 0.123456 116.00 28.00 124.00 28.00 124.00 32.00 116.00 32.00\n'
    assert (path.parent / 'Task1_harbor.txt').read_text() == ''
    assert sorted(file.name for file in path.parent.parent.iterdir()) == ['sub']
    flat = write_submission(merge_patches([patch('P1__1__0___0', [[1, 2, 3, 4]])], 0.1), ['ship'], tmp_path / 'flat')
    assert (flat.parent / 'Task2_ship.txt').read_text() == 'P1 1.000000 1.00 2.00 3.00 4.00\n'
