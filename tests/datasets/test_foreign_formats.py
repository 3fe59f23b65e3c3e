"""Label files of other tools: their format is named once, and none of it is read as something else."""

import cv2
import numpy as np
import pytest

from mmrotate_plugin.datasets import DOTADataset
from mmrotate_plugin.datasets.utils.foreign_formats import WANTED, describe, guess_line
from mmrotate_plugin.utils import messages

SHIP = '10 10 30 10 30 20 10 20 ship 0'
LINES = [
    ('0 0.448 0.506 0.42 0.527 0.409 0.513 0.437 0.492', 'yolo-obb'),
    ('14 0.448 0.506 0.42 0.527 0.409 0.513 0.437 1.02', 'yolo-obb'),
    ('0 0.448 0.506 0.42 0.527 0.409 0.513 0.437 0.492 0.87', 'yolo-obb'),
    ('3 0.5 0.5 0.2 0.1', 'yolo'),
    ('3 0.5 0.5 0.2 0.1 0.93', 'yolo'),
    ('1 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2 0.05 0.15', 'yolo-polygon'),
    ('10,10,40,10,40,30,10,30,ship,0', 'commas'),
    ('10, 10, 40, 10, 40, 30, 10, 30, ship, 0', 'commas'),
    ('10,5 10,0 40,0 10,0 40,0 30,0 10,0 30,0 ship 0', 'decimal-commas'),
    ('10;10;40;10;40;30;10;30;ship;0', 'semicolons'),
    ('ship 10 10 40 10 40 30 10 30', 'class-first'),
    ('ship 0 10 10 40 10 40 30 10 30 5', 'class-first'),
    ('3 10 10 40 10 40 30 10 30', 'number-first'),
    ('25 20 30 20 0.5 ship 0', 'xywha'),
    ('25.5 20 30 20 0.5', 'xywha'),
    ('ship 25 20 30 20 0.5', 'xywha'),
    ('10 10 40 30 ship', 'upright'),
    ('ship 10 10 40 30', 'upright'),
    ('P0001 0.93 10 10 40 10 40 30 10 30', 'results'),
    ('10 10 40 10 40 30 10 30 ship 0.93', 'scores'),
    ('x1 y1 x2 y2 x3 y3 x4 y4 category difficult', 'header'),
    ('10.5 10 40 10 40 30 10 30 0.1 10 10 30 20', 'ucas'),
    ('Car 0.00 0 -1.58 587.01 173.33 614.12 200.12 1.65 1.67 3.64 -0.65 1.71 46.70 -1.59', 'kitti'),
    ('10.5 10 40 10 40 30 10 30', 'no-class'),
    ('10 10 40 10 40 30 10 30', 'no-class'),
    ('10 10 40 10 45 20 40 30 10 30 ship 0', 'many-corners'),
    ('{"shapes": []}', 'json'),
    ('<annotation>', 'xml'),
    ('1 2 3', None),
    ('nonsense', None),
    ('', None),
]


@pytest.mark.parametrize('line, key', LINES)
def test_lines(line, key):
    assert guess_line(line) == key
    assert key is None or len(describe(key)) > 20


@pytest.fixture
def said(monkeypatch):
    texts = []
    monkeypatch.setattr(messages, 'print_log', lambda text, **_: texts.append(text))
    return texts


@pytest.fixture
def read(tmp_path):
    """A data set of one image of 60 x 40 pixels and the files of its label folder."""

    def build(files, **options):
        for name in ('i', 'l'):
            (tmp_path / name).mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / 'i/a.png'), np.zeros((40, 60, 3), np.uint8))
        for name, content in files.items():
            (tmp_path / 'l' / name).write_text(content)
        options = {'ann_file': 'l', 'serialize_data': False, **options}
        return DOTADataset(data_root=str(tmp_path), data_prefix={'img_path': 'i'}, **options)

    return build


@pytest.mark.parametrize('line, key', [pair for pair in LINES if pair[1] not in (None, 'number-first')])
def test_a_data_set_of_them_is_refused_and_named(read, line, key):
    with pytest.raises(ValueError, match='none of 2 lines can be used') as error:
        read({'a.txt': f'{line}\n{line}\n'})
    assert f'they look like {describe(key)}; {WANTED}' in str(error.value)
    assert str(error.value).endswith('nothing was trained') and 'a.txt:1: ' in str(error.value)
    with pytest.raises(ValueError, match='none of 2 lines can be used'):  # a test would score against nothing
        read({'a.txt': f'{line}\n{line}\n'}, test_mode=True)


def test_corners_from_0_to_1(read, said):
    fractions = '0.05 0.05 0.6 0.05 0.6 0.9 0.05 0.9 ship 0'
    with pytest.raises(ValueError, match='they look like lines of DOTA with corners from 0 to 1: multiply x by'):
        read({'a.txt': fractions})
    assert len(read({'a.txt': f'{fractions}\n{SHIP}\n'}).get_data_info(0)['instances']) == 1
    assert 'line 1: its corners are from 0 to 1' in said[-3]
    assert '1 of the lines that are left out look like lines of DOTA with corners from 0 to 1' in said[-2]


def test_the_format_is_named_once(read, said):
    read({'a.txt': f'{SHIP}\n' + '3 0.5 0.5 0.2 0.1\n' * 9})
    assert sum("YOLO's upright boxes" in text for text in said) == 1
    said.clear()
    read({'a.txt': SHIP})
    assert not any('look like' in text for text in said)


@pytest.mark.parametrize(
    'name, content, words',
    [
        ('a.json', '{"images": [], "annotations": []}', "COCO's JSON"),
        ('a.json', '{"version": "5.0", "flags": {}, "shapes": []}', "LabelMe's JSON"),
        ('a.geojson', '{"type": "FeatureCollection"}', 'GeoJSON'),
        ('a.json', '[1]', 'JSON'),
        ('a.xml', '<annotation><object><robndbox><cx>3</cx></robndbox></object></annotation>', "roLabelImg's XML"),
        ('a.xml', '<annotation><object><bndbox><xmin>3</xmin></bndbox></object></annotation>', "Pascal VOC's XML"),
        ('a.xml', '<annotation><robndbox><x_left_top>3</x_left_top></robndbox></annotation>', 'DIORDataset'),
        ('a.xml', '<HRSC_Image><HRSC_Objects><HRSC_Object/></HRSC_Objects></HRSC_Image>', 'HRSCDataset'),
        ('a.csv', 'a,b', 'a table (CSV)'),
    ],
)
def test_files_of_another_kind(read, tmp_path, name, content, words):
    with pytest.raises(FileNotFoundError, match=r'no \*\.txt in .*look like') as error:
        read({name: content})
    assert words in str(error.value)
    with pytest.raises(FileNotFoundError, match='is a file, not a folder.*looks like') as error:
        read({}, ann_file=f'l/{name}')
    assert words in str(error.value)
    (tmp_path / 'l/a.txt').write_text(content)
    (tmp_path / f'l/{name}').unlink()
    with pytest.raises(ValueError, match='none of 1 lines can be used'):
        read({})
