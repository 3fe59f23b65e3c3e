"""Data sets know the image as their loader gives it, and refuse what it would give wrong."""

import logging

import cv2
import numpy as np
import pytest
from test_loading import RGB, encoded, tiff

from mmrotate_plugin.datasets import DOTADataset
from mmrotate_plugin.datasets.utils.image_headers import ImageKindError
from mmrotate_plugin.datasets.utils.loader_check import find_loader
from mmrotate_plugin.utils import messages

OWN, HOST = 'mmrotate_plugin.LoadImageFromFile', 'mmcv.LoadImageFromFile'


@pytest.fixture
def warned(monkeypatch):
    texts = []
    monkeypatch.setattr(messages, 'print_log', lambda text, logger=None, level=logging.INFO: texts.append(text))  # noqa: ARG005
    return texts


def dataset(folder, suffix, type=HOST, **options):
    return DOTADataset(
        data_root=str(folder), data_prefix={'img_path': ''}, img_suffix=suffix, pipeline=[dict(type=type, **options)]
    )


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
@pytest.mark.parametrize('color_type', ['color', 'grayscale', 'unchanged', 'color_ignore_orientation'])
@pytest.mark.parametrize('type', [OWN, HOST])
def test_the_recorded_size_is_that_of_the_loaded_image(type, color_type, backend, tmp_path):
    turned = 0
    for kind in ('JPEG', 'PNG', 'WEBP', 'TIFF'):
        for orientation in (1, 3, 6, 8):
            (tmp_path / f'{kind}{orientation}.img').write_bytes(encoded(kind, orientation))
    data = dataset(tmp_path, 'img', type, color_type=color_type, imdecode_backend=backend)
    for i in range(len(data)):
        info, loaded = data.get_data_info(i), data[i]
        assert (info['height'], info['width']) == loaded['img'].shape[:2] == loaded['ori_shape'], info['file_name']
        turned += info['height'] > info['width']
    wanted = 0 if 'ignore' in color_type else 8
    assert turned == wanted or type == HOST


@pytest.mark.parametrize('suffix', ['png', 'tif'])
@pytest.mark.parametrize('options', [{}, {'color_type': 'grayscale'}, {'imdecode_backend': 'pillow'}], ids=str)
def test_deep_files_under_a_loader_of_8_bits_are_refused(suffix, options, tmp_path):
    for i in range(2):
        cv2.imwrite(str(tmp_path / f'{i}.{suffix}'), RGB.astype(np.uint16) * 16)
    with pytest.raises(ImageKindError, match=r"type='mmrotate_plugin.LoadImageFromFile'.*bit_depth=12"):
        dataset(tmp_path, suffix, **options)
    assert (dataset(tmp_path, suffix, OWN, bit_depth=12)[0]['img'] == RGB).all()
    if not options:  # raw values are a choice; the tools compare them with mean and std
        assert dataset(tmp_path, suffix, color_type='unchanged')[0]['img'].dtype == np.uint16


def test_bands_that_opencv_drops_are_refused(tmp_path):
    (tmp_path / 'a.tif').write_bytes(tiff(np.dstack([RGB, RGB[..., 0]])))
    for color_type in ('color', 'unchanged'):
        with pytest.raises(
            ImageKindError, match="has 4 bands, of which .* takes the first alone.*color_type='unchanged'"
        ):
            dataset(tmp_path, 'tif', color_type=color_type)
    assert dataset(tmp_path, 'tif', OWN, color_type='unchanged')[0]['img'].shape == (20, 30, 4)
    (tmp_path / 'a.tif').write_bytes(tiff(np.dstack([RGB, RGB])))
    with pytest.raises(ImageKindError, match='6 x 8 bits.* cannot be read by mmcv'):
        dataset(tmp_path, 'tif')
    (tmp_path / 'a.tif').write_bytes(tiff(np.dstack([RGB, RGB]), planes=True))
    with pytest.raises(ImageKindError, match='has 30 x 20 pixels, but .* gives an array of'):
        dataset(tmp_path, 'tif', imdecode_backend='tifffile')


def test_one_band_of_three_is_refused(tmp_path):
    tifffile = pytest.importorskip('tifffile')
    tifffile.imwrite(tmp_path / 'a.tif', np.moveaxis(RGB, -1, 0), photometric='minisblack')  # a page each
    with pytest.raises(ImageKindError, match='has 3 bands, of which .* takes the first alone'):
        dataset(tmp_path, 'tif')
    tifffile.imwrite(tmp_path / 'a.tif', RGB[None, ..., 0].repeat(3, 0), photometric='minisblack')
    assert dataset(tmp_path, 'tif')[0]['img'].shape == (20, 30, 3), 'three equal bands are grey'


def test_several_numbers_of_channels_are_named(tmp_path, warned):
    for name, image in (('a', RGB), ('b', np.dstack([RGB, RGB[..., 0]]))):
        cv2.imwrite(str(tmp_path / f'{name}.png'), image)
    for type in (OWN, HOST):
        with pytest.raises(ImageKindError, match=r"a.png' has 3 channels and .*b.png' has 4"):
            dataset(tmp_path, 'png', type, color_type='unchanged')
        del warned[:]
        assert len(dataset(tmp_path, 'png', type)) == 2
        (text,) = warned
        assert 'b.png' in text and 'the last of which (alpha, or a band) is left out' in text


def test_a_damaged_file_is_no_other_kind(tmp_path, warned):
    for i in range(3):
        (tmp_path / f'{i}.tif').write_bytes(tiff(np.dstack([RGB, RGB])))
    data = bytearray((tmp_path / '1.tif').read_bytes())
    (tmp_path / '1.tif').write_bytes(data[:100])
    assert len(dataset(tmp_path, 'tif', OWN, color_type='unchanged')) == 2
    assert '1.tif cannot be read as an image' in warned[0]


def test_plain_files_are_not_decoded(tmp_path, monkeypatch):
    cv2.imwrite(str(tmp_path / 'a.png'), RGB)
    monkeypatch.setattr('mmcv.imfrombytes', lambda *_, **__: pytest.fail('decoded'))
    assert dataset(tmp_path, 'png').get_data_info(0)['width'] == 30
    assert find_loader([]) is None
