"""DOTA's label files: what is read, and what is said about what cannot be read."""

import logging

import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS as ROOT_DATASETS

from mmrotate_plugin.datasets import DOTADataset, DOTAv2Dataset, DOTAv15Dataset
from mmrotate_plugin.datasets.dota_format import parse_difficulty
from mmrotate_plugin.registry import DATASETS
from mmrotate_plugin.utils import messages

SHIP = '10 10 30 10 30 20 10 20 ship 0'


@pytest.fixture
def warned(monkeypatch):
    """Texts of the warnings."""
    texts = []

    def record(text, logger=None, level=logging.INFO):
        assert logger == 'current'
        if level == logging.WARNING:
            texts.append(text)

    monkeypatch.setattr(messages, 'print_log', record)
    return texts


@pytest.fixture
def make(tmp_path):
    """Write images of 60 x 40 pixels and their label files, and read them."""

    def build(labels, *, cls=DOTADataset, suffix='.png', one_folder=False, **options):
        images = tmp_path / 'images'
        texts = images if one_folder else tmp_path / 'labelTxt'
        images.mkdir(exist_ok=True)
        texts.mkdir(exist_ok=True)
        for name, content in labels.items():
            cv2.imwrite(str(images / f'{name}{suffix}'), np.zeros((40, 60, 3), np.uint8))
            content = content if isinstance(content, bytes) else content.encode()
            (texts / f'{name}.txt').write_bytes(content)
        paths = {'ann_file': texts.name, 'data_prefix': {'img_path': images.name}, 'data_root': str(tmp_path)}
        paths['serialize_data'] = False  # for it mmengine collects garbage: slow
        return cls(**{**paths, **options})

    return build


def test_header_lines_blank_lines_crlf_bom_and_missing_difficulty(make, warned):
    text = '\ufeffimagesource:GoogleEarth\r\ngsd:0.146\r\n\r\n' + SHIP + '\r\n5 5 9 5 9 9 5 9 plane\r\n'
    info = make({'P1': text}).get_data_info(0)
    assert [i['bbox_label'] for i in info['instances']] == [6, 0]
    assert info['instances'][0]['bbox'] == [10, 10, 30, 10, 30, 20, 10, 20]
    assert (info['width'], info['height']) == (60, 40)
    assert (info['img_id'], info['file_name']) == ('P1', 'P1.png')
    assert not warned


def test_same_samples_as_mmrotate(make):
    mmrotate_datasets = pytest.importorskip('mmrotate.datasets')
    labels = {f'P{i}': f'{SHIP}\n5 5 9 5 9 9 5 9 harbor {i}\n' for i in (2, 0, 1)}
    labels['P3'] = ''
    ours = make(labels, diff_thr=1)
    theirs = make(labels, diff_thr=1, cls=mmrotate_datasets.DOTADataset)
    keys = ('img_id', 'file_name', 'img_path', 'instances')
    expected = {info['img_id']: {key: info[key] for key in keys} for info in theirs}
    assert {info['img_id']: {key: info[key] for key in keys} for info in ours} == expected
    assert [ours[i]['img_id'] for i in range(4)] == ['P0', 'P1', 'P2', 'P3']  # sorted, whatever the file system says
    assert [i['ignore_flag'] for i in ours[2]['instances']] == [0, 1]
    assert ours.metainfo['classes'] == theirs.metainfo['classes']
    assert ours.metainfo['palette'] == theirs.metainfo['palette']
    for name in ('DOTAv15Dataset', 'DOTAv2Dataset'):
        assert DATASETS.get(name).METAINFO == getattr(mmrotate_datasets, name).METAINFO


def test_name_is_found_in_our_scope_only():
    assert ROOT_DATASETS.get('mmrotate_plugin.DOTADataset') is DOTADataset
    assert 'DOTADataset' not in ROOT_DATASETS.module_dict


@pytest.mark.parametrize(
    'line, words',
    [
        ('1 2 3', "3 fields ('1 2 3')"),
        ('10 10 30 10 30 20 10 20 ship 0 extra', '11 fields'),
        ('10 10 30 x 30 20 10 20 ship 0', 'does not begin with 8 numbers'),
        ('10,10 30 10 30 20 10 20 ship 0 7', 'does not begin with 8 numbers'),
        ('10 10 30 nan 30 20 10 20 ship 0', 'not finite'),
        ('10 10 30 inf 30 20 10 20 ship 0', 'not finite'),
        ('10 10 30 10 30 20 10 20 ship easy', "difficulty 'easy'"),
        ('10 10 30 10 30 10 10 10 ship 0', 'must have an area'),
        ('10 10 10 10 10 10 10 10 ship 0', '0 x 0 pixels'),
        ('70 10 90 10 90 20 70 20 ship 0', 'outside the image of 60 x 40 pixels'),
        ('61 30 80 48 79 49 60.5 31 ship 0', 'outside the image'),
        ('-30 5 -10 5 -10 20 -30 20 ship 0', 'x -30 to -10'),
    ],
)
def test_line_that_cannot_be_used(make, warned, line, words):
    text = f'imagesource:x\n{SHIP}\n{line}\n{SHIP}\n'
    dataset = make({'P7': text, 'P8': SHIP})
    assert [len(info['instances']) for info in dataset] == [2, 1]
    warning, *_ = warned
    assert 'P7.txt: left out 1 of 3 objects: line 3: ' in warning
    assert words in warning
    with pytest.raises(ValueError, match=r'P7\.txt:3: '):
        make({'P7': text}, strict=True)


def test_one_warning_names_many_lines(make, warned):
    make({'P7': 'rubbish\n' * 20 + SHIP})
    (warning,) = warned
    assert 'left out 20 of 21' in warning
    assert 'line 1: ' in warning
    assert 'and lines 9, 10, ' in warning


@pytest.mark.parametrize(
    'line',
    [
        '-10 5 10 5 10 20 -10 20 ship 0',  # half outside
        '-50 -50 150 -50 150 150 -50 150 ship 0',  # the image is inside it
        '126 191 128 171 20 18 21 19 ship 0',  # crossed corners
    ],
)
def test_partly_outside_is_kept(make, warned, line):
    (instance,) = make({'P1': line}).get_data_info(0)['instances']
    assert instance['bbox'] == [float(v) for v in line.split()[:8]]
    assert not warned


def test_versions_know_their_classes(make, warned):
    text = f'{SHIP}\n1 1 9 1 9 9 1 9 container-crane 0\n1 1 9 1 9 9 1 9 helipad 1\n'
    assert make({'P1': text}, cls=DOTAv15Dataset).get_cat_ids(0) == [6, 15]
    assert "1 of 3 objects are left out, because the config does not have their class: 'helipad' (1);" in warned[0]
    assert make({'P1': text}, cls=DOTAv2Dataset).get_cat_ids(0) == [6, 15, 17]
    assert len(warned) == 1
    assert make({'P1': text}).get_cat_ids(0) == [6]
    assert len(warned) == 2


def test_chosen_classes_only_without_a_warning(make, warned):
    text = f'{SHIP}\n1 1 9 1 9 9 1 9 harbor 0\n'
    dataset = make({'P1': text}, metainfo={'classes': ('harbor', 'bridge')})
    assert dataset.get_cat_ids(0) == [0]
    assert not warned


def test_images_without_objects(make):
    labels = {'P1': '', 'P2': SHIP, 'P3': 'imagesource:x\ngsd:null\n'}
    assert len(make(labels)) == 3
    assert len(make(labels, filter_cfg={'filter_empty_gt': True})) == 1
    assert len(make(labels, filter_cfg={'filter_empty_gt': True}, test_mode=True)) == 3
    with pytest.raises(ValueError, match='leaves none of 3 images'):
        make({'P1': '', 'P2': '', 'P3': ''}, filter_cfg={'filter_empty_gt': True})


def test_images_without_labels_at_all(make):
    dataset = make({'P1': SHIP, 'P2': ''}, ann_file='', test_mode=True)
    assert [info['instances'] for info in dataset] == [[], []]


def test_one_folder_for_everything(make, tmp_path):
    (tmp_path / 'images').mkdir()
    (tmp_path / 'images/README.md').write_text('about this folder')
    dataset = make({'P1': SHIP}, one_folder=True)
    assert dataset.get_cat_ids(0) == [6]


def test_other_suffix_with_or_without_dot(make):
    for suffix in ('jpg', '.jpg'):
        assert make({'P1': SHIP}, suffix='.jpg', img_suffix=suffix)[0]['file_name'] == 'P1.jpg'


def test_huge_image_is_measured_without_decoding(make, tmp_path, recwarn):
    import struct
    import zlib

    def chunk(kind, body):
        return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))

    dataset = make({'P1': SHIP}, lazy_init=True)
    header = chunk(b'IHDR', struct.pack('>IIBBBBB', 29200, 27620, 8, 2, 0, 0, 0))
    (tmp_path / 'images/P1.png').write_bytes(b'\x89PNG\r\n\x1a\n' + header + chunk(b'IDAT', b'') + chunk(b'IEND', b''))
    info = dataset.get_data_info(0)
    assert (info['width'], info['height']) == (29200, 27620)
    assert not [w for w in recwarn if 'decompression' in str(w.message).lower()]


def error_of(call, **options):
    with pytest.raises((FileNotFoundError, ValueError)) as caught:
        call(**options)
    return str(caught.value)


def test_folders_that_cannot_be_used(make, tmp_path):
    make({'P1': SHIP})
    again = {'labels': {}}
    assert "ann_file: '" in (text := error_of(make, ann_file='nowhere', **again))
    assert 'nowhere' in text
    assert 'does not exist' in text
    text = error_of(make, ann_file='labelTxt/P1.txt', **again)
    assert 'is a file, not a folder' in text
    text = error_of(make, data_prefix={'img_path': 'nowhere'}, **again)
    assert "data_prefix['img_path']" in text
    text = error_of(make, data_prefix={'img': 'images'}, **again)
    assert "'img_path'" in text
    text = error_of(make, img_suffix='tif', **again)
    assert 'no *.tif' in text
    assert 'files ending in .png; set img_suffix' in text
    text = error_of(make, ann_file='images', **again)
    assert 'ann_file: no *.txt' in text
    (tmp_path / 'empty').mkdir()
    text = error_of(make, data_prefix={'img_path': 'empty'}, **again)
    assert 'it holds no files' in text


def test_lone_files_are_named(make, tmp_path):
    make({'P1': SHIP, 'P2': SHIP, 'P3': SHIP})
    (tmp_path / 'images/P2.png').unlink()
    text = error_of(make, labels={})
    assert 'no .png image in' in text
    assert 'P2; add the images' in text
    (tmp_path / 'labelTxt/P2.txt').unlink()
    (tmp_path / 'labelTxt/P3.txt').unlink()
    text = error_of(make, labels={})
    assert 'no .txt label file in' in text
    assert 'P3; an image without objects needs an empty one' in text


def test_broken_image_is_named(make, tmp_path):
    dataset = make({'P1': SHIP}, lazy_init=True)
    (tmp_path / 'images/P1.png').write_bytes(b'not an image')
    assert 'P1.png cannot be read as an image' in error_of(dataset.full_init)


# ---- suffixes


def test_several_suffixes_in_any_case(make, warned, tmp_path):
    make({'P1': SHIP})
    make({'P2': SHIP}, suffix='.jpg', img_suffix=('png', 'jpg'))
    make({'P3': SHIP}, suffix='.JPG', img_suffix=['.PNG', '*.jpg'])
    (tmp_path / 'labelTxt/P3.txt').rename(tmp_path / 'labelTxt/P3.TXT')
    dataset = make({}, img_suffix=('jpg', 'png'))
    assert [(info['img_id'], info['file_name']) for info in dataset] == [
        ('P1', 'P1.png'), ('P2', 'P2.jpg'), ('P3', 'P3.JPG')]  # fmt: skip
    assert not warned
    text = error_of(make, labels={}, img_suffix='jpg')
    assert 'no .jpg image in' in text and 'P1; there is P1.png; add the images, set img_suffix (several:' in text
    for wrong in ('', (), ('png', '')):
        assert f'img_suffix={wrong!r} must be an ending' in error_of(make, labels={}, img_suffix=wrong)


def test_what_is_left_out_is_counted_and_named_once(make, warned, tmp_path):
    make({'P1': SHIP})
    for name in ('P2.tif', 'P3.JPEG', 'P1.jpg', '.P4.png', '._P1.png', 'Thumbs.db', 'notes.md'):
        (tmp_path / 'images' / name).write_bytes(b'')
    (tmp_path / 'images/sub').mkdir()
    (tmp_path / 'labelTxt/classes.txt').write_text('ship\n')  # as labelling tools leave it
    assert len(make({})) == 1
    (text,) = warned
    assert 'images of another ending than img_suffix are left out, 3 in all (P1.jpg, P2.tif, P3.JPEG)' in text
    assert "img_suffix=('jpeg', 'jpg', 'png', 'tif') takes them too" in text
    text = error_of(make, labels={}, img_suffix=('png', 'jpg'))
    assert 'P1.jpg and P1.png in' in text and 'have one name' in text


def test_a_folder_of_folders(make):
    make({'P1': SHIP})
    text = error_of(make, labels={}, data_prefix={'img_path': ''})
    assert 'it holds folders (images, labelTxt): name one of them' in text
    assert 'are parted by / here' in error_of(make, labels={}, ann_file='train\\labelTxt')


# ---- difficulty


@pytest.mark.parametrize('written, number', [('0', 0), ('1', 1), ('2', 2), ('1.0', 1), ('0.0', 0), ('-1', -1),
                                             ('True', 1), ('false', 0), ('0.5', None), ('None', None)])  # fmt: skip
def test_difficulty_as_it_is_written(written, number):
    assert parse_difficulty(written) == number


@pytest.mark.parametrize(
    'options, flags',
    [({}, [0, 0, 0]), ({'test_mode': True}, [0, 1, 1]), ({'diff_thr': 1}, [0, 0, 1]),
     ({'diff_thr': 1, 'test_mode': True}, [0, 0, 1]), ({'diff_thr': 100, 'test_mode': True}, [0, 0, 0])],
)  # fmt: skip
def test_difficult_objects_are_ignored_in_a_test_as_in_dotas_evaluation(make, options, flags):
    text = ''.join(f'{SHIP[:-1]}{difficulty}\n' for difficulty in (0, 1, 2))
    assert [one['ignore_flag'] for one in make({'P1': text}, **options).get_data_info(0)['instances']] == flags


def test_an_image_of_ignored_objects_alone_is_empty_to_a_training(make):
    hard = f'{SHIP[:-1]}1\n'
    filtered = {'filter_cfg': {'filter_empty_gt': True}}
    assert len(make({'P1': SHIP, 'P2': hard}, **filtered)) == 2  # a training learns them
    assert len(make({'P1': SHIP, 'P2': hard}, **filtered, diff_thr=0)) == 1
    assert len(make({'P1': SHIP, 'P2': hard}, **filtered, test_mode=True)) == 2


def test_mmdet_packs_ignored_objects_apart(make):
    pytest.importorskip('mmrotate')
    from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs
    from mmrotate.datasets.transforms import ConvertBoxType

    hard = f'{SHIP[:-1]}1\n'
    steps = [LoadAnnotations(with_bbox=True, box_type='qbox'), ConvertBoxType(dict(gt_bboxes='rbox')),
             PackDetInputs(meta_keys=())]  # fmt: skip
    for text, counts in ((hard + hard, (0, 2)), (SHIP + '\n' + hard, (1, 1)), ('', (0, 0))):
        results = make({'P1': text}, test_mode=True).get_data_info(0)
        for step in steps:
            results = step(results)
        sample = results['data_samples']
        assert (len(sample.gt_instances), len(sample.ignored_instances)) == counts
        assert sample.gt_instances.bboxes.tensor.shape == (counts[0], 5)


def test_other_encodings(make, warned):
    with pytest.raises(ValueError, match='it is UTF-16: save it as UTF-8'):
        make({'P1': SHIP.encode('utf-16')})
    latin = f'{SHIP}\n{SHIP}'.replace('ship', 'frégate', 1).encode('latin-1')
    assert make({'P1': latin}).get_cat_ids(0) == [6]
    assert "'fr\ufffdgate' (1, not UTF-8: save the label files as UTF-8)" in warned[-1]
    for classes, name in ((('fr\xe9gate',), 'fre\u0301gate'), (('fre\u0301gate',), 'fr\xe9gate')):  # one letter or two
        assert make({'P1': SHIP.replace('ship', name)}, metainfo={'classes': classes}).get_cat_ids(0) == [0]


def box(x, y):
    return f'{x} {y} {x + 9} {y} {x + 9} {y + 5} {x} {y + 5} ship 0\n'


def test_many_boxes_outside_hint_at_the_reason(make, warned):
    outside = ''.join(box(10 * k, 150 - 20 * k) for k in range(5))
    with pytest.raises(ValueError, match='none of 5 lines can be used.*; they reach 3.88 times as far as the images'):
        make({'P1': outside})
    assert len(make({'P1': outside + 15 * f'{SHIP}\n'}).get_cat_ids(0)) == 15
    assert '5 of 20 boxes lie outside their images; they reach 3.88 times as far as the images: are' in warned[-1]
    with pytest.raises(ValueError, match='with x and y exchanged they would lie inside: write x first'):
        make({'P1': box(20, 45) + box(5, 50)})
    warned.clear()
    make({'P1': outside + 30 * f'{SHIP}\n'})  # careless labels, as in DOTA
    assert warned and not any('times as far' in text for text in warned)


@pytest.mark.parametrize(
    'options, message',
    [
        ({'data_prefix': 'images'}, "data_prefix='images' must be a dict"),
        ({'ann_file': ['labelTxt']}, 'must be one path; ConcatDataset joins several'),
        ({'filter_cfg': True}, 'filter_cfg=True must be a dict'),
        ({'filter_cfg': {'min_size': '32'}}, "min_size='32' must be a number of pixels"),
    ],
)
def test_arguments_of_another_kind(make, options, message):
    with pytest.raises(ValueError, match=message):
        make({'P1': SHIP}, **options)


def test_label_files_named_after_the_whole_image_file(make, tmp_path):
    make({'P1': SHIP})
    (tmp_path / 'labelTxt/P1.txt').rename(tmp_path / 'labelTxt/P1.png.txt')
    with pytest.raises(FileNotFoundError, match=r'of P1\.png the label file is P1\.txt'):
        make({})
