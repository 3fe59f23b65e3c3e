"""Label files of any bytes: each line is read right or refused with a reason; nothing else happens."""

import json
import math
import os
import warnings

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.dataset import BaseDataset, RepeatDataset

from mmrotate_plugin.datasets import DOTADataset
from mmrotate_plugin.datasets.dota_format import BadAnnotation, check_polygon, parse_line
from mmrotate_plugin.datasets.utils.broken_files import BrokenFileError
from mmrotate_plugin.datasets.utils.path_check import files_outside
from mmrotate_plugin.utils import messages

FUZZ = settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
KNOWN = set(DOTADataset.METAINFO['classes'])
SHIP = '10 10 30 10 30 20 10 20 ship 0'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """One image of 60 x 40 pixels and its label file."""
    root = tmp_path_factory.mktemp('hostile')
    for name in ('images', 'labels'):
        (root / name).mkdir()
    cv2.imwrite(str(root / 'images/a.png'), np.zeros((40, 60, 3), np.uint8))
    (root / 'labels/a.txt').write_text(SHIP)
    return root


def read(folder, **options):
    return DOTADataset(data_root=str(folder), ann_file='labels', data_prefix=dict(img_path='images'), **options)


@pytest.fixture(scope='module')
def datasets(folder):
    return read(folder), read(folder, strict=True)


numbers = st.one_of(
    st.floats().map(repr),
    st.integers(-(10**400), 10**400).map(str),
    st.integers(-20, 80).map(str),
    st.sampled_from(['nan', '-inf', '1e39', '1e400', '3e38', '-3.4e38', '1_0', '٣', '0x1p3', '']),
)
names = st.one_of(st.sampled_from(sorted(KNOWN)), st.text(max_size=20), st.just('x' * 100_000))
lines = st.one_of(
    st.builds(lambda p, *rest: ' '.join([*p, *rest]), st.lists(numbers, min_size=8, max_size=8), names, numbers),
    st.lists(st.one_of(numbers, names), max_size=14).map(' '.join),
    st.text(max_size=60),
    st.just(SHIP),
)
contents = st.one_of(
    st.binary(max_size=400),
    st.lists(lines, max_size=6).map(lambda found: '\n'.join(found).encode('utf-8', 'surrogatepass')),
    st.lists(lines, max_size=4).map(lambda found: '\r\n'.join(found).encode('utf-16', 'surrogatepass')),
)


@FUZZ
@given(content=contents)
def test_any_content_is_read_or_refused_line_by_line(folder, datasets, content):
    path = folder / 'labels/b.txt'
    path.write_bytes(content)
    said = []
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter('error')  # of numpy's overflows
        patch.setattr(messages, 'print_log', lambda text, **_: said.append(text))
        if b'\0' in content:
            with pytest.raises(BrokenFileError, match='zero bytes'):
                datasets[0]._read(path, 60, 40)
            return
        for dataset in datasets:
            dataset._begin()
        instances = datasets[0]._read(path, 60, 40)
        unknown = datasets[0]._census.left
        try:
            assert datasets[1]._read(path, 60, 40) == instances and not said
        except ValueError as error:
            assert str(error).startswith(f'{path}:') and (said or unknown)
    for instance in instances:
        assert len(instance['bbox']) == 8 and all(math.isfinite(v) and abs(v) <= 1e6 for v in instance['bbox'])
        assert 0 <= instance['bbox_label'] < len(KNOWN) and instance['ignore_flag'] in (0, 1)
    assert len(said) <= 1 and all(len(text) < 20_000 for text in said)


@FUZZ
@given(line=lines)
def test_any_line_is_a_box_or_a_bad_line(line):
    try:
        found = parse_line(line, KNOWN)
        check_polygon(found.polygon, 60, 40)
    except BadAnnotation as error:
        assert 10 < len(str(error)) < 1000
    else:
        assert found.name and isinstance(found.difficulty, int) and len(found.polygon) == 8


def test_a_good_line_survives_all_that_surrounds_it(folder, datasets):
    path = folder / 'labels/b.txt'
    path.write_bytes(b'\x01\xff\n' + b'9' * 10**6 + b'\n' + SHIP.encode() + b'\n' + b'\x0b'.join([b'x'] * 1000))
    (found,) = datasets[0]._read(path, 60, 40)
    assert found['bbox'] == [10, 10, 30, 10, 30, 20, 10, 20]
    path.write_bytes(b'nonsense\n' * 100_000)
    with pytest.MonkeyPatch.context() as patch:
        said = []
        patch.setattr(messages, 'print_log', lambda text, **_: said.append(text))
        assert datasets[0]._read(path, 60, 40) == [] and len(said[0]) < 3000 and '100000 of 100000' in said[0]


def test_lines_are_counted_as_editors_do(folder, datasets):
    path = folder / 'labels/b.txt'
    path.write_text(f'{SHIP}\u2028\x85\n\x0c\nbad\n')
    with pytest.raises(ValueError, match=r'b\.txt:3: '):
        datasets[1]._read(path, 60, 40)


def test_a_huge_label_file_and_a_pipe_are_refused_at_once(folder, tmp_path):
    for name in ('images', 'labels'):
        (tmp_path / name).mkdir()
    (tmp_path / 'images/a.png').write_bytes((folder / 'images/a.png').read_bytes())
    with (tmp_path / 'labels/a.txt').open('wb') as file:
        file.truncate(2**30)  # of zeros, which take no space
    with pytest.raises(ValueError, match=r'a\.txt has 1073741824 bytes; a label file has at most'):
        read(tmp_path)
    (tmp_path / 'labels/a.txt').unlink()
    os.mkfifo(tmp_path / 'labels/a.txt')
    with pytest.raises(FileNotFoundError, match=r'a\.txt.* is no file'):
        read(tmp_path)


# ---- paths in annotations


@pytest.mark.parametrize(
    'name, leaves',
    [
        ('a.png', False),
        ('sub/../a.png', False),
        ('../images/a.png', False),
        ('../labels/a.png', False),  # still below data_root
        ('../../a.png', True),
        ('/etc/passwd', True),
        ('../../hostile_images/a.png', True),
        ('sub/../../../../etc/passwd', True),
    ],
)
def test_annotations_cannot_name_files_outside(name, leaves, tmp_path):
    root = tmp_path / 'hostile'
    root.mkdir()
    listed = [{'img_path': 'a.png'}, {'img_path': name}]
    (root / 'list.json').write_text(json.dumps({'metainfo': {}, 'data_list': listed}))
    dataset = BaseDataset(ann_file='list.json', data_root=str(root), data_prefix=dict(img_path='images'))
    for wrapped in (dataset, RepeatDataset(dataset, 2)):
        found = files_outside(wrapped)
        assert len(found) == leaves and all(name in path for path in found)


def test_a_data_set_without_folders_is_not_looked_at(folder, tmp_path):
    (tmp_path / 'list.json').write_text(json.dumps({'metainfo': {}, 'data_list': [{'img_path': '/data/a.png'}]}))
    assert files_outside(BaseDataset(ann_file=str(tmp_path / 'list.json'))) == []
    (folder / 'labels/b.txt').unlink(missing_ok=True)
    assert files_outside(read(folder)) == [] and files_outside(object()) == []
