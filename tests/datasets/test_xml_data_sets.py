"""HRSC2016's and DIOR's XML files: the image's own size, objects that are left out one by one, lists of any form."""

import logging
import math

import cv2
import numpy as np
import pytest

from mmrotate_plugin.datasets import DIORDataset, HRSCDataset
from mmrotate_plugin.datasets.utils.broken_files import BrokenFileError
from mmrotate_plugin.utils import messages

PLACES = ('left_top', 'right_top', 'right_bottom', 'left_bottom')


@pytest.fixture
def said(monkeypatch):
    texts = []

    def record(text, logger, level):  # noqa: ARG001
        if level == logging.WARNING:
            texts.append(text)

    monkeypatch.setattr(messages, 'print_log', record)
    return texts


def ship(number='100000002', cx=50, w=40, extra='', **fields):
    fields = {'Class_ID': number, 'mbox_cx': cx, 'mbox_cy': 30, 'mbox_w': w, 'mbox_h': 10, 'mbox_ang': 0.3, **fields}
    return f'<HRSC_Object>{tags(fields)}{extra}</HRSC_Object>'


def plane(name='airplane', x=10, extra='', width=30):
    corners = zip(PLACES, ((x, 5), (x + width, 5), (x + width, 25), (x, 25)), strict=True)
    box = ''.join(f'<x_{place}>{a}</x_{place}><y_{place}>{b}</y_{place}>' for place, (a, b) in corners)
    return f'<object><name>{name}</name><robndbox>{box}</robndbox>{extra}</object>'


def tags(fields):
    return ''.join(f'<{key}>{value}</{key}>' for key, value in fields.items() if value is not None)


@pytest.fixture
def hrsc(tmp_path):
    """Read HRSC's layout of images of 100 x 60 pixels, one for each text of objects."""

    def build(files, names=None, size=(100, 60), cls=HRSCDataset, **options):
        for folder in ('ImageSets', 'Full/AllImages', 'Full/Annotations'):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / 'ImageSets/t.txt').write_bytes((names or '\n'.join(files)).encode())
        for name, objects in files.items():
            cv2.imwrite(str(tmp_path / f'Full/AllImages/{name}.bmp'), np.full((60, 100, 3), 90, np.uint8))
            head = tags({'Img_SizeWidth': size[0], 'Img_SizeHeight': size[1]})
            text = f'<HRSC_Image>{head}<HRSC_Objects>{objects}</HRSC_Objects></HRSC_Image>'
            (tmp_path / f'Full/Annotations/{name}.xml').write_text(text)
        paths = dict(data_root=f'{tmp_path}/', ann_file='ImageSets/t.txt', data_prefix=dict(sub_data_root='Full/'))
        paths['serialize_data'] = False  # for it mmengine collects garbage: slow
        return cls(**{**paths, **options})

    return build


@pytest.fixture
def dior(tmp_path):
    def build(files, names=None, size='<size><width>100</width><height>60</height></size>', cls=DIORDataset, **options):
        for folder in ('i', 'x'):
            (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / 't.txt').write_bytes((names or '\n'.join(files)).encode())
        for name, objects in files.items():
            cv2.imwrite(str(tmp_path / f'i/{name}.jpg'), np.full((60, 100, 3), 90, np.uint8))
            (tmp_path / f'x/{name}.xml').write_text(f'<annotation>{size}{objects}</annotation>')
        paths = dict(data_root=str(tmp_path), ann_file='t.txt', ann_subdir='x', data_prefix=dict(img_path='i'))
        paths['serialize_data'] = False
        return cls(**{**paths, **options})

    return build


def test_same_samples_as_mmrotate_where_that_is_right(hrsc, dior):
    hosts = pytest.importorskip('mmrotate.datasets')
    ships = {'a': ship(header_x=70, header_y=30) + ship('100000005', header_x=1, header_y=2), 'b': ''}
    for classwise in (False, True):
        ours, theirs = (hrsc(ships, cls=cls, classwise=classwise) for cls in (HRSCDataset, hosts.HRSCDataset))
        for mine, his in zip(ours, theirs, strict=True):
            assert mine['img_path'] == his['img_path'] and mine['img_id'] == his['img_id']
            for one, other in zip(mine['instances'], his['instances'], strict=True):
                assert one.pop('bbox') == pytest.approx(other.pop('bbox'), abs=1e-4) and one == other
            assert his['height'] == his['width'] == 100, 'mmrotate is mended'
            assert (mine['width'], mine['height']) == (100, 60)
        assert ours.metainfo == theirs.metainfo
    planes = {'a': plane() + plane('Ship', 40), 'b': ''}
    ours, theirs = (dior(planes, cls=cls) for cls in (DIORDataset, hosts.DIORDataset))
    for mine, his in zip(ours, theirs, strict=True):
        for one, other in zip(mine['instances'], his['instances'], strict=True):
            assert one['bbox'] == other['bbox'].tolist() and one['bbox_label'] == other['bbox_label']
    assert ours.metainfo == theirs.metainfo


def test_a_box_of_hrsc_by_its_definition(hrsc):
    (one,) = hrsc({'a': ship()}).get_data_info(0)['instances']
    corners = np.array(one['bbox']).reshape(4, 2)
    assert corners.mean(0) == pytest.approx([50, 30])
    sides = np.roll(corners, -1, 0) - corners
    assert sorted(np.hypot(*sides.T)) == pytest.approx([10, 10, 40, 40])
    long = max(sides, key=lambda side: np.hypot(*side))
    assert abs(math.tan(math.atan2(long[1], long[0])) - math.tan(0.3)) < 1e-9  # clockwise: y points down


def test_objects_are_left_out_one_by_one(hrsc, said):
    bad = [ship(cx=500), ship(w=0), ship(cx='nan'), ship(mbox_ang='x'), ship(mbox_h=None), ship(difficult='maybe'),
           ship(number=None), ship('100000099')]  # fmt: skip
    dataset = hrsc({'a': ship() + ''.join(bad), 'b': ship()}, classwise=True)
    assert [len(info['instances']) for info in dataset] == [1, 1]
    assert 'a.xml: left out 7 of 9 objects: object 2: its box (x 479' in said[0]
    for words in ('it must have an area; object 4: ', 'field mbox_cx is nan', "mbox_ang is 'x'",
                  'the field mbox_h is missing', "difficult is 'maybe'", 'the field Class_ID is missing'):  # fmt: skip
        assert words in said[0]
    assert "1 of 3 objects are left out, because the config does not have their class: 'Class_ID 100000099'" in said[1]
    with pytest.raises(ValueError, match=r'a\.xml: object 2: its box'):
        hrsc({'a': ship() + bad[0]}, strict=True)
    with pytest.raises(ValueError, match='none of 2 objects can be used; the first: .*a.xml: object 1'):
        hrsc({'a': bad[0], 'b': bad[1]})


def test_dior_objects_are_left_out_one_by_one(dior, said):
    upright = f'<object><name>dam</name><bndbox>{tags(dict(xmin=1, ymin=2, xmax=30, ymax=20))}</bndbox></object>'
    centred = '<object><name>dam</name><robndbox><cx>3</cx><cy>2</cy><w>30</w><h>20</h></robndbox></object>'
    nameless = plane().replace('<name>airplane</name>', '')
    bad = plane(x=500) + plane(width=0) + upright + centred + nameless + plane('Zeppelin')
    dataset = dior({'a': plane('Expressway-Service-area') + bad})
    assert dataset.get_cat_ids(0) == [6]
    assert 'a.xml: left out 5 of 7 objects' in said[0] and 'object 4: has no robndbox' in said[0]
    assert "1 of 2 objects are left out, because the config does not have their class: 'zeppelin' (1)" in said[-1]
    (one,) = dior({'a': upright}, ann_type='hbb').get_data_info(0)['instances']
    assert one['bbox'] == [1, 2, 30, 2, 30, 20, 1, 20]
    with pytest.raises(ValueError, match="ann_type='hbb' reads it"):
        dior({'a': upright})
    with pytest.raises(ValueError, match="roLabelImg's XML"):
        dior({'a': centred})
    with pytest.raises(ValueError, match="ann_type='rbox' must be 'obb' .* or 'hbb'"):
        dior({'a': ''}, ann_type='rbox')


def test_files_of_another_data_set(hrsc, dior, said, tmp_path):
    hrsc({'a': ship()})
    (tmp_path / 'Full/Annotations/a.xml').write_text(f'<annotation>{plane()}</annotation>')
    with pytest.raises(ValueError, match="it looks like DIOR-R's XML: type='mmrotate_plugin.DIORDataset' reads it"):
        HRSCDataset(data_root=str(tmp_path), ann_file='ImageSets/t.txt', data_prefix=dict(sub_data_root='Full/'))
    dior({'a': plane()})
    (tmp_path / 'x/a.xml').write_text(f'<HRSC_Image><HRSC_Objects>{ship()}</HRSC_Objects></HRSC_Image>')
    with pytest.raises(ValueError, match="type='mmrotate_plugin.HRSCDataset' reads it"):
        DIORDataset(data_root=str(tmp_path), ann_file='t.txt', ann_subdir='x', data_prefix=dict(img_path='i'))
    assert not [text for text in said if 'a.xml: left out' in text]


@pytest.mark.parametrize('size', [(100, 60), (None, None), ('', 'x'), (200, 120)])
def test_the_size_is_that_of_the_image(hrsc, said, size):
    info = hrsc({'a': ship()}, size=size).get_data_info(0)
    assert (info['width'], info['height']) == (100, 60)
    assert [t for t in said if 'another size' in t] == said
    assert len(said) == (size == (200, 120))
    if said:
        assert '1 images have another size than their label files say (a: 100 x 60, not 200 x 120)' in said[0]


def test_from_another_storage_the_size_is_that_of_the_file(dior):
    remote = dict(backend_args=dict(backend='local'))
    assert dior({'a': plane()}, **remote).get_data_info(0)['height'] == 60
    assert dior({'a': plane()}, size='', **remote).get_data_info(0)['height'] == 60  # decoded
    with pytest.raises(ValueError, match='a.xml cannot be used'):
        dior({'a': '<broken'}, **remote)


@pytest.mark.parametrize(
    'names', ['a\r\nb\r\n', '\ufeffa\n\n b \n', 'a.bmp\nb.XML\na\n', 'a 1\nb -1\n', 'a\nb'], ids=repr
)
def test_lists_of_any_form(hrsc, names):
    dataset = hrsc({'a': ship(), 'b': ship()}, names=names)
    assert [info['img_id'] for info in dataset] == ['a', 'b']


def test_lists_that_cannot_be_used(hrsc, tmp_path):
    hrsc({'a': ship()})
    with pytest.raises(FileNotFoundError, match=r"ann_file: .*n.txt' does not exist. It must be a list of image names"):
        hrsc({}, names='x', ann_file='n.txt')
    with pytest.raises(FileNotFoundError, match='is a folder, not a file'):
        hrsc({}, names='x', ann_file='ImageSets')
    with pytest.raises(ValueError, match='names no image'):
        hrsc({}, names='\n \n')
    with pytest.raises(ValueError, match=r'none of 1 images can be used; the first one: .*x\.bmp'):
        hrsc({}, names='x')
    (tmp_path / 'Full/AllImages/a.bmp').rename(tmp_path / 'Full/AllImages/a.PNG')
    assert len(hrsc({}, names='a', img_suffix=('bmp', 'png'))) == 1
    with pytest.raises(BrokenFileError, match=r'a\.xml cannot be used \(FileNotFoundError'):
        (tmp_path / 'Full/Annotations/a.xml').unlink()
        hrsc({}, names='a', img_suffix='png', strict=True)


def test_classes_of_hrsc(hrsc, said):
    files = {'a': ship('100000002') + ship('100000005')}
    part = hrsc(files, classwise=True, metainfo={'classes': ('Nimitz', 'aircraft carrier')})
    assert part.get_cat_ids(0) == [1, 0]
    assert hrsc(files, metainfo={'classes': ('boat',)}).metainfo['classes'] == ('boat',)
    numbered = {'classes': ('mine', 'other'), 'classes_id': ('05', '02')}
    assert hrsc(files, classwise=True, metainfo=numbered).get_cat_ids(0) == [1, 0]
    assert not said
    with pytest.raises(ValueError, match='metainfo has 2 classes; classwise=True tells them apart'):
        hrsc(files, metainfo={'classes': ('a', 'b')})


def test_filters(hrsc, dior):
    files = {'a': ship() + ship(w=6), 'b': ''}
    assert len(hrsc(files, filter_cfg=dict(filter_empty_gt=True))) == 1
    assert len(hrsc(files, filter_cfg=dict(min_size=60))) == 2
    with pytest.raises(ValueError, match='min_size=80 leaves none of 2 images'):  # the sides are 100 and 60
        hrsc(files, filter_cfg=dict(min_size=80))
    small = hrsc(files, filter_cfg=dict(bbox_min_size=8))
    assert [one['ignore_flag'] for one in small.get_data_info(0)['instances']] == [0, 1]
    small = dior({'a': plane() + plane(width=6)}, filter_cfg=dict(bbox_min_size=8))
    assert [one['ignore_flag'] for one in small.get_data_info(0)['instances']] == [0, 1]
    with pytest.raises(ValueError, match="filter_cfg has 'bbox_min_size', which is for training"):
        hrsc(files, filter_cfg=dict(bbox_min_size=8), test_mode=True)
    with pytest.raises(ValueError, match='HRSCDataset knows filter_empty_gt, min_size, bbox_min_size only'):
        hrsc(files, filter_cfg=dict(area=8))


@pytest.mark.parametrize('options, flags', [({}, [0, 0]), ({'test_mode': True}, [0, 1]), ({'diff_thr': 0}, [0, 1]),
                                            ({'test_mode': True, 'diff_thr': 1}, [0, 0])])  # fmt: skip
def test_difficult_objects(hrsc, dior, options, flags):
    for dataset in (
        hrsc({'a': ship(difficult=0) + ship(difficult=1)}, **options),
        dior({'a': plane() + plane(extra='<difficult>1</difficult>')}, **options),
    ):
        assert [one['ignore_flag'] for one in dataset.get_data_info(0)['instances']] == flags


def test_arguments_of_mmdet_2(hrsc):
    with pytest.raises(ValueError, match='file_client_args=.* write backend_args'):
        hrsc({'a': ''}, file_client_args={'backend': 'disk'})


def test_a_namespace_hides_nothing(dior, tmp_path):
    dior({'a': plane()})
    head = '<annotation xmlns="http://some.tool/1.0"><!-- x -->'
    text = (tmp_path / 'x/a.xml').read_text().replace('<annotation>', head)
    (tmp_path / 'x/a.xml').write_text(text)
    assert dior({}, names='a').get_cat_ids(0) == [0]
