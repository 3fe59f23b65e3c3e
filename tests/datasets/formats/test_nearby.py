"""A folder that is one too high or one too low: the message names the right one."""

import cv2
import numpy as np
import pytest

from mmrotate_plugin.apis.prediction_sources import find_sources
from mmrotate_plugin.datasets.formats.readers import read_source
from mmrotate_plugin.utils.errors import UsageError

DOTA = '94.0 12.5 130.2 20.1 128.1 30.0 91.9 22.4 ship 0\n'
YOLO = '0 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2\n'


def write_images(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), np.zeros((100, 160, 3), np.uint8))
    return folder


def message(read, path):
    with pytest.raises(UsageError) as caught:
        read(path)
    assert '\n' not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def dota(tmp_path):
    root = write_images(tmp_path / 'my ships', ['images/a.png', 'images/b.PNG'])
    (root / 'labelTxt').mkdir()
    for name in 'ab':
        (root / f'labelTxt/{name}.txt').write_text(DOTA)
    (root / 'README.md').write_text('ships')
    return root


@pytest.fixture
def yolo(tmp_path):
    root = write_images(tmp_path / 'yolo', ['images/train/a.png', 'images/val/b.png'])
    for part, name in (('train', 'a'), ('val', 'b')):
        (root / f'labels/{part}').mkdir(parents=True)
        (root / f'labels/{part}/{name}.txt').write_text(YOLO)
    (root / 'data.yaml').write_text('path: .\ntrain: images/train\nval: images/val\nnames: {0: ship}\n')
    return root


def test_half_a_data_set_names_the_other_half(dota, yolo):
    text = message(read_source, dota / 'images')
    assert f"'{dota}/labelTxt' has label files: give '{dota}', which holds both" in text
    assert f"'{dota}/images' has images: give '{dota}'" in message(read_source, dota / 'labelTxt')
    assert f"'{yolo}/labels' has label files: give '{yolo}'" in message(read_source, yolo / 'images/train')
    assert f"'{yolo}/data.yaml' is one: give that file or its folder" in message(read_source, yolo / 'labels/train')
    assert f"'{yolo}/data.yaml' is one" in message(read_source, yolo / 'labels')
    (dota / 'README.md').unlink()
    assert len(read_source(dota.parent / 'my ships').samples) == 2  # control: the folder that it names


def test_a_data_yaml_below_is_named(yolo):
    assert f"'{yolo}/data.yaml' is one" in message(read_source, yolo.parent)


def test_without_another_half_there_is_no_advice(tmp_path):
    write_images(tmp_path, ['images/a.png'])
    assert 'give ' not in message(read_source, tmp_path / 'images')
    (tmp_path / 'labels').mkdir()  # without files
    assert 'give ' not in message(read_source, tmp_path / 'images')


def test_a_folder_without_images_names_its_subfolders(dota, yolo, tmp_path):
    text = message(find_sources, dota)
    assert f"'{dota}' holds no images itself, but '{dota}/images' (2) does: give that folder" in text
    assert len(find_sources(dota / 'images')) == 2
    text = message(find_sources, yolo)
    assert f"'{yolo}/images/train' (1), '{yolo}/images/val' (1) do: give one of them" in text
    pattern = text.rpartition("all with '")[2].rstrip("'")
    assert [source.name for source in find_sources(pattern)] == ['train/a.png', 'val/b.png']
    (dota / 'scan').write_bytes((dota / 'images/a.png').read_bytes())  # an image without a suffix
    assert [source.asked for source in find_sources(dota)] == [False, False]
    (tmp_path / 'texts/.hidden').mkdir(parents=True)
    (tmp_path / 'texts/a.txt').write_text('no image')
    assert len(find_sources(tmp_path / 'texts')) == 1  # read, and refused for what it holds
