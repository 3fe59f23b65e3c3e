"""Each format as it is: what is read, and what is said about what cannot be read."""

import json

import numpy as np
import pytest
from format_files import (
    CLASSES,
    HEIGHT,
    QUAD,
    SHIP,
    TURN,
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
from mmengine.registry import DATASETS as ROOT_DATASETS

from mmrotate_plugin.datasets import DOTADataset, LabelMeDataset, RoLabelImgDataset, RotatedCocoDataset, YOLOOBBDataset
from mmrotate_plugin.datasets.utils.path_check import files_outside

QUIET = {'serialize_data': False}  # for it mmengine collects garbage: slow
SHORT = {'classes': ('ship',)}


def boxes(dataset, index=0):
    return [one['bbox'] for one in dataset.get_data_info(index)['instances']]


@pytest.fixture
def read_yolo(tmp_path):
    def read(lines, **options):
        yolo(tmp_path, lines, names=options.pop('names', None))
        return YOLOOBBDataset(data_root=str(tmp_path), ann_file='data.yaml', split='train', **QUIET, **options)

    return read


@pytest.fixture
def read_folder(tmp_path):
    """Read one image and its label file by a class that pairs them by name."""

    def read(cls, name, content, classes=('ship',), **options):
        image(tmp_path / 'images/a.png')
        put(tmp_path / 'labels' / name, content)
        options = {'metainfo': {'classes': classes} if classes else None, **QUIET, **options}
        return cls(data_root=str(tmp_path), ann_file='labels', data_prefix={'img_path': 'images'}, **options)

    return read


@pytest.fixture
def read_coco(tmp_path):
    def read(content, **options):
        image(tmp_path / 'images/a.png')
        put(tmp_path / 'a.json', content)
        options = {**QUIET, **options}
        return RotatedCocoDataset(
            data_root=str(tmp_path), ann_file='a.json', data_prefix={'img_path': 'images'}, **options
        )

    return read


def test_names_are_found_in_our_scope_only():
    for cls in (YOLOOBBDataset, RotatedCocoDataset, RoLabelImgDataset, LabelMeDataset):
        assert ROOT_DATASETS.get(f'mmrotate_plugin.{cls.__name__}') is cls
        assert cls.__name__ not in ROOT_DATASETS.module_dict


# ---- YOLO-OBB


def test_yolo_obb(read_yolo, said):
    dataset = read_yolo(f'\ufeff{yolo_line(SHIP)}\r\n\r\n{yolo_line(QUAD, 0)}\t\r\n')
    assert dataset.metainfo['classes'] == tuple(CLASSES) and len(dataset.metainfo['palette']) == 3
    assert np.abs(np.array(boxes(dataset)) - [SHIP, QUAD]).max() < 1e-5
    assert dataset.get_cat_ids(0) == [2, 0] and not said
    info = dataset.get_data_info(0)
    assert (info['img_id'], info['width'], info['height']) == ('a', WIDTH, HEIGHT)
    part = read_yolo(yolo_line(SHIP) + '\n' + yolo_line(QUAD, 0), metainfo={'classes': ('ship',)})
    assert part.get_cat_ids(0) == [0]


@pytest.mark.parametrize(
    'line, text',
    [
        (yolo_line(SHIP) + ' 0.93', 'is the last one the score of a detection'),
        ('2 0.5 0.5 0.2 0.1', "look like YOLO's upright boxes"),
        ('2 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2 0.05 0.15', "look like YOLO's segments"),
        ('10 10 40 10 40 30 10 30 ship 0', "look like DOTA's lines"),
        ('2 10 10 40 10 40 30 10 30', 'corners beyond 1; they must be from 0 to 1'),
        (yolo_line(SHIP, 3), 'its class number 3 is none of 0 to 2'),
        (yolo_line(SHIP, 1.5), 'its class number 1.5 is none of'),
        ('2 0.1 0.1 nan 0.1 0.2 0.2 0.1 0.2', 'not finite'),
        ('2 0.1 0.1 x 0.1 0.2 0.2 0.1 0.2', 'must be 9 numbers'),
        ('2 1.1 0.1 1.2 0.1 1.2 0.2 1.1 0.2', 'lies outside the image'),
    ],
)
def test_lines_of_yolo_that_cannot_be_used(read_yolo, said, line, text):
    with pytest.raises(ValueError, match='none of 1 lines can be used') as error:
        read_yolo(line)
    assert text in str(error.value)
    assert 'wanted is YOLO-OBB' in str(error.value) or 'look like' not in str(error.value)
    assert len(boxes(read_yolo(f'{yolo_line(SHIP)}\n{line}'))) == 1
    assert any('left out 1 of 2 objects: line 2' in one for one in said)
    with pytest.raises(ValueError, match=r'a\.txt:2: '):
        read_yolo(f'{yolo_line(SHIP)}\n{line}', strict=True)


def test_a_pixel_file_is_never_read_as_fractions(read_yolo):
    assert 'dataset' not in (words(SHIP))  # a control: the corners are pixels
    with pytest.raises(ValueError, match='corners beyond 1'):
        read_yolo(f'2 {words(SHIP)}')


def test_yolo_images_without_label_file_have_no_objects(tmp_path):
    yolo(tmp_path, yolo_line(SHIP))
    image(tmp_path / 'images/train/b.JPG')
    put(tmp_path / 'labels/train/c.txt', '')
    image(tmp_path / 'images/train/c.png')
    options = dict(data_root=str(tmp_path), ann_file='data.yaml', split='train', **QUIET)
    assert [len(info['instances']) for info in YOLOOBBDataset(**options)] == [1, 0, 0]
    assert len(YOLOOBBDataset(filter_cfg={'filter_empty_gt': True}, **options)) == 1
    (tmp_path / 'labels/train/a.txt').unlink()
    (tmp_path / 'labels/train/c.txt').unlink()
    with pytest.raises(FileNotFoundError, match='none of 3 images has a label file'):
        YOLOOBBDataset(**options)


def test_a_yolo_folder_without_its_yaml(tmp_path):
    yolo(tmp_path, yolo_line(SHIP))
    options = dict(data_root=str(tmp_path), ann_file='labels/train', data_prefix={'img_path': 'images/train'}, **QUIET)
    assert YOLOOBBDataset(metainfo={'classes': CLASSES}, **options).get_cat_ids(0) == [2]
    with pytest.raises(ValueError, match='no data.yaml, so classes have no names'):
        YOLOOBBDataset(**options)
    with pytest.raises(ValueError, match="split='train' needs ann_file to be a data.yaml"):
        YOLOOBBDataset('train', metainfo={'classes': CLASSES}, **options)


@pytest.mark.parametrize(
    'text, message',
    [
        ('train: images/train\nnames: [a, no, b]', 'class 1 of names is False to YAML; put its name in quotes'),
        ('train: images/train\nnames: [a, a]', "names 'a' more than once"),
        ('train: images/train\nnames: [a]\nnc: 2', 'nc=2, but names has 1 classes'),
        ('train: images/train\nnames: {x: a}', "names has the key 'x'"),
        ('train: images/train', 'names=None must list the classes'),
        ('train: [1]\nnames: [a]', 'must be a folder of images'),
        ('train: images/nowhere\nnames: [a]', 'does not exist'),
        ('names: [a]', "split='train'"),
        ('{', 'is no YAML'),
        ('just text', 'is no data.yaml'),
    ],
)
def test_a_wrong_yaml_is_named(tmp_path, text, message):
    yolo(tmp_path, yolo_line(SHIP))
    put(tmp_path / 'data.yaml', text)
    with pytest.raises((ValueError, FileNotFoundError), match='data.yaml') as error:
        YOLOOBBDataset(data_root=str(tmp_path), ann_file='data.yaml', split='train', **QUIET)
    assert message in str(error.value)


def test_folders_lists_and_roots_of_a_yaml(tmp_path, said):
    yolo(tmp_path / 'set', yolo_line(SHIP))
    yolo(tmp_path / 'set', yolo_line(QUAD), split='more', stem='b é')
    names = f'names: {json.dumps(CLASSES)}'
    put(tmp_path / 'set/list.txt', './images/train/a.png\n./images/more/b é.png\n')
    for text in (
        f'train: [images/train, images/more]\n{names}',
        f'path: {tmp_path}/set\ntrain: list.txt\n{names}',
        f'path: ../datasets/nowhere\ntrain: [images/train, images/more]\n{names}',
        f'train: [../images/train, ../images/more]\n{names}',  # as Roboflow exports it
    ):
        put(tmp_path / 'set/data.yaml', text)
        dataset = YOLOOBBDataset(data_root=str(tmp_path / 'set'), ann_file='data.yaml', split='train', **QUIET)
        assert sorted(info['img_id'] for info in dataset) == ['a', 'b é']
        assert said == [t for t in said if "path='../datasets/nowhere' is no folder here" in t]
    assert len(said) == 1
    put(tmp_path / 'set/list.txt', './images/train/x.png\n')
    put(tmp_path / 'set/data.yaml', f'train: list.txt\n{names}')
    with pytest.raises(FileNotFoundError, match='lists 1 images that are missing'):
        YOLOOBBDataset(data_root=str(tmp_path / 'set'), ann_file='data.yaml', split='train', **QUIET)


def test_a_relative_data_root(tmp_path, monkeypatch):
    yolo(tmp_path / 'set', yolo_line(SHIP))
    monkeypatch.chdir(tmp_path)
    dataset = YOLOOBBDataset(data_root='set/', ann_file='data.yaml', split='train', **QUIET)
    assert dataset.ann_file == str(tmp_path / 'set/data.yaml') and files_outside(dataset) == []
    assert len(YOLOOBBDataset(ann_file='set/data.yaml', split='train', **QUIET)) == 1
    put(tmp_path / 'set/data.yaml', f'train: ../other\nnames: {CLASSES}\n')
    image(tmp_path / 'other/b.png')
    put(tmp_path / 'other/b.txt', yolo_line(SHIP))
    outside = YOLOOBBDataset(data_root='set/', ann_file='data.yaml', split='train', **QUIET)
    assert [path for path in files_outside(outside) if path.endswith('other/b.png')]  # the tools refuse it


def test_yolo_has_no_difficulty(read_yolo):
    with pytest.raises(ValueError, match='diff_thr=1: YOLO-OBB has no difficult objects'):
        read_yolo(yolo_line(SHIP), diff_thr=1)


# ---- roLabelImg


def test_rolabelimg(read_folder, said):
    text = xml(turned(), turned(difficult=1, angle=TURN + np.pi), turned('tank  farm'))
    dataset = read_folder(RoLabelImgDataset, 'a.xml', text, ('ship', 'tank farm'))
    assert np.abs(np.array(boxes(dataset)[0]) - SHIP).max() < 1e-9
    assert farthest(boxes(dataset)[1], SHIP) < 1e-9 and dataset.get_cat_ids(0) == [0, 0, 1] and not said
    flags = [
        one['ignore_flag'] for one in read_folder(RoLabelImgDataset, 'a.xml', text, test_mode=True)[0]['instances']
    ]
    assert flags == [0, 1]


def test_upright_boxes_of_rolabelimg_and_not_of_pascal_voc(read_folder, said):
    box = '<bndbox><xmin>10</xmin><ymin>20</ymin><xmax>50</xmax><ymax>40</ymax></bndbox>'
    marked = f'<object><type>bndbox</type><name>ship</name>{box}</object>'
    dataset = read_folder(RoLabelImgDataset, 'a.xml', xml(marked))
    assert boxes(dataset) == [[10, 20, 50, 20, 50, 40, 10, 40]]
    with pytest.raises(ValueError, match="they look like Pascal VOC's XML"):
        read_folder(RoLabelImgDataset, 'a.xml', xml(marked.replace('<type>bndbox</type>', '')))
    with pytest.raises(ValueError, match='field angle is missing'):
        read_folder(RoLabelImgDataset, 'a.xml', xml(turned().replace('<angle>0.4</angle>', '')))
    assert said


def test_classes_are_asked_for_with_what_the_files_name(read_folder):
    text = xml(turned(), turned(), turned('Frégate légère'))
    with pytest.raises(ValueError, match='no list of classes; write them as metainfo=dict') as error:
        read_folder(RoLabelImgDataset, 'a.xml', text, None)
    assert "classes=('Frégate légère', 'ship')" in str(error.value) and "'ship' (2)" in str(error.value)


def test_another_size_is_told(read_folder, said):
    read_folder(RoLabelImgDataset, 'a.xml', xml(turned(), width=400))
    assert said and 'another size than their label files say (a: 200 x 120, not 400 x 120)' in said[-1]


def test_images_without_xml_are_left_out_and_named(read_folder, tmp_path, said):
    image(tmp_path / 'images/b.png')
    assert len(read_folder(RoLabelImgDataset, 'a.xml', xml(turned()))) == 1
    assert '1 of 2 images have no label file and are left out (b)' in said[0]


@pytest.mark.parametrize('content, text', [('<annotation>', 'ParseError'), ('', 'ParseError'),
                                           ('<HRSC_Image/>', 'it looks like XML')])  # fmt: skip
def test_broken_xml(read_folder, content, text):
    with pytest.raises(ValueError, match='none of 1 images can be used') as error:
        read_folder(RoLabelImgDataset, 'a.xml', content)
    assert 'a.xml' in str(error.value) and text in str(error.value)


# ---- LabelMe


def test_shapes_of_labelme(read_folder, said):
    shapes = [
        shape(pairs(SHIP)),
        shape(pairs(QUAD), kind='rotation', difficult=True),
        shape([[50, 40], [10, 20]], kind='rectangle'),
        shape([[50, 60], [53, 64]], kind='circle'),
        shape([[10, 10], [50, 10], [50, 30], [30, 30], [10, 30]], flags={'difficult': True}),
    ]
    dataset = read_folder(LabelMeDataset, 'a.json', labelme(*shapes), test_mode=True)
    found = boxes(dataset)
    assert found[:3] == [pytest.approx(SHIP), QUAD, [10, 20, 50, 20, 50, 40, 10, 40]]
    assert found[3] == [45, 55, 55, 55, 55, 65, 45, 65]
    assert farthest(found[4], [10, 10, 50, 10, 50, 30, 10, 30]) < 1e-5
    assert [one['ignore_flag'] for one in dataset[0]['instances']] == [0, 1, 0, 0, 1] and not said


@pytest.mark.parametrize(
    'wrong, text',
    [
        (shape([[1, 2], [3, 4]], kind='line'), "shape_type 'line' is none of polygon"),
        (shape([[1, 2], [3, 4]]), 'polygon has 2 points'),
        (shape([[1, 2], [3, 'x'], [4, 5]]), 'must be pairs of finite numbers'),
        (shape([[1, 2], [3, float('nan')], [4, 5]]), 'must be pairs of finite numbers'),
        (shape(pairs(SHIP), label=' '), 'its label is missing'),
        (shape(pairs(SHIP), difficult='maybe'), "difficult is 'maybe'"),
        ('text', 'is no shape'),
    ],
)
def test_shapes_that_cannot_be_used(read_folder, said, wrong, text):
    dataset = read_folder(LabelMeDataset, 'a.json', labelme(shape(pairs(SHIP)), wrong))
    assert len(boxes(dataset)) == 1 and 'left out 1 of 2 objects: object 2' in said[0] and text in said[0]
    with pytest.raises(ValueError, match=r'a\.json: object 1: '):
        read_folder(LabelMeDataset, 'a.json', labelme(wrong), strict=True)


@pytest.mark.parametrize(
    'content, text',
    [
        ('{', 'no JSON'),
        ('[]', 'is a list, and must be an object'),
        ('[' * 10**5, 'no JSON'),
        ('{"images": []}', "it looks like COCO's JSON"),
    ],
    ids=['cut', 'list', 'deep', 'coco'],
)
def test_broken_json(read_folder, content, text):
    with pytest.raises(ValueError, match='none of 1 images can be used') as error:
        read_folder(LabelMeDataset, 'a.json', content)
    assert text in str(error.value)


def test_xml_of_labelme(read_folder):
    def node(polygon, deleted=0):
        points = ''.join(f'<pt><x>{x}</x><y>{y}</y></pt>' for x, y in pairs(polygon))
        return f'<object><name>ship\n</name><deleted>{deleted}</deleted><polygon>{points}</polygon></object>'

    dataset = read_folder(LabelMeDataset, 'a.xml', xml(node(SHIP), node(QUAD, 1)))
    assert boxes(dataset) == [pytest.approx(SHIP)]


# ---- COCO


def test_coco_in_all_its_forms(read_coco, said):
    turn = np.degrees(TURN)
    annotations = [
        {'segmentation': [SHIP], 'bbox': [0, 0, 1, 1]},
        {'segmentation': [], 'bbox': SHIP},
        {'bbox': [70, 52, 60, 16], 'attributes': {'rotation': turn}, 'segmentation': []},
        {
            'segmentation': [
                [*SHIP[:2], *(v / 2 + w / 2 for v, w in zip(SHIP[:2], SHIP[2:4], strict=True)), *SHIP[2:]]
            ],
            'difficult': 1,
        },
        {'segmentation': [SHIP], 'iscrowd': 1},
    ]
    dataset = read_coco(coco(*annotations), test_mode=True)
    found = boxes(dataset)
    assert all(farthest(one, SHIP) < 1e-4 for one in [*found[:4], found[4]])
    assert dataset.metainfo['classes'] == tuple(CLASSES) and dataset.get_cat_ids(0) == [2] * 5 and not said
    assert [one['ignore_flag'] for one in dataset[0]['instances']] == [0, 0, 0, 1, 1]
    assert dataset[0]['img_id'] == 1
    again = read_coco(coco(*annotations))  # a crowd is no object in training either
    assert [one['ignore_flag'] for one in again[0]['instances']] == [0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    'angle, written',
    [
        ('cw-radians', TURN),
        ('ccw-radians', -TURN),
        ('cw-degrees', np.degrees(TURN)),
        ('ccw-degrees', -np.degrees(TURN)),
    ],
)
def test_what_an_angle_means_has_to_be_said(read_coco, angle, written):
    content = coco({'bbox': [100, 60, 60, 16, written]})
    assert boxes(read_coco(content, angle=angle)) == [pytest.approx(SHIP)]
    with pytest.raises(ValueError, match="nothing says what the angle is; give angle='ccw-degrees' or"):
        read_coco(content)
    with pytest.raises(ValueError, match="angle='left' must be one of"):
        read_coco(content, angle='left')


def test_upright_boxes_of_coco_only_on_request(read_coco):
    content = coco({'bbox': [10, 20, 40, 20]})
    with pytest.raises(ValueError, match="they look like COCO's JSON with upright boxes alone: ann_type='hbb'"):
        read_coco(content)
    assert boxes(read_coco(content, ann_type='hbb')) == [[10, 20, 50, 20, 50, 40, 10, 40]]


def test_masks_of_coco(read_coco):
    coding = pytest.importorskip('pycocotools.mask')
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[20:40, 10:50] = 1
    code = coding.encode(np.asfortranarray(mask))
    plain = {'size': [HEIGHT, WIDTH], 'counts': runs(mask)}
    packed = {'size': [HEIGHT, WIDTH], 'counts': code['counts'].decode()}
    for found in boxes(read_coco(coco({'segmentation': plain}, {'segmentation': packed}))):
        assert farthest(found, [10, 20, 50, 20, 50, 40, 10, 40]) < 1e-4
    with pytest.raises(ValueError, match='is a mask'):
        read_coco(coco({'segmentation': {'size': [3, 3], 'counts': 'x'}}))


def runs(mask) -> list[int]:
    flat = np.concatenate([[0], mask.T.ravel()])
    ends = np.flatnonzero(np.diff(flat))
    return np.diff([0, *ends, mask.size]).tolist()


@pytest.mark.parametrize(
    'content, text',
    [
        ('[]', 'is a list, and must be an object'),
        ('{"shapes": []}', "it looks like LabelMe's JSON"),
        ('{"images": [], "annotations": []}', 'has no list of categories'),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', 'must have an id and a file_name'),
        (coco(names=('a', 'a')), "or the name 'a'"),
        (coco(names=()), 'categories is empty'),
        (coco().replace('}], "ann', '}, {"id": 1, "file_name": "b"}], "ann'), 'two images have the id 1'),
    ],
)
def test_a_wrong_file_of_coco(read_coco, content, text):
    with pytest.raises(ValueError, match=r'a\.json') as error:
        read_coco(content)
    assert text in str(error.value)


def test_annotations_without_image_or_category(read_coco, said):
    good = {'segmentation': [SHIP]}
    dataset = read_coco(coco(good, {**good, 'image_id': 9}, {**good, 'category_id': 99}, 'text' and good))
    assert len(boxes(dataset)) == 2
    assert '1 annotations belong to no image' in said[0] and 'category_id' in said[1]


def test_missing_images_of_coco_are_named(read_coco, said):
    assert len(read_coco(coco({'segmentation': [SHIP]}, images=('a.png', 'b.png')))) == 1
    assert 'b.png' in said[0] and '1 of 2 images are left out' in said[1]


def test_dota_names_the_reader_of_a_foreign_file(tmp_path):
    yolo(tmp_path, yolo_line(SHIP))
    with pytest.raises(ValueError, match="type='mmrotate_plugin.YOLOOBBDataset' reads it"):
        DOTADataset(data_root=str(tmp_path), ann_file='labels/train', data_prefix={'img_path': 'images/train'}, **QUIET)
