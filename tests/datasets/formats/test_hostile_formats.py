"""Label files of any content, in each format: objects are read right or refused with a reason; nothing else happens."""

import json
import math
import warnings

import pytest
from format_files import SHIP, coco, image, labelme, pairs, put, shape, turned, xml, yolo_line
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmrotate_plugin.datasets.dota_format import Annotation, BadAnnotation, check_polygon
from mmrotate_plugin.datasets.formats import labelme as labelme_format
from mmrotate_plugin.datasets.formats import rolabelimg, yolo_obb
from mmrotate_plugin.datasets.formats.coco import CocoFile
from mmrotate_plugin.datasets.formats.coco_boxes import parse_annotation
from mmrotate_plugin.datasets.formats.readers import read_source
from mmrotate_plugin.datasets.formats.recognise import FORMATS, kind_of
from mmrotate_plugin.datasets.utils.broken_files import BrokenFileError
from mmrotate_plugin.datasets.utils.label_files import parse_xml
from mmrotate_plugin.utils import messages
from mmrotate_plugin.utils.errors import InputError

FUZZ = settings(
    max_examples=120,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**400), 10**400),
        st.integers(0, 200),
        st.floats(),
        st.text(max_size=8),
        st.just(SHIP),
        st.just(pairs(SHIP)),
    ),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
numbers = st.one_of(
    st.floats().map(repr),
    st.integers(-(10**400), 10**400).map(str),
    st.floats(-0.2, 1.2).map(str),
    st.sampled_from(['nan', 'inf', '1e400', '1_0', '٣', '', '2']),
)


def check(found):
    for number, item in found:
        assert isinstance(number, int) and isinstance(item, (Annotation, BadAnnotation))
        if isinstance(item, Annotation):
            assert len(item.polygon) == 8 and all(math.isfinite(value) for value in item.polygon)
            assert item.name and isinstance(item.difficulty, int)
            try:
                check_polygon(item.polygon, 200, 120)
            except BadAnnotation as error:
                assert len(str(error)) < 1000
        else:
            assert 10 < len(str(item)) < 1000


@FUZZ
@given(
    st.lists(st.lists(numbers, max_size=11).map(' '.join) | st.text(max_size=40) | st.just(yolo_line(SHIP)), max_size=5)
)
def test_any_text_as_yolo_obb(lines):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        check(yolo_obb.parse_text('\n'.join(lines), {0: 'a', 2: 'b'}, 200, 120))


keys = ('label', 'points', 'shape_type', 'flags', 'difficult', 'group_id')


@FUZZ
@given(st.dictionaries(st.sampled_from(keys), values, max_size=4))
def test_any_value_in_a_shape_of_labelme(changes):
    found = enumerate([shape(pairs(SHIP)) | changes])
    check((n, tried(labelme_format.parse_shape, one)) for n, one in found)


keys = ('category_id', 'bbox', 'segmentation', 'iscrowd', 'difficult', 'attributes', 'extra')


@FUZZ
@given(st.dictionaries(st.sampled_from(keys), values, max_size=4), st.sampled_from(['obb', 'hbb']))
def test_any_value_in_an_annotation_of_coco(changes, ann_type):
    one = {'category_id': 7, 'segmentation': [SHIP], 'bbox': [1, 2, 3, 4]} | changes
    check([(0, tried(parse_annotation, one, {7: 'ship'}, ann_type, 'cw-degrees'))])


@pytest.mark.parametrize('counts', [[1, 2, 3], [-5, 29], ['x'], [10**400], [math.nan], 'a', '0' * 50, '', [[1]]])
def test_masks_that_do_not_fit_their_size(counts):
    pytest.importorskip('pycocotools')
    one = {'category_id': 7, 'segmentation': {'size': [4, 6], 'counts': counts}}
    assert isinstance(tried(parse_annotation, one, {7: 'ship'}, 'obb', None), BadAnnotation)


def tried(parse, *arguments):
    try:
        return parse(*arguments)
    except BadAnnotation as error:
        return error


@FUZZ
@given(st.binary(max_size=200) | st.builds(lambda a, b: xml(turned(), turned(w=a, angle=b)).encode(), numbers, numbers))
def test_any_content_as_xml(data):
    try:
        root = parse_xml('x', data)
        check(rolabelimg.parse_root('x', root))
    except BrokenFileError as error:
        assert str(error).startswith('x ')


@FUZZ
@given(values, st.sampled_from(['images', 'annotations', 'categories', 'shapes', 'imageWidth']))
def test_any_json_as_a_file(tmp_path, value, key):
    for text in (coco({'segmentation': [SHIP]}), labelme(shape(pairs(SHIP)))):
        content = json.loads(text)
        content[key] = value
        path = put(tmp_path / 'a.json', json.dumps(content))
        assert kind_of(path) in (*FORMATS, None, '', 'geojson')
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(messages, 'print_log', lambda *_, **__: None)
            for read in (CocoFile, lambda path: check(labelme_format.parse_file(path)[0])):
                try:
                    read(path)
                except ValueError as error:
                    assert 'a.json' in str(error) and len(str(error)) < 1000


@FUZZ
@given(st.binary(max_size=100) | st.lists(st.lists(numbers, max_size=10).map(' '.join), max_size=4).map('\n'.join))
def test_any_text_in_a_folder_is_converted_or_refused(tmp_path, content):
    if not (tmp_path / 'd/a.png').exists():
        image(tmp_path / 'd/a.png')
    put(tmp_path / 'd/a.txt', content if isinstance(content, bytes) else content.encode())
    for wanted in (None, 'dota'):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(messages, 'print_log', lambda *_, **__: None)
            try:
                read_source(tmp_path / 'd', wanted)
            except (InputError, ValueError) as error:
                assert str(tmp_path) in str(error) and len(str(error)) < 3000
