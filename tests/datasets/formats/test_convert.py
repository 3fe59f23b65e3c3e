"""Conversions: every format to every other and back, and what is said about what is lost or cannot be done."""

import itertools
import json
import os
from collections import Counter

import cv2
import numpy as np
import pytest
from format_files import (
    CLASSES,
    HEIGHT,
    QUAD,
    SHIP,
    WIDTH,
    coco,
    farthest,
    image,
    labelme,
    pairs,
    put,
    shape,
    turned,
    words,
    xml,
    yolo,
    yolo_line,
)

from mmrotate_plugin.datasets import (
    DIORDataset,
    DOTADataset,
    HRSCDataset,
    LabelMeDataset,
    RoLabelImgDataset,
    RotatedCocoDataset,
    YOLOOBBDataset,
    convert_dataset,
)
from mmrotate_plugin.datasets.formats.convert import MARK
from mmrotate_plugin.datasets.formats.readers import read_source
from mmrotate_plugin.datasets.formats.writers import WRITERS
from mmrotate_plugin.utils.errors import InputError, UsageError

TOLERANCE = 1e-3  # pixels
NAMES = ('a.b c.png', 'ü.JPG', 'leer.tif')


@pytest.fixture
def dota(tmp_path):
    """Two splits in DOTA's format: names with dots, blanks and umlauts, a BOM, CRLF, tabs, difficult and no objects."""
    root = tmp_path / 'dota'
    for split, (name, *more) in {'train': NAMES[:2], 'val': NAMES[2:]}.items():
        for one in (name, *more):
            image(root / split / 'images' / one)
    put(
        root / 'train/labelTxt/a.b c.txt',
        f'\ufeff{words(SHIP)} ship 0\r\n\r\n{words(QUAD)}\tstorage tank\t1\r\n',
    )
    put(root / 'train/labelTxt/ü.TXT', f'{words(SHIP[2:] + SHIP[:2])} Frégate légère 1\n')
    put(root / 'val/labelTxt/leer.txt', '')
    return root


def content(root, kind=None):
    """What a folder says: for each image its split, size, and objects."""
    return {
        (sample.split, sample.image.stem): ((sample.width, sample.height), sample.objects)
        for sample in read_source(root, kind).samples
    }


def same(one, other, *, corners=True, difficult=True):
    assert set(one) == set(other)
    for key, (size, objects) in one.items():
        size_there, there = other[key]
        assert size == size_there and len(objects) == len(there)
        for a, b in zip(objects, there, strict=True):
            assert a.name == b.name and (not difficult or a.difficulty == b.difficulty)
            far = np.abs(np.subtract(a.polygon, b.polygon)).max() if corners else farthest(a.polygon, b.polygon)
            assert far < TOLERANCE, (key, a, b)


RECTANGLES = {'rolabelimg'}
EASY = {'yolo-obb'}


@pytest.mark.parametrize('first, second', itertools.product(WRITERS, WRITERS))
def test_there_and_back(dota, tmp_path, first, second):
    start = content(dota)
    assert sorted(len(objects) for _, objects in start.values()) == [0, 1, 2]
    if {first, second} & RECTANGLES:  # such a format holds rectangles: begin with some
        put(dota / 'train/labelTxt/a.b c.txt', f'{words(SHIP)} ship 0\n{words(SHIP)} storage tank 1\n')
        start = content(dota)
    convert_dataset(dota, tmp_path / 'one', first)
    convert_dataset(tmp_path / 'one', tmp_path / 'two', second)
    convert_dataset(tmp_path / 'two', tmp_path / 'end', 'dota')
    end = content(tmp_path / 'end')
    same(start, end, difficult=not {first, second} & EASY)
    for name in NAMES:
        (there,) = (tmp_path / 'end').rglob(name)
        (here,) = dota.rglob(name)
        assert there.read_bytes() == here.read_bytes()


def test_a_wrong_corner_or_flag_would_be_seen(dota):
    start, moved = content(dota), content(dota)
    moved['train', 'a.b c'][1][0].polygon[3] += 2 * TOLERANCE
    with pytest.raises(AssertionError):
        same(start, moved)
    with pytest.raises(AssertionError):
        same(start, {key: value for key, value in start.items() if key[0] == 'train'})


def test_data_sets_read_what_is_written(dota, tmp_path, said):
    for to in WRITERS:
        convert_dataset(dota, tmp_path / 'out' / to, to)
    tmp_path /= 'out'
    quiet = {'serialize_data': False}
    kinds = {'metainfo': {'classes': CLASSES}, **quiet}
    suffixes = ('png', 'jpg')
    built = {
        'dota': DOTADataset(
            data_root=str(tmp_path / 'dota'), ann_file='train/labelTxt', img_suffix=suffixes,
            data_prefix={'img_path': 'train/images'}, **kinds),
        'yolo-obb': YOLOOBBDataset(data_root=str(tmp_path / 'yolo-obb'), ann_file='data.yaml', split='train', **kinds),
        'coco': RotatedCocoDataset(
            data_root=str(tmp_path / 'coco'), ann_file='annotations/train.json',
            data_prefix={'img_path': 'images'}, **kinds),
        'rolabelimg': RoLabelImgDataset(
            data_root=str(tmp_path / 'rolabelimg'), ann_file='train/annotations',
            data_prefix={'img_path': 'train/images'}, **kinds),
        'labelme': LabelMeDataset(
            data_root=str(tmp_path / 'labelme'), ann_file='train', data_prefix={'img_path': 'train'}, **kinds),
    }  # fmt: skip
    wanted = {stem: objects for (split, stem), (_, objects) in content(dota).items() if split == 'train'}
    for kind, dataset in built.items():
        assert len(dataset) == 2
        for info in dataset:
            objects = wanted[os.path.splitext(os.path.basename(info['file_name']))[0]]
            assert [CLASSES[one['bbox_label']] for one in info['instances']] == [one.name for one in objects]
            for one, other in zip(info['instances'], objects, strict=True):
                if kind != 'rolabelimg' or other.name != 'storage tank':
                    assert np.abs(np.subtract(one['bbox'], other.polygon)).max() < TOLERANCE, kind
    assert not said


def test_what_is_lost_is_counted(dota, tmp_path):
    (line,) = convert_dataset(dota, tmp_path / 'y', 'yolo-obb').lost
    assert line == 'YOLO-OBB has no difficult objects: 2 of 3 objects are ordinary ones now'
    (line,) = convert_dataset(dota, tmp_path / 'r', 'rolabelimg').lost
    assert line.startswith('roLabelImg has rectangles alone: 1 of 3 shapes became the smallest rectangle around them')
    put(dota / 'val/labelTxt/leer.txt', 'imagesource:GoogleEarth\ngsd:0.1\n')
    (line,) = convert_dataset(dota, tmp_path / 'c', 'coco').lost
    assert line == 'not carried over: header line imagesource (1), header line gsd (1)'
    done = convert_dataset(dota, tmp_path / 'c', 'coco')
    assert (done.images, done.objects, done.empty, done.splits) == (3, 3, 1, {'train': 2, 'val': 1})


def test_objects_that_cannot_be_used_are_counted_or_refused(dota, tmp_path, said):
    put(dota / 'val/labelTxt/leer.txt', f'300 10 320 10 320 20 300 20 ship 0\n{words(QUAD)} ship 0\n')
    done = convert_dataset(dota, tmp_path / 'y', 'coco')
    assert done.lost == ['1 lines that cannot be used were left out'] and 'leer.txt: left out 1 of 2' in said[0]
    with pytest.raises(ValueError, match=r'leer\.txt:1: its box .* lies outside the image'):
        convert_dataset(dota, tmp_path / 'z', 'coco', strict=True)
    (dota / 'val/images/leer.tif').write_bytes(b'')
    done = convert_dataset(dota, tmp_path / 'x', 'coco')
    assert '1 images were left out, as they or their label files are broken' in done.lost[0] and done.images == 2


def test_classes_keep_their_numbers(tmp_path):
    yolo(tmp_path / 'y', f'{yolo_line(SHIP, 5)}\n{yolo_line(QUAD, 9)}', names={9: 'b', 5: 'z', 0: '2 x 4 beam'})
    done = convert_dataset(tmp_path / 'y', tmp_path / 'c', 'coco')
    assert done.classes == ['2 x 4 beam', 'z', 'b']
    again = convert_dataset(tmp_path / 'c', tmp_path / 'd', 'dota')
    assert again.classes == done.classes
    assert convert_dataset(tmp_path / 'd', tmp_path / 'e', 'yolo-obb').classes == done.classes


def test_one_part_of_data_in_yolo(tmp_path, said):
    image(tmp_path / 'd/images/a.png')
    put(tmp_path / 'd/labelTxt/a.txt', f'{words(SHIP)} ship 0')
    done = convert_dataset(tmp_path / 'd', tmp_path / 'y', 'yolo-obb')
    assert done.lost == ['the data have no val: data.yaml names other images for it']
    back = convert_dataset(tmp_path / 'y', tmp_path / 'back', 'dota')
    assert back.images == 1 and back.lost == ['val has images of train too, which are not written twice'] and not said


# ---- sources that are not written


def test_hrsc_and_dior(tmp_path):
    ship = '<Class_ID>100000002</Class_ID><difficult>1</difficult>' + ''.join(
        f'<mbox_{key}>{value}</mbox_{key}>' for key, value in dict(cx=100, cy=60, w=60, h=16, ang=0.4).items()
    )
    hrsc = tmp_path / 'hrsc'
    for stem in 'ab':
        image(hrsc / f'FullDataSet/AllImages/{stem}.bmp')
        text = f'<HRSC_Image><HRSC_Objects><HRSC_Object>{ship}</HRSC_Object></HRSC_Objects></HRSC_Image>'
        put(hrsc / f'FullDataSet/Annotations/{stem}.xml', text)
    put(hrsc / 'ImageSets/train.txt', 'a\n')
    put(hrsc / 'ImageSets/test.txt', 'b\n')
    found = content(hrsc)
    assert set(found) == {('train', 'a'), ('test', 'b')}
    (one,) = found['train', 'a'][1]
    assert one.name == 'aircraft carrier' and one.difficulty == 1 and farthest(one.polygon, SHIP) < 1e-9
    done = convert_dataset(hrsc, tmp_path / 'out', 'dota')
    assert done.format == 'hrsc' and done.splits == {'train': 1, 'test': 1}
    same(found, content(tmp_path / 'out'))

    places = ('left_top', 'right_top', 'right_bottom', 'left_bottom')
    box = ''.join(f'<x_{p}>{x}</x_{p}><y_{p}>{y}</y_{p}>' for p, (x, y) in zip(places, pairs(QUAD), strict=True))
    dior = tmp_path / 'dior'
    image(dior / 'JPEGImages/1.jpg')
    put(dior / 'Annotations/1.xml', xml(f'<object><name>Airplane</name><robndbox>{box}</robndbox></object>'))
    assert convert_dataset(dior, tmp_path / 'o2', 'coco').format == 'dior'
    (sample,) = read_source(tmp_path / 'o2').samples
    assert sample.objects[0].polygon == QUAD and sample.objects[0].name == 'airplane'
    assert HRSCDataset and DIORDataset  # the data sets of these formats have tests of their own


def test_labels_of_tools(tmp_path):
    image(tmp_path / 'l/a.png')
    put(tmp_path / 'l/a.json', labelme(shape(pairs(SHIP), group_id=3), flags={'checked': True}))
    done = convert_dataset(tmp_path / 'l', tmp_path / 'o', 'rolabelimg')
    assert done.format == 'labelme' and set(done.lost) == {
        'not carried over: flag checked of an image (1), group_id (1)'
    }
    image(tmp_path / 'r/a.png')
    put(tmp_path / 'r/a.xml', xml(turned(), turned(difficult=1)))
    assert convert_dataset(tmp_path / 'r', tmp_path / 'p', 'labelme').format == 'rolabelimg'
    same(content(tmp_path / 'r'), content(tmp_path / 'p'))
    image(tmp_path / 'c/a.png')
    put(tmp_path / 'c/labels.json', coco({'bbox': [100, 60, 60, 16, 0.4], 'score': 1}))
    with pytest.raises(ValueError, match="give angle='ccw-degrees'"):
        convert_dataset(tmp_path / 'c', tmp_path / 'q', 'dota')
    done = convert_dataset(tmp_path / 'c', tmp_path / 'q', 'dota', angle='cw-radians')
    assert done.lost == ['not carried over: score (1)']
    (one,) = content(tmp_path / 'q')['', 'a'][1]
    assert farthest(one.polygon, SHIP) < TOLERANCE
    with pytest.raises(UsageError, match="angle='cw-radians' is for COCO's JSON"):
        convert_dataset(tmp_path / 'r', tmp_path / 's', 'dota', angle='cw-radians')


def test_a_file_as_source(dota, tmp_path):
    convert_dataset(dota, tmp_path / 'y', 'yolo-obb')
    convert_dataset(dota, tmp_path / 'c', 'coco')
    assert convert_dataset(tmp_path / 'y/data.yaml', tmp_path / 'o', 'dota').images == 3
    assert convert_dataset(tmp_path / 'c/annotations/train.json', tmp_path / 'p', 'dota').images == 2
    with pytest.raises(UsageError, match='must be a folder, a data.yaml or a file'):
        convert_dataset(tmp_path / 'dota/train/labelTxt/a.b c.txt', tmp_path / 'q', 'dota')
    with pytest.raises(UsageError, match='does not exist'):
        convert_dataset(tmp_path / 'nowhere', tmp_path / 'q', 'dota')


# ---- recognised, not guessed


def test_a_mixture_is_an_error_that_names_files_and_a_way_out(dota, tmp_path):
    put(dota / 'train/labelTxt/b.txt', yolo_line(SHIP))
    with pytest.raises(UsageError, match="mixes formats: .*2 of DOTA's text files") as error:
        convert_dataset(dota, tmp_path / 'o', 'coco')
    for text in ('1 of YOLO-OBB (train/labelTxt/b.txt)', '--from dota or --from yolo-obb reads those files alone'):
        assert text in str(error.value)
    assert convert_dataset(dota, tmp_path / 'o', 'coco', from_format='dota').objects == 3
    put(dota / 'train/labelTxt/b.txt', f'{words(SHIP)} ship 0\n{yolo_line(SHIP)}\n')
    with pytest.raises(UsageError, match=r"b\.txt mixes formats: line 1 is DOTA's text files, line 2 is YOLO-OBB"):
        convert_dataset(dota, tmp_path / 'p', 'coco')


@pytest.mark.parametrize(
    'line, text',
    [
        ('3 10 10 40 10 40 30 10 30', 'corners after a class number'),
        ('10 10 40 30 ship', 'upright boxes of four numbers'),
        ('3 0.5 0.5 0.2 0.1', "YOLO's upright boxes"),
    ],
)
def test_lines_that_may_be_something_else(tmp_path, line, text):
    image(tmp_path / 'd/a.png')
    put(tmp_path / 'd/a.txt', line)
    with pytest.raises(UsageError, match='has lines of none of the formats: 1 of') as error:
        convert_dataset(tmp_path / 'd', tmp_path / 'o', 'coco')
    assert text in str(error.value) and '--from dota or --from yolo-obb' in str(error.value)


def test_nothing_to_recognise(tmp_path):
    image(tmp_path / 'd/a.png')
    put(tmp_path / 'd/README.txt', 'about: 1 2 3 4 5')
    with pytest.raises(UsageError, match='there is no label file'):
        convert_dataset(tmp_path / 'd', tmp_path / 'o', 'coco')
    put(tmp_path / 'd/a.txt', '')
    with pytest.raises(UsageError, match=r'all 1 label files are empty \(a.txt\).* name it with --from: dota'):
        convert_dataset(tmp_path / 'd', tmp_path / 'o', 'coco')
    assert convert_dataset(tmp_path / 'd', tmp_path / 'o', 'coco', from_format='dota').empty == 1
    put(tmp_path / 'd/a.txt', f'{words(SHIP)} ship 0')
    with pytest.raises(UsageError, match="--from coco: no file of COCO's JSON below .*; there are 1 of DOTA's"):
        convert_dataset(tmp_path / 'd', tmp_path / 'p', 'coco', from_format='coco')


def test_images_and_label_files_are_paired_or_refused(dota, tmp_path):
    put(dota / 'train/hbb/ü.txt', f'{words(SHIP)} ship 0')
    with pytest.raises(UsageError, match='has two label files'):
        convert_dataset(dota, tmp_path / 'o', 'coco')
    (dota / 'train/hbb/ü.txt').unlink()
    put(dota / 'train/labelTxt/lone.txt', f'{words(SHIP)} ship 0')
    with pytest.raises(UsageError, match=r'1 of 4 label files have no image of their name \(train/labelTxt/lone.txt\)'):
        convert_dataset(dota, tmp_path / 'o', 'coco')
    image(dota / 'train/x/lone.png')
    image(dota / 'train/y/lone.png')
    with pytest.raises(UsageError, match='may belong to'):
        convert_dataset(dota, tmp_path / 'o', 'coco')
    (dota / 'train/x/lone.png').unlink()
    image(dota / 'train/z/new.png')
    done = convert_dataset(dota, tmp_path / 'o', 'coco')
    assert done.lost[0] == '1 images have no label file and were left out (train/z/new.png)'


def test_yolo_needs_its_yaml(tmp_path):
    file = yolo(tmp_path / 'y', yolo_line(SHIP))
    text = file.read_text()
    file.unlink()
    with pytest.raises(UsageError, match='has no data.yaml'):
        convert_dataset(tmp_path / 'y', tmp_path / 'o', 'dota')
    put(tmp_path / 'y/a.yaml', text)
    put(tmp_path / 'y/b.yml', text)
    with pytest.raises(UsageError, match=r'several data.yaml \(a.yaml, b.yml\); name one of them as SOURCE'):
        convert_dataset(tmp_path / 'y', tmp_path / 'o', 'dota')
    put(tmp_path / 'y/labels/old/b.txt', yolo_line(SHIP))
    (tmp_path / 'y/b.yml').unlink()
    assert '1 label files belong to no image' in convert_dataset(tmp_path / 'y', tmp_path / 'o', 'dota').lost[0]


# ---- what is written


@pytest.mark.parametrize('how', ['copy', 'link', 'none'])
@pytest.mark.parametrize('to', WRITERS)
def test_images_are_copied_linked_or_left(dota, tmp_path, to, how):
    convert_dataset(dota, tmp_path / 'o', to, images=how)
    files = [path for name in NAMES for path in (tmp_path / 'o').rglob(name)]
    assert len(files) == (0 if how == 'none' else 3)
    for path in files:
        assert path.is_symlink() == (how == 'link') and cv2.imdecode(np.fromfile(path, np.uint8), 1) is not None
    if to == 'labelme':
        (label,) = (tmp_path / 'o').rglob('ü.json')
        assert (label.parent / json.loads(label.read_text())['imagePath']).resolve().name == 'ü.JPG'
    assert [path.name for path in (tmp_path / 'o').rglob('.*')] == [MARK]


def test_a_second_call_continues_and_another_is_refused(dota, tmp_path, monkeypatch):
    out = tmp_path / 'o'
    from mmrotate_plugin.datasets.formats import convert

    calls = Counter()

    def stop(source, target):
        calls['copied'] += 1
        if calls['copied'] == 2:
            raise KeyboardInterrupt
        return copy(source, target)

    copy = convert.copy_whole
    monkeypatch.setattr(convert, 'copy_whole', stop)
    with pytest.raises(KeyboardInterrupt):
        convert_dataset(dota, out, 'coco')
    convert_dataset(dota, out, 'coco')
    assert calls['copied'] == 4  # one was there
    same(content(dota), content(out))
    with pytest.raises(UsageError, match='holds a conversion of .* to coco; give an empty or a new folder'):
        convert_dataset(dota, out, 'dota')
    put(tmp_path / 'full/x', '')
    with pytest.raises(UsageError, match='holds files that this command did not write'):
        convert_dataset(dota, tmp_path / 'full', 'coco')
    with pytest.raises(UsageError, match='is a file; give a folder'):
        convert_dataset(dota, tmp_path / 'full/x', 'coco')
    for inside in (dota, dota / 'new', tmp_path):
        with pytest.raises(UsageError, match='lie in each other'):
            convert_dataset(dota, inside, 'coco')


def test_names_that_would_meet_are_refused(dota, tmp_path):
    image(dota / 'train/images/A.B C.jpg')
    put(dota / 'train/labelTxt/A.B C.txt', '')
    with pytest.raises(UsageError, match='would have one name; rename one of them'):
        convert_dataset(dota, tmp_path / 'o', 'coco')


@pytest.mark.parametrize('number', ['ENOSPC', 'EACCES', 'EROFS'])
def test_a_full_disk_and_a_read_only_folder_are_one_line(dota, tmp_path, monkeypatch, number):
    import errno

    code = getattr(errno, number)

    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr('mmrotate_plugin.utils.atomic_files.shutil.copyfile', refuse)
    with pytest.raises(InputError, match='could not be written: ' + os.strerror(code)):
        convert_dataset(dota, tmp_path / 'o', 'yolo-obb')
    assert not list((tmp_path / 'o').rglob('*.png'))


def test_arguments_that_cannot_be(dota, tmp_path):
    for options, text in (
        ({'to': 'dior'}, "DIOR-R's XML can only be read"),
        ({'to': 'x'}, "to='x' must be one of dota, yolo-obb"),
        ({'to': 'dota', 'images': 'move'}, "images='move' must be one of copy"),
        ({'to': 'dota', 'from_format': 'x'}, "from_format='x' must be one of dota"),
        ({'to': 'dota', 'angle': 'x'}, "angle='x' must be one of"),
    ):
        with pytest.raises(ValueError if 'angle' in options else UsageError) as error:
            convert_dataset(dota, tmp_path / 'o', **options)
        assert text in str(error.value)
    assert not (tmp_path / 'o').exists() and (WIDTH, HEIGHT) == (200, 120)
