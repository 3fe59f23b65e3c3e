"""Images of 12 bits, and of one, four and eight channels, through every tool; what does not fit ends in one line."""

import json
import shutil

import cv2
import numpy as np
import pytest

from mmrotate_plugin.datasets.loading import LoadImageFromFile

pytest.importorskip('mmrotate')
tifffile = pytest.importorskip('tifffile')

HOST = "image = dict(type='mmdet.LoadImageFromFile')"
TWELVE = "image = dict(type='mmrotate_plugin.LoadImageFromFile', bit_depth=12)"
ALL = "image = dict(type='mmrotate_plugin.LoadImageFromFile', color_type='unchanged'{more})"
PREPROCESSOR = """    data_preprocessor=dict(
        type='mmrotate_plugin.DetDataPreprocessor', mean=[100.0] * {channels}, std=[60.0] * {channels}, bgr_to_rgb=False),
    backbone=dict(in_channels={channels}, """


def rewritten(scenes, folder, change, suffix):
    """The scenes with other pixels: `change` of the image, (H, W, 3) in OpenCV's order, in files of that kind."""
    shutil.copytree(scenes / 'labels', folder / 'labels')
    (folder / 'images').mkdir()
    for file in sorted((scenes / 'images').iterdir()):
        image = change(cv2.imread(str(file)))
        if suffix == 'tif':
            tifffile.imwrite(folder / f'images/{file.stem}.tif', image, photometric='minisblack', planarconfig='contig')
        else:
            cv2.imwrite(str(folder / f'images/{file.stem}.{suffix}'), image)
    return folder


def config(tiny_config, scenes, folder, suffix, load, channels=None):
    text = tiny_config.read_text().replace(f'{scenes}/', f'{folder}/').replace(HOST, load)
    text = text.replace(
        'data = dict(\n', f"data = dict(\n    type='mmrotate_plugin.DOTADataset', img_suffix='{suffix}',\n"
    )
    if channels:
        text = text.replace('    backbone=dict(', PREPROCESSOR.format(channels=channels))
    path = folder / 'config.py'
    path.write_text(text)
    return path


def to_twelve_bits(image):
    return image.astype(np.uint16) * 16 + 7  # as a sensor of 12 bits gives it


@pytest.fixture(scope='module', params=['png', 'tif'])
def deep(request, scenes, tmp_path_factory):
    folder = rewritten(scenes, tmp_path_factory.mktemp('deep'), to_twelve_bits, request.param)
    return folder, request.param


def run_test(tool, config, checkpoint, folder):
    status = tool('test')([str(config), str(checkpoint), '--work-dir', str(folder), '--out', str(folder / 'p.pkl')])
    report = folder / 'test_metrics.json'
    return status, json.loads(report.read_text())['metrics'] if report.exists() else None


def last_line(capsys):
    return capsys.readouterr().err.strip().splitlines()[-1]
