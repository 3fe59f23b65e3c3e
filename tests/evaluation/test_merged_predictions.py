"""Detections on patches become those of whole images: the way there and back, files, and scores."""

import json
import zipfile

import numpy as np
import pytest

from mmrotate_plugin.datasets.dota_format import Annotation
from mmrotate_plugin.datasets.formats.boxes import box_of, corners_of
from mmrotate_plugin.datasets.formats.detections import coco_annotation, dota_line
from mmrotate_plugin.datasets.formats.sample import Sample
from mmrotate_plugin.datasets.formats.source import Source
from mmrotate_plugin.datasets.patches.plan import patch_name
from mmrotate_plugin.datasets.patches.windows import lay_windows, moved, objects_in_windows
from mmrotate_plugin.evaluation import EvaluationError, merge_predictions
from mmrotate_plugin.evaluation import merged_predictions as module
from mmrotate_plugin.evaluation.functional.prediction_files import read_predictions

CLASSES = ['ship', 'plane']
WIDTH, HEIGHT = 300, 220
NAMES = ['P1', 'a.b__2__64__1___2', 'Straße_']


def grid(seed: int) -> list[Annotation]:
    """Objects that do not touch each other: one in each cell of 24 pixels, some at the edge of the image."""
    rng = np.random.default_rng(seed)
    found = []
    for x in range(12, WIDTH, 24):
        for y in range(12, HEIGHT, 24):
            corners = corners_of(x, y, rng.uniform(8, 20), rng.uniform(4, 10), rng.uniform(0, np.pi))
            found.append(Annotation(corners, CLASSES[int(rng.integers(2))], int(rng.random() < 0.1)))
    return found


@pytest.fixture
def scenes(tmp_path):
    """Labels of whole images as a source, and perfect detections on their patches."""
    source = Source('dota', tmp_path, 'labels', 'line', False)
    rows = []
    for seed, name in enumerate(NAMES):
        objects = grid(seed)
        source.samples.append(Sample(tmp_path / f'{name}.png', 'val', WIDTH, HEIGHT, objects))
        windows = lay_windows(WIDTH, HEIGHT, [(100, 30)], 0.6)
        held = objects_in_windows(objects, WIDTH, HEIGHT, windows, 0.7)
        for window, inside in zip(windows, held, strict=True):
            for one in inside:
                part = moved(objects[one.place], one, window)
                box, _ = box_of(part.polygon)
                label = CLASSES.index(part.name)
                rows.append(dict(image_id=patch_name(name, window), bbox=list(box), score=0.5, category_id=label))
    return source, rows


@pytest.fixture
def labelled(scenes, monkeypatch):
    monkeypatch.setattr(module, 'read_source', lambda *_args, **_options: scenes[0])


def write(path, rows):
    path.write_text(json.dumps(rows))
    return path


def write_as_predict(root, kind, rows):
    """The files of `predict --save dota` or `coco`, images with suffixes and in a subfolder."""
    (root / 'classes.txt').write_text('\n'.join(CLASSES))
    names = list(dict.fromkeys(row['image_id'] for row in rows))
    if kind == 'dota':
        for name in [*names, 'P1__100__0___0.png']:  # which shares its name with an image of another kind
            mine = [row for row in rows if row['image_id'] == name]
            file = root / 'dota/sub' / f'{name}.txt'
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(
                ''.join(dota_line(corners_of(*r['bbox']), CLASSES[r['category_id']], 0.5, [0.1] * 6) for r in mine)
            )
        (root / 'dota/sub/P1__100__0___0.txt').rename(root / 'dota/sub/P1__100__0___0.png.txt')
        return root
    found = [
        coco_annotation(corners_of(*row['bbox']), 0.5, {'image_id': names.index(row['image_id']),
                                                        'category_id': row['category_id'] + 1})
        for row in rows
    ]  # fmt: skip
    images = [{'id': i, 'file_name': f'sub/{name}.png'} for i, name in enumerate(names)]
    content = dict(images=images, annotations=found, categories=[{'id': 2, 'name': 'plane'}, {'id': 1, 'name': 'ship'}])
    (root / 'coco.json').write_text(json.dumps(content))
    return root / 'coco.json'


@pytest.mark.parametrize('kind', ['dota', 'coco'])
def test_what_predict_writes_is_merged_as_what_test_writes(scenes, kind, tmp_path):
    expected = merge_predictions(write(tmp_path / 'a.json', scenes[1]), tmp_path / 'a', classes=CLASSES)
    root = tmp_path / 'found'
    root.mkdir()
    written = write_as_predict(root, kind, scenes[1])
    for number, given in enumerate((written, root, root / 'dota') if kind == 'dota' else (written, root)):
        done = merge_predictions(given, tmp_path / f'out{number}')
        assert (done.before, done.after, done.patches, done.classes) == (
            expected.before, expected.after, expected.patches, CLASSES
        )  # fmt: skip
        for name in CLASSES:
            lines = [
                (folder / f'Task1_{name}.txt').read_text().splitlines()
                for folder in (expected.file.parent, done.file.parent)
            ]
            numbers = [np.array([line.split()[1:] for line in sorted(part)], float) for part in lines]
            # two decimals are written, of corners rounded to six
            assert np.abs(numbers[0] - numbers[1]).max() < 0.011


@pytest.mark.parametrize('file, text, said', [
    ('dota/P1__1__0___0.txt', '1 2 3 4 5 6 7 8 ship 0\n1 2 3 4 5 6 7 8 ship 1\n', 'holds labels, not detections'),
    ('dota/P1__1__0___0.txt', '1 2 3 4 5 6 7 8 boat 0.5\n', "line 1: the class 'boat' is none of ['ship', 'plane']"),
    ('dota/P1__1__0___0.txt', '1 2 3 4 ship 0.5\n', 'P1__1__0___0.txt, line 1: '),
    ('dota/whole.txt', '1 2 3 4 5 6 7 8 ship 0.5\n', 'the name does not say where the patch was cut'),
    ('yolo-obb/P1__1__0___0.txt', '0 .1 .1 .2 .1 .2 .2 .1 .2 0.5\n', 'has lines of YOLO-OBB'),
    ('.predict.jsonl', '{}', 'predict was interrupted, and the same command continues it'),
    ('coco.json', '{"images": []}', 'must have images, annotations and categories'),
    ('coco.json', '{"images": [{"id": 1, "file_name": "a"}], "categories": [{"id": 1, "name": "ship"}], "annotations": '
                  '[{"image_id": 1, "category_id": 1, "segmentation": [[1, 2, 3, 4, 5, 6, 7, 8]]}]}',
     "annotation 0 is no detection with score and segmentation of predict ('score' is missing)"),
    ('notes.png', '', 'holds neither Task1_CLASS.txt nor what predict'),
])  # fmt: skip
def test_what_is_no_prediction_is_one_line(file, text, said, tmp_path):
    (tmp_path / 'found').mkdir()
    path = tmp_path / 'found' / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    (tmp_path / 'found/classes.txt').write_text('ship\nplane\n')
    with pytest.raises(EvaluationError) as caught:
        merge_predictions(tmp_path / 'found', tmp_path / 'out')
    assert said in str(caught.value) and '\n' not in str(caught.value) and not (tmp_path / 'out').exists()


@pytest.mark.parametrize('kind', ['json', 'folder', 'zip'])
def test_perfect_detections_come_back_once_each(scenes, labelled, tmp_path, kind):  # noqa: ARG001
    source, rows = scenes
    file = write(tmp_path / 'found.bbox.json', rows)
    if kind != 'json':  # text files of patches, as DOTA's own programs take them
        file = tmp_path / 'texts'
        file.mkdir()
        for label, name in enumerate(CLASSES):
            (file / f'Task1_{name}.txt').write_text(
                ''.join(
                    f'{row["image_id"]} 0.5 {" ".join(map(str, corners_of(*row["bbox"])))}\r\n'
                    for row in rows
                    if row['category_id'] == label
                )
            )
        if kind == 'zip':
            with zipfile.ZipFile(tmp_path / 'texts.zip', 'w') as archive:
                for text in file.iterdir():
                    archive.write(text, f'folder/{text.name}')
            file = tmp_path / 'texts.zip'
    done = merge_predictions(file, tmp_path / 'out', classes=CLASSES, labels='labels', split='val', iou_thrs=(0.5, 0.9))
    number = sum(len(sample.objects) for sample in source.samples)
    assert done.before == len(rows) > number == done.after and done.images == 3
    assert done.scores == {'mAP': 1.0, 'AP50': 1.0, 'AP90': 1.0} and done.notes == []
    with zipfile.ZipFile(tmp_path / 'out/out.zip') as archive:
        assert sorted(archive.namelist()) == ['Task1_plane.txt', 'Task1_ship.txt']  # no folders
        lines = {name: archive.read(f'Task1_{name}.txt').decode().split('\n')[:-1] for name in CLASSES}
    for sample in source.samples:
        for name in CLASSES:
            mine = [line.split(' ') for line in lines[name] if line.startswith(f'{sample.image.stem} ')]
            found = np.array([fields[2:] for fields in mine], float).reshape(-1, 4, 2).mean(1)
            wanted = np.array([one.polygon for one in sample.objects if one.name == name]).reshape(-1, 4, 2).mean(1)
            distances = np.linalg.norm(found[:, None] - wanted[None], axis=2)
            assert distances.shape[0] == distances.shape[1]
            assert (distances.argmin(0)[:, None] == distances.argmin(0)[None]).sum() == len(wanted)
            assert distances.min(0).max() < 0.01


def test_without_suppression_they_would_come_back_often(scenes, labelled, tmp_path):  # noqa: ARG001
    file = write(tmp_path / 'a.json', scenes[1])
    done = merge_predictions(file, tmp_path / 'out', classes=CLASSES, iou_thr=1.0, labels='labels')
    assert done.after > 1.2 * sum(len(sample.objects) for sample in scenes[0].samples) and done.scores['mAP'] < 0.9


def test_scores_are_those_of_the_whole_images(scenes, labelled, tmp_path):  # noqa: ARG001
    source, rows = scenes
    first = [row for row in rows if row['image_id'].startswith('P1__')]
    done = merge_predictions(
        write(tmp_path / 'a.json', first), tmp_path / 'o', classes=CLASSES, labels='l', eval_mode='area'
    )
    counts = {name: [0, 0] for name in CLASSES}  # an object that counts: found, all
    for sample in source.samples:
        for one in sample.objects:
            if not one.difficulty:
                counts[one.name][0] += sample.image.stem == 'P1'
                counts[one.name][1] += 1
    # all detections are hits of the first image, so precision is 1 up to its part of the objects
    assert done.scores['mAP'] == pytest.approx(np.mean([found / whole for found, whole in counts.values()]))
    assert done.notes == ['2 of 3 labelled images have no detection']
    other = [*rows, dict(rows[0], image_id='other__100__0___0')]
    source.samples[0].objects.append(Annotation([0, 0, 9, 0, 9, 9, 0, 9], 'car'))
    done = merge_predictions(write(tmp_path / 'b.json', other), tmp_path / 'p', classes=CLASSES, labels='l')
    assert [note.split(' ', 1)[1][:14] for note in done.notes] == ['images with de', 'objects are of']


def test_names_with_blanks_are_for_json_alone(tmp_path):
    row = dict(image_id='a b__1__10___20', bbox=[5, 6, 4, 2, 0.5], score=0.9, category_id=0)
    file = write(tmp_path / 'a.json', [row])
    with pytest.raises(EvaluationError, match='separates its fields by blanks'):
        merge_predictions(file, tmp_path / 'out', classes=['ship'])
    done = merge_predictions(file, tmp_path / 'out.json', classes=['ship'])
    assert json.loads(done.file.read_text()) == [
        dict(image_id='a b', bbox=[15, 26, 4, 2, 0.5], score=0.9, category_id=0)
    ]
    with pytest.raises(EvaluationError, match='exists already'):
        merge_predictions(file, tmp_path / 'out.json', classes=['ship'])


def test_upright_boxes_and_deep_names(tmp_path):
    folder = tmp_path / 'in'
    folder.mkdir()
    (folder / 'Task2_ship.txt').write_text('a__1__10___20 0.9 1 2 3 4\n\na__1__0___0 0.8 11 22 13 24\n')
    done = merge_predictions(folder, tmp_path / 'out')
    assert (tmp_path / 'out/Task2_ship.txt').read_text() == 'a 0.900000 11.00 22.00 13.00 24.00\n' and done.after == 1


GOOD = dict(image_id='a__1__0___0', bbox=[1, 2, 3, 4, 5], score=1, category_id=0)


@pytest.mark.parametrize(
    'content, message',
    [
        ('{', 'cannot be used .no JSON'),
        ('{}', 'or be a list of detections'),
        ([1], 'detection 0: 1 is no object'),
        ([{'score': 1}], 'image_id, bbox, category_id is missing'),
        ([dict(GOOD, bbox=[1, 2])], '4, 5 or 8 finite'),
        ([dict(GOOD, bbox=None)], '4, 5 or 8 finite'),
        ([dict(GOOD, score=float('nan'))], '4, 5 or 8 finite'),
        ([dict(GOOD, category_id=1)], 'category_id is 1'),
        ([dict(GOOD, category_id='ship')], "category_id is 'ship'"),
        ([GOOD, dict(GOOD, bbox=[1, 2, 3, 4])], 'of one kind'),
        ([dict(GOOD, image_id='a')], 'does not say where the patch was cut'),
    ],
)
def test_wrong_json(tmp_path, content, message):
    file = tmp_path / 'a.json'
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(EvaluationError, match=message):
        merge_predictions(file, tmp_path / 'out', classes=['ship'])
    assert not (tmp_path / 'out').exists()


def test_wrong_texts_and_arguments(tmp_path, scenes, labelled):  # noqa: ARG001
    folder = tmp_path / 'in'
    with pytest.raises(EvaluationError, match='does not exist'):
        merge_predictions(folder, tmp_path / 'out')
    folder.mkdir()
    with pytest.raises(EvaluationError, match='holds neither Task1'):
        merge_predictions(folder, tmp_path / 'out')
    (folder / 'Task1_ship.txt').write_text('a__1__0___0 0.5 1 2 3 4 5 6 7 8\na__1__0___0 0.5 1 2 3\n')
    with pytest.raises(EvaluationError, match='line 2'):
        merge_predictions(folder, tmp_path / 'out')
    (folder / 'Task1_ship.txt').write_text('a__1__0___0 0.5 1 2 3 2 3 4 1 4\n')
    with pytest.raises(EvaluationError, match="class 'ship', which --classes"):
        merge_predictions(folder, tmp_path / 'out', classes=['plane'])
    with pytest.raises(EvaluationError, match='names in the order'):
        merge_predictions(write(tmp_path / 'a.json', [GOOD]), tmp_path / 'out')
    for classes, message in ((['a', 'a'], 'twice'), ([], 'no name'), ([str(tmp_path / 'n.txt')], 'cannot be read')):
        with pytest.raises(EvaluationError, match=message):
            merge_predictions(folder, tmp_path / 'out', classes=classes)
    (tmp_path / 'x.txt').write_text('')
    (tmp_path / 'bad.zip').write_text('')
    for name, message in (('x.txt', 'must be a .json file'), ('bad.zip', 'cannot be read')):
        with pytest.raises(EvaluationError, match=message):
            merge_predictions(tmp_path / name, tmp_path / 'out')
    for options, message in (
        (dict(iou_thr=2), 'iou_thr=2'), (dict(labels='l', iou_thrs=()), 'iou_thrs'), (dict(labels='l'), 'no labelled'),
        (dict(labels='l', eval_mode='x'), 'eval_mode'), (dict(labels='l', split='no'), "split='no'"),
    ):  # fmt: skip
        with pytest.raises(EvaluationError, match=message):
            merge_predictions(folder, tmp_path / 'out', **options)
    with pytest.raises(EvaluationError, match='cannot be made|could not be written'):
        merge_predictions(folder, '/proc/x/out')
    scenes[0].samples.append(scenes[0].samples[0])
    with pytest.raises(EvaluationError, match='two images named'):
        merge_predictions(folder, tmp_path / 'out', labels='l')
    assert not (tmp_path / 'out').exists()
    (tmp_path / 'names.txt').write_text('\ufeffship\r\nplane\r\n')
    assert merge_predictions(folder, tmp_path / 'out', classes=[str(tmp_path / 'names.txt')]).classes == CLASSES
    found, _ = read_predictions(tmp_path / 'out/out.zip')
    assert list(found) == ['a']  # what is written can be read
