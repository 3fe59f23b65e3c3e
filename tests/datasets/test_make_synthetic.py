"""The command that writes the embedded data set to disk."""

import importlib.util
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmrotate_plugin.datasets import DOTADataset, draw_scene
from mmrotate_plugin.datasets.synthetic.scenes import CLASSES

SCRIPT = Path(__file__).parents[2] / 'tools/make_synthetic.py'


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('make_synthetic', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def call(tool, out, *options):
    return tool.main(['--out', str(out), '--train', '3', '--val', '2', '--size', '97', '--seed', '4', *options])


def read(cls, out, split='train'):
    prefix = {'img_path': f'{split}/images'}
    return cls(
        data_root=str(out),
        ann_file=f'{split}/labelTxt',
        data_prefix=prefix,
        metainfo={'classes': CLASSES},
        img_suffix='png',
    )


def check_against_scenes(dataset, seed):
    for info in dataset:
        scene = draw_scene(seed, int(info['img_id'].rsplit('-')[-1]), size=97)
        np.testing.assert_array_equal(cv2.imread(info['img_path']), scene.image)
        boxes = np.array([i['bbox'] for i in info['instances']]).reshape(-1, 4, 2)
        np.testing.assert_allclose(boxes, scene.polygons, atol=0.0051)
        assert [i['bbox_label'] for i in info['instances']] == scene.labels.tolist()


@pytest.mark.parametrize('header', [False, True])
def test_our_reader_gets_the_scenes_back(tool, tmp_path, header):
    out = tmp_path / 'scenes'
    assert call(tool, out, *(['--header'] if header else [])) == 0
    text = (out / 'train/labelTxt/synthetic-4-00000.txt').read_text()
    assert text.startswith('imagesource:') is header
    assert len(read(DOTADataset, out)) == 3
    check_against_scenes(read(DOTADataset, out), 4)
    check_against_scenes(read(DOTADataset, out, 'val'), 5)


def test_noise_on_one_half(tool, tmp_path, capsys):
    assert call(tool, tmp_path / 'a', '--noise-std', '0', '15') == 0
    image = cv2.imread(str(tmp_path / 'a/val/images/synthetic-5-00001.png'))
    assert np.array_equal(image, draw_scene(5, 1, size=97, noise_std=(0, 15)).image)
    assert np.array_equal(image[:, :48], draw_scene(5, 1, size=97).image[:, :48])
    assert json.loads((tmp_path / 'a/synthetic.json').read_text())['noise_std'] == [0, 15]
    assert call(tool, tmp_path / 'b', '--noise-std', '1', '2', '3') == 2
    assert 'a pair (left half, right half)' in capsys.readouterr().err and not (tmp_path / 'b').exists()


def test_mmrotate_reads_it(tool, tmp_path):
    theirs = pytest.importorskip('mmrotate.datasets').DOTADataset
    assert call(tool, tmp_path) == 0
    check_against_scenes(read(theirs, tmp_path), 4)


def test_second_run_replaces_the_first(tool, tmp_path, capsys):
    assert call(tool, tmp_path) == 0
    assert call(tool, tmp_path, '--train', '1') == 0
    assert [p.name for p in (tmp_path / 'train/images').iterdir()] == ['synthetic-4-00000.png']
    assert [p.name for p in (tmp_path / 'train/labelTxt').iterdir()] == ['synthetic-4-00000.txt']
    assert json.loads((tmp_path / 'synthetic.json').read_text())['train'] == 1
    assert '1/1 scenes' in capsys.readouterr().out
    assert not list(tmp_path.rglob('.*'))


def test_foreign_directory_is_left_alone(tool, tmp_path, capsys):
    (tmp_path / 'thesis.tex').write_text('years of work')
    assert call(tool, tmp_path) == 2
    assert [p.name for p in tmp_path.iterdir()] == ['thesis.tex']
    assert '--force' in capsys.readouterr().err
    assert call(tool, tmp_path, '--force') == 0
    assert (tmp_path / 'thesis.tex').read_text() == 'years of work'


@pytest.mark.parametrize(
    'options, words',
    [(['--size', '9'], 'size=9'), (['--objects', '5', '2'], 'num_objects=(5, 2)'), (['--val', '-1'], '--val -1')],
)
def test_bad_options_are_named_before_anything_is_written(tool, tmp_path, capsys, options, words):
    out = tmp_path / 'new'
    assert call(tool, out, *options) == 2
    assert words in capsys.readouterr().err
    assert not out.exists()


def test_file_in_the_way(tool, tmp_path, capsys):
    (tmp_path / 'file').write_text('')
    assert call(tool, tmp_path / 'file') == 2
    assert 'is a file' in capsys.readouterr().err


def test_interrupted_write_leaves_no_half_file(tool, tmp_path, monkeypatch, capsys):
    assert call(tool, tmp_path, '--header') == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()}

    def stop(*_):
        raise OSError('disk is full')

    monkeypatch.setattr('mmrotate_plugin.utils.atomic_files.os.replace', stop)
    assert call(tool, tmp_path) == 2
    assert f'--out {tmp_path} cannot be written: disk is full' in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()} == before
