"""Predictions as files: read back by this package's own data sets, continued after an interruption, told if broken."""

import json
import os

import cv2
import numpy as np
import prediction_data as data
import pytest

from mmrotate_plugin.apis import save_predictions
from mmrotate_plugin.apis.prediction_journal import NAME
from mmrotate_plugin.datasets import DOTADataset, RotatedCocoDataset, YOLOOBBDataset
from mmrotate_plugin.datasets.formats.boxes import box_of
from mmrotate_plugin.datasets.patches.split import split_dataset
from mmrotate_plugin.evaluation import merge_predictions
from mmrotate_plugin.structures.corners import box_corners
from mmrotate_plugin.utils.errors import ImageError, UsageError

TEXTS = ('dota', 'yolo-obb', 'coco')


@pytest.fixture
def images(tmp_path):
    folder = data.write_images(tmp_path / 'in', ['a.png', 'b.c é.png'])
    cv2.imwrite(str(folder / 'empty.png'), np.zeros((100, 160, 3), np.uint8))
    return folder


def datasets(images, out, min_score):
    """The three files that predictions are written to, as data sets of labels."""
    common = dict(pipeline=[], test_mode=True, metainfo=dict(classes=tuple(data.CLASSES)), min_score=min_score)
    folder = dict(data_prefix=dict(img_path=str(images)), **common)
    yield DOTADataset(ann_file=str(out / 'dota'), **folder)
    yield YOLOOBBDataset(ann_file=str(out / 'yolo-obb'), **folder)
    yield RotatedCocoDataset(ann_file=str(out / 'coco.json'), **folder)


@pytest.mark.parametrize('std', [False, True])
def test_own_data_sets_read_what_was_written(std, images, tmp_path):
    detector, out = data.Bright(std), tmp_path / 'out'
    saved = save_predictions(detector, images, out, save=TEXTS)
    assert (saved.done, saved.total, saved.detections, saved.failed) == (3, 3, 4, {})
    expected = detector(data.scene())
    for dataset in datasets(images, out, 0.0):
        found = {os.path.basename(info['img_path']): info['instances'] for info in map(dataset.get_data_info, range(3))}
        assert found.pop('empty.png') == [] and len(found) == 2
        for instances in found.values():
            assert [one['bbox_label'] for one in instances] == [0, 1]
            for one, box in zip(instances, expected.boxes, strict=True):
                again = np.array(box_of(one['bbox'])[0])
                # six decimals of a pixel in each corner
                assert np.abs(again[:4] - box[:4]).max() < 5e-6
                assert np.sin(again[4] - box[4]) == pytest.approx(0, abs=5e-6)
    for dataset in datasets(images, out, 0.7):
        assert sum(len(dataset.get_data_info(i)['instances']) for i in range(3)) == 2
    for line in (out / 'dota/a.txt').read_text().splitlines():
        assert len(line.split()) == 8 + (2 if 'plane' in line else 1) + (7 if std else 1)
    first, second = json.loads((out / 'coco.json').read_text())['annotations'][:2]
    assert first['score'] == pytest.approx(0.9) and ('box_std' in first) == ('score_std' in second) == std
    assert np.abs(np.array(first['rotated_box']) - expected.boxes[0]).max() < 1e-6
    assert (out / 'classes.txt').read_text() == 'ship\nsmall plane\n'
    assert not (out / NAME).exists()


def test_scores_are_no_labels_unless_asked_for(images, tmp_path):
    save_predictions(data.Bright(), images, tmp_path / 'out', save=TEXTS)
    dota, yolo, _ = datasets(images, tmp_path / 'out', 0.0)
    for dataset, kind in ((dota, DOTADataset), (yolo, YOLOOBBDataset)):
        with pytest.raises(ValueError, match='score'):
            kind(ann_file=dataset.ann_file, data_prefix=dict(img_path=str(images)), pipeline=[], strict=True,
                 metainfo=dict(classes=tuple(data.CLASSES)))  # fmt: skip


@pytest.mark.parametrize('kind', ['dota', 'coco'])
def test_split_predict_and_merge(kind, tmp_path):
    folder = data.write_images(tmp_path / 'whole', ['images/a.png'])
    (folder / 'labelTxt').mkdir()
    rows = zip(box_corners(np.array(data.BOXES)).reshape(-1, 8), data.CLASSES, strict=True)
    (folder / 'labelTxt/a.txt').write_text(
        ''.join(f'{" ".join(map(str, corners))} {name.replace(" ", "-")} 0\n' for corners, name in rows)
    )
    split_dataset(folder, tmp_path / 'patches', sizes=(100,), gaps=(60,), nproc=1)
    assert len(list((tmp_path / 'patches/images').iterdir())) > 1
    detector = data.Bright()
    detector.classes = [name.replace(' ', '-') for name in data.CLASSES]
    save_predictions(detector, tmp_path / 'patches/images', tmp_path / 'found', save=[kind])
    done = merge_predictions(tmp_path / 'found', tmp_path / 'out.json', iou_thr=0.05, labels=folder)
    # a piece of a ship that the edge of a patch cuts may stay beside the whole ship
    assert done.images == 1 and done.before > done.after >= 2 and done.scores['AP50'] > 0.7


def test_an_interrupted_call_continues(images, tmp_path):
    out, detector = tmp_path / 'out', data.Bright()
    options = dict(save=('pictures', *TEXTS))

    def stop(_outcome, _files, saved):
        if saved.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_predictions(detector, images, out, progress=stop, **options)
    assert detector.seen == 2 and not (out / 'coco.json').exists() and (out / NAME).exists()
    with (out / NAME).open('a') as journal:
        journal.write('{"begin": "empty.png", "stamp": [1')  # a line cut by the power failure
    again = data.Bright()
    saved = save_predictions(again, images, out, **options)
    assert (again.seen, saved.done, saved.earlier) == (1, 3, 2)
    whole = tmp_path / 'whole'
    save_predictions(data.Bright(), images, whole, **options)
    files = {path.relative_to(whole) for path in whole.rglob('*') if path.is_file()}
    assert {path.relative_to(out) for path in out.rglob('*') if path.is_file()} == files and len(files) == 11
    assert all((out / file).read_bytes() == (whole / file).read_bytes() for file in files)


def test_what_changed_meanwhile_is_done_again(images, tmp_path):
    out = tmp_path / 'out'

    def stop(_outcome, _files, saved):
        if saved.done == 2:
            raise KeyboardInterrupt

    def interrupted(**options):
        detector = data.Bright()
        with pytest.raises(KeyboardInterrupt):
            save_predictions(detector, images, out, save=TEXTS, progress=stop, **options)
        return detector.seen

    assert interrupted() == 2
    assert interrupted(score_thr=0.5) == 2  # another threshold: from the beginning
    os.utime(images / 'a.png', (1, 1))
    again = data.Bright()
    save_predictions(again, images, out, save=TEXTS, score_thr=0.5)
    assert again.seen == 2  # the changed image, and the one that was left
    content = json.loads((out / 'coco.json').read_text())
    assert len(content['images']) == 3 and len(content['annotations']) == 4


def test_broken_files_do_not_stop_the_rest(images, tmp_path):
    (images / 'broken.png').write_bytes((images / 'a.png').read_bytes()[:50])
    (images / 'low.png').write_bytes(cv2.imencode('.png', np.zeros((3, 9, 3), np.uint8))[1].tobytes())
    (images / 'notes.txt').write_text('no image')
    (images / 'a.AVI').write_bytes(b'RIFF')
    saved = save_predictions(data.Bright(), images, tmp_path / 'out', save=('coco', 'crops'))
    assert set(saved.failed) == {'broken.png', 'low.png', 'a.AVI'} and saved.others == ['notes.txt']
    assert "low.png': too low" in saved.failed['low.png'] and saved.done == 3
    assert len(json.loads((tmp_path / 'out/coco.json').read_text())['images']) == 3
    with pytest.raises(ImageError, match='its end is missing'):
        save_predictions(data.Bright(), images / 'broken.png', tmp_path / 'one.png')


def test_crops_are_written_upright_and_old_ones_removed(images, tmp_path):
    out = tmp_path / 'out'
    save_predictions(data.Bright(), images / 'a.png', out, save=['crops'])
    assert sorted(path.name for path in (out / 'crops/a').iterdir()) == [
        '0001_ship_0.90.png', '0002_small_plane_0.60.png'
    ]  # fmt: skip
    ship = cv2.imread(str(out / 'crops/a/0001_ship_0.90.png'))
    assert ship.shape[1] > 2 * ship.shape[0] and np.median(ship) > 240
    save_predictions(data.Bright(), images / 'a.png', out, save=['crops'], score_thr=0.7)
    assert [path.name for path in (out / 'crops/a').iterdir()] == ['0001_ship_0.90.png']


def test_a_video_becomes_a_video_and_lines_for_each_frame(tmp_path):
    clip, out = data.write_video(tmp_path / 'clip.avi'), tmp_path / 'out'
    saved = save_predictions(data.Bright(), clip, out, save=('pictures', *TEXTS))
    assert saved.done == 1 and saved.detections == 12
    drawn = cv2.VideoCapture(str(out / 'clip.avi'))
    assert drawn.get(cv2.CAP_PROP_FRAME_COUNT) == 6 and drawn.get(cv2.CAP_PROP_FPS) == 10
    assert sorted(path.name for path in (out / 'dota/clip.avi').iterdir()) == [f'{i:06d}.txt' for i in range(1, 7)]
    content = json.loads((out / 'coco.json').read_text())
    assert [image['frame'] for image in content['images']] == list(range(6)) and len(content['annotations']) == 12
    save_predictions(data.Bright(), clip, tmp_path / 'one.mp4')
    assert cv2.VideoCapture(str(tmp_path / 'one.mp4')).get(cv2.CAP_PROP_FRAME_COUNT) == 6


@pytest.mark.parametrize('out', ['out', 'drawn.mp4'])
def test_an_interrupted_video_goes_on(out, tmp_path):
    clip = data.write_video(tmp_path / 'clip.avi', frames=8)
    save = TEXTS + ('pictures', 'crops') if out == 'out' else ('pictures',)

    def stop(after):
        def stop(outcome, _files, _saved):
            if not outcome.known and outcome.prediction.frame == after:
                raise KeyboardInterrupt

        return stop

    seen = []
    for after in (2, 4):  # interrupted twice
        detector = data.Bright(std=True)
        with pytest.raises(KeyboardInterrupt):
            save_predictions(detector, clip, tmp_path / out, save=save, progress=stop(after))
        seen.append(detector.seen)
        left = {path.name for path in (tmp_path / out if out == 'out' else tmp_path).iterdir()}
        assert left & {'clip.avi', 'drawn.mp4', 'coco.json'} <= ({'clip.avi'} if out != 'out' else set())  # no part
    detector, frames = data.Bright(std=True), []
    saved = save_predictions(
        detector, clip, tmp_path / out, save=save, progress=lambda *what: frames.append(what[0].prediction)
    )
    # the frame at which it was stopped was noted
    assert [*seen, detector.seen] == [3, 2, 3] and [frame.frame for frame in frames[:-1]] == list(range(8))
    assert saved.done == 1 and saved.detections == 6
    whole = tmp_path / 'whole'
    save_predictions(data.Bright(std=True), clip, whole / 'drawn.mp4' if out != 'out' else whole, save=save)
    files = {path.relative_to(whole) for path in whole.rglob('*') if path.is_file()}
    here = tmp_path / out if out == 'out' else tmp_path
    assert len(files) == (1 if out != 'out' else 3 + 2 * 8 + 2 * 8)
    assert all((here / file).read_bytes() == (whole / file).read_bytes() for file in files)
    assert not list(here.glob('.*'))


def test_a_changed_video_begins_anew(tmp_path):
    clip, out = data.write_video(tmp_path / 'clip.avi'), tmp_path / 'out'

    def stop(outcome, _files, _saved):
        if outcome.prediction.frame == 2:
            raise KeyboardInterrupt

    for options in ({}, {'score_thr': 0.5}):
        detector = data.Bright()
        with pytest.raises(KeyboardInterrupt):
            save_predictions(detector, clip, out, progress=stop, **options)
        assert detector.seen == 3  # another threshold: from the beginning
    os.utime(clip, (1, 1))
    detector = data.Bright()
    save_predictions(detector, clip, out, score_thr=0.5)
    assert detector.seen == 6


def test_geojson_of_a_geotiff_and_none_of_other_images(images, tmp_path):
    rasterio = pytest.importorskip('rasterio')
    options = dict(driver='GTiff', width=160, height=100, count=3, dtype='uint8', crs='EPSG:32632')
    with rasterio.open(images / 'place.tif', 'w', transform=rasterio.Affine(2, 0, 1000, 0, -2, 9000), **options) as out:
        out.write(np.moveaxis(data.scene(), -1, 0))
    saved = save_predictions(data.Bright(), images, tmp_path / 'out', save=['geojson'])
    assert sorted(saved.nowhere) == ['a.png', 'b.c é.png', 'empty.png']
    (file,) = (tmp_path / 'out/geojson').iterdir()
    ship, plane = json.loads(file.read_text())['features']
    assert ship['properties'] == {'class': 'ship', 'score': 0.9} and plane['properties']['class'] == 'small plane'
    centre = np.mean(ship['geometry']['coordinates'][0][:-1], 0)
    assert centre == pytest.approx((1000 + 2 * 60, 9000 - 2 * 40), abs=2)


@pytest.mark.parametrize('source, out, save, words', [
    ('in', 'in', ['pictures'], 'is the folder of the images'),
    ('in', 'o.png', ['pictures'], 'is the name of one picture, but there are 3'),
    ('in/a.png', 'o.png', ['dota'], 'is the name of one picture, but --save dota writes more'),
    ('in/a.png', 'in/a.png', ['pictures'], 'would replace the image itself'),
    ('in/a.png', 'in', ['pictures'], 'would replace the image itself'),
    ('in/a.png', 'o.gif', ['pictures'], 'must end with one of .png'),
    ('in/a.png', 'o', ['boxes'], "--save 'boxes' must be some of pictures, dota"),
    ('in/a.png', 'o', [], '--save must be some of'),
    ('in', 'in/a.png/o', ['dota'], 'cannot be written'),
])  # fmt: skip
def test_files_that_cannot_be_are_one_line(source, out, save, words, images, monkeypatch):
    monkeypatch.chdir(images.parent)
    with pytest.raises(UsageError) as error:
        save_predictions(data.Bright(), source, out, save=save)
    assert words in str(error.value) and '\n' not in str(error.value)
    assert {path.name for path in images.iterdir()} == {'a.png', 'b.c é.png', 'empty.png'}


def test_deep_images_have_deep_crops(tmp_path):
    pytest.importorskip('tifffile')
    image = data.scene().astype(np.uint16) * 200
    save_predictions(data.Bright(), image, tmp_path / 'out', save=['crops', 'pictures'])
    crop = cv2.imread(str(tmp_path / 'out/crops/array1/0001_ship_0.90.png'), cv2.IMREAD_UNCHANGED)
    assert crop.dtype == np.uint16 and crop.max() == 50_000
    save_predictions(data.Bright(), np.dstack([image, image]), tmp_path / 'bands', save=['crops'], bands=(5, 0, 1))
    crop = cv2.imread(str(tmp_path / 'bands/crops/array1/0001_ship_0.90.png'), cv2.IMREAD_UNCHANGED)
    assert crop.dtype == np.uint8
    with pytest.raises(UsageError, match='--bands'):
        save_predictions(data.Bright(), image, tmp_path / 'bands', save=['pictures'], bands=(5, 0, 1))
