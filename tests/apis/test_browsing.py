"""browse-dataset: its page and numbers for configs and folders, and what careless users give it."""

import json
import re

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from mmrotate_plugin.apis.browsing import browse_dataset
from mmrotate_plugin.apis.browsing.parts import read_parts
from mmrotate_plugin.apis.browsing.samples import choose, draw_samples
from mmrotate_plugin.utils.errors import InputError
from mmrotate_plugin_cli.main import main

LINE = '10 10 30 10 30 20 10 20 {} 0\n'
BOXES = """[
    dict(type='mmdet.LoadAnnotations', with_bbox=True, box_type='qbox'),
    dict(type='mmrotate.ConvertBoxType', box_type_mapping=dict(gt_bboxes='rbox')),
    dict(type='mmdet.RandomFlip', prob=1.0, direction='horizontal'),
    dict(type='mmdet.PackDetInputs')]"""
SCENES = "type='mmrotate_plugin.SyntheticAerialDataset', size=65, num_objects=3"
CONFIG = f"""
default_scope = 'mmdet'
custom_imports = dict(imports=['mmrotate_plugin'], allow_failed_imports=False)
model = dict(type='RTMDet')
train_dataloader = dict(dataset=dict({SCENES}, length=4, pipeline={BOXES}))
val_dataloader = dict(dataset=dict(
    type='RepeatDataset', times=2, dataset=dict({SCENES}, length=2, seed=1, pipeline={BOXES})))
test_dataloader = val_dataloader
"""


@pytest.fixture
def folder(tmp_path):
    """DOTA's format, train and val; names with blanks, umlauts, $ and tags; one image without label file."""
    root = tmp_path / 'daten'
    rng = np.random.default_rng(0)
    for split, names in {'train': ('a b.png', 'ü$1$.PNG', '<b>.png', 'lone.png'), 'val': ('c.png',)}.items():
        for number, name in enumerate(names):
            file = root / split / 'images' / name
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 60000, (40, 60), dtype=np.uint16)  # 16 bits, one band
            file.write_bytes(cv2.imencode('.png', pixels)[1].tobytes())
            label = root / split / 'labelTxt' / f'{file.stem}.txt'
            label.parent.mkdir(parents=True, exist_ok=True)
            if name != 'lone.png':
                label.write_text(LINE.format('ship') + LINE.format(('<i>car</i>', 'ship', 'ship')[number]))
    (root / 'train' / 'labelTxt' / '<b>.txt').write_text('\ufeff500 10 530 10 530 20 500 20\tship\t1\r\n\r\n')
    return root


def test_a_folder(folder, tmp_path):
    done = browse_dataset(folder, tmp_path / 'out', number=3)
    assert done.format == "DOTA's text files" and [part.name for part in done.parts] == ['train', 'val']
    kinds = [problem.kind for problem in done.problems]
    assert kinds == ['no label file', 'left out', 'labelled twice', 'two classes', 'two classes']  # the last of val
    numbers = json.loads(done.numbers.read_text())
    assert numbers['parts']['train']['objects_outside_their_image'] == 1
    assert numbers['parts']['train']['classes']['ship']['objects'] == 3
    page = done.page.read_text()
    assert '&lt;i&gt;car&lt;/i&gt;' in page and '<i>' not in page and '<b>.png' not in page
    assert not re.search(r'(?:src|href)="(?!data:|#)|url\(|@import|<script', page)
    assert page.count('as stored, 60 x 40 pixels') == 2 * 4  # 3 of train, 1 of val; alt and caption
    assert len(list((tmp_path / 'out/pictures').glob('*-before.jpg'))) == 4


def test_a_config(tmp_path):
    config = tmp_path / 'c.py'
    config.write_text(CONFIG)
    told = []
    done = browse_dataset(config, tmp_path / 'out', number=2, progress=lambda what, count: told.append((what, count)))
    assert [(part.name, len(part.paths)) for part in done.parts] == [('train', 4), ('val', 2)]  # test is val
    assert ('read train', 4) in told and ('draw val', 2) in told
    for sample in done.samples['train']:
        mine = done.parts[0].owners == sample.index
        assert sample.objects == (mine.sum(), mine.sum()) and not sample.fault
        assert np.allclose(sample.shorter, done.measures[0].shorter[mine], atol=1e-3)  # mirrored, not resized
        assert (sample.before.shape == sample.after.shape) and (sample.before != sample.after).any()
    (again, *_), _, _ = read_parts(config, ['train'])
    first = done.samples['train'][0]
    drawn = [draw_samples(again.part, [first.index], again.load, seed)[0].after for seed in (0, 0)]
    assert (drawn[0] == drawn[1]).all() and (drawn[0] == first.after).all()


def test_a_pipeline_that_fails_and_data_that_cannot_be_read_are_findings(tmp_path):
    config = tmp_path / 'c.py'
    text = CONFIG.replace(
        "prob=1.0, direction='horizontal'", "prob=1.0, direction='horizontal'), dict(type='mmdet.Mosaic'"
    )
    config.write_text(text.replace('length=2', 'length=-2'))
    done = browse_dataset(config, tmp_path / 'out', number=2)
    assert [problem.kind for problem in done.problems][0] == 'unreadable'
    assert 'val_dataloader' in done.problems[0].text and 'length=-2' in done.problems[0].text
    faults = [problem for problem in done.problems if problem.kind == 'sample']
    assert faults[0].count == 2 and 'the pipeline fails' in faults[0].examples[0]
    with pytest.raises(InputError, match='val_dataloader cannot be read'):
        browse_dataset(config, tmp_path / 'out', parts=['val'])


def test_samples_show_rare_classes_first():
    from mmrotate_plugin.datasets.statistics import DataPart

    count = 50
    labels = np.array([0] * count + [1])
    owners = np.array([*range(count), 17])
    part = DataPart('', ('a', 'b'), [f'{i}.png' for i in range(count)], np.ones((count, 2), int),
                    np.zeros((count + 1, 4, 2)), labels, owners, np.zeros(count + 1, bool))  # fmt: skip
    assert all(17 in choose(part, 2, seed) for seed in range(5))
    assert choose(part, 2, 0) != choose(part, 2, 1) and choose(part, 99, 0) == list(range(count))


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        (['nowhere'], "SOURCE 'nowhere' does not exist"),
        (['nowhere.py'], "config 'nowhere.py' does not exist"),
        (['{folder}', '--cfg-options', 'a=1'], '--cfg-options are for a config'),
        (['{config}', '--from', 'dota'], '--from and --angle are for a folder'),
        (['{empty}'], 'there is no label file, so the format cannot be recognised'),
        (['{folder}', '--out', '{config}'], 'cannot be written'),
        (['{folder}', '--from', 'coco'], "--from coco: no file of COCO's JSON"),
    ],
)
def test_what_cannot_be_browsed_is_one_line(words, said, folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'c.py').write_text(CONFIG)
    (tmp_path / 'empty').mkdir()
    places = {'folder': folder, 'config': tmp_path / 'c.py', 'empty': tmp_path / 'empty'}
    assert main(['browse-dataset', *(word.format(**places) for word in words)]) == 2
    (line,) = [text for text in capsys.readouterr().err.splitlines() if text.startswith('error: ')]
    assert said in line


def test_the_command_prints_tables_and_findings(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(['browse-dataset', str(folder), '--number', '0']) == 0
    out = capsys.readouterr().out
    assert f"{folder} is DOTA's text files" in out and re.search(r'^train +3 +1 +60 x 40 +4 ', out, re.MULTILINE)
    assert 'note: train: 1 image without label file (train/images/lone.png)' in out
    assert (tmp_path / 'work_dirs/browse/daten/dataset.html').is_file()


def test_the_config_of_the_tests_is_whole():
    assert Config.fromstring(CONFIG, '.py').val_dataloader.dataset.times == 2
