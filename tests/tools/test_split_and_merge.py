"""`split-dataset` and `merge-predictions` as commands: from whole images to patches, and back."""

import json
import zipfile

import cv2
import numpy as np
import pytest

from mmrotate_plugin.datasets.formats.boxes import box_of, corners_of
from mmrotate_plugin.datasets.formats.readers import read_source

CLASSES = ('ship', 'plane')


@pytest.fixture
def whole(tmp_path):
    """Two images with objects on a grid, and a folder for the rest."""
    rng = np.random.default_rng(0)
    for name in ('images', 'labelTxt'):
        (tmp_path / 'whole' / name).mkdir(parents=True)
    for name in ('a__b.c', 'd'):
        cv2.imwrite(str(tmp_path / f'whole/images/{name}.png'), rng.integers(0, 255, (150, 200, 3)).astype(np.uint8))
        lines = [
            ' '.join(f'{v:.4f}' for v in corners_of(x, y, 14, 6, rng.uniform(0, np.pi)))
            + f' {CLASSES[x // 20 % 2]} 0\n'
            for x in range(10, 200, 20)
            for y in range(10, 150, 20)
        ]
        (tmp_path / f'whole/labelTxt/{name}.txt').write_text(''.join(lines))
    return tmp_path / 'whole'


def test_split_then_merge(whole, tool, tmp_path, capsys):
    words = [str(whole), str(tmp_path / 'patches'), '--sizes', '64', '--gaps', '20', '--nproc', '2']
    assert tool('split_dataset')([*words, '--out-json', str(tmp_path / 'counts.json')]) == 0
    told = capsys.readouterr()
    assert '| all   | 140     | 140              | 0           |' in told.out and '2 images to 30 patches' in told.out
    assert 'written: 30 of 30 patches' in told.err
    assert json.loads((tmp_path / 'counts.json').read_text())['before'] == {'plane': 70, 'ship': 70}
    assert tool('split_dataset')(words) == 0 and '30 patches were there already' in capsys.readouterr().out
    rows = [
        dict(image_id=s.image.stem, bbox=box_of(one.polygon)[0], score=0.9, category_id=CLASSES.index(one.name))
        for s in read_source(tmp_path / 'patches').samples
        for one in s.objects
    ]
    (tmp_path / 'found.bbox.json').write_text(json.dumps(rows))
    words = [str(tmp_path / 'found.bbox.json'), str(tmp_path / 'out'), '--classes', *CLASSES, '--labels', str(whole)]
    assert tool('merge_predictions')([*words, '--out-json', str(tmp_path / 'scores.json')]) == 0
    told = capsys.readouterr().out
    assert f'140 detections on 2 images, merged from {len(rows)} on' in told and 'mAP 1.0000, AP50 1.0000' in told
    assert json.loads((tmp_path / 'scores.json').read_text())['scores'] == {'mAP': 1.0, 'AP50': 1.0}
    assert zipfile.ZipFile(tmp_path / 'out/out.zip').namelist() == ['Task1_ship.txt', 'Task1_plane.txt']


def test_errors_are_one_line(whole, tool, tmp_path, capsys):
    found = tmp_path / 'found.json'
    found.write_text('[]')
    for name, words in {
        'split_dataset': [
            [whole, tmp_path / 'o', '--gaps', '2000'], [tmp_path / 'none', tmp_path / 'o'],
            [whole, tmp_path / 'o', '--save-ext', 'jpg', '--sizes', '64', '--gaps', '4', '--out-json', '/proc/x.json'],
        ],
        'merge_predictions': [
            [found, tmp_path / 'p'], [found, tmp_path / 'p', '--split', 'val'],
            [found, tmp_path / 'p', '--classes', 'ship', '--labels', tmp_path / 'none'],
            [found, tmp_path / 'q', '--classes', 'ship', '--out-json', '/proc/x.json'],
        ],
    }.items():  # fmt: skip
        for line in words:
            assert tool(name)([*map(str, line)]) == 2
            (told,) = [text for text in capsys.readouterr().err.splitlines() if not text.startswith('written')]
            assert told.startswith('error: ')
    with pytest.raises(SystemExit):
        tool('split_dataset')([str(whole), str(tmp_path / 'o'), '--nproc', '0'])
