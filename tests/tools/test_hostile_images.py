"""Images of any size and kind on their way through image_demo: boxes or an error that names the file, never a hang."""

import io

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip('mmrotate')
from mmrotate_plugin.apis.checkpoint import read_checkpoint
from mmrotate_plugin.apis.config import load_config
from mmrotate_plugin.apis.inference import Detector, read_image
from mmrotate_plugin.utils.errors import ImageError

FUZZ = settings(
    max_examples=80,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
NOISE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def encode(suffix, image):
    return cv2.imencode(suffix, image)[1].tobytes()


def frames(kind):
    file = io.BytesIO()
    Image.fromarray(NOISE).save(file, kind, save_all=True, append_images=[Image.fromarray(255 - NOISE)])
    return file.getvalue()


def pillow(mode, kind):
    file = io.BytesIO()
    Image.fromarray(NOISE).convert(mode).save(file, kind)
    return file.getvalue()


GREY = NOISE[..., 0]
WHOLE = {
    'rgb.png': encode('.png', NOISE),
    'grey.png': encode('.png', GREY),
    'alpha.png': encode('.png', np.dstack([NOISE, GREY])),
    'rgb.tif': encode('.tif', NOISE),
    'rgb.bmp': encode('.bmp', NOISE),
    'rgb.jpg': encode('.jpg', NOISE),
    'cmyk.jpg': pillow('CMYK', 'JPEG'),
    'palette.png': pillow('P', 'PNG'),
    'bits.png': pillow('1', 'PNG'),
    'grey-alpha.png': pillow('LA', 'PNG'),
    'moving.gif': frames('GIF'),
    'moving.webp': frames('WEBP'),
    'moving.png': frames('PNG'),
    'pages.tif': frames('TIFF'),
}


@pytest.fixture(scope='module')
def detector(tiny_config, trained):
    checkpoint = read_checkpoint(str(trained / 'epoch_1.pth'))
    return Detector(load_config(str(tiny_config)), checkpoint, 'epoch_1.pth', device=torch.device('cpu'))


@pytest.mark.parametrize('name', WHOLE)
def test_images_of_every_kind_are_read(name, detector, tmp_path):
    (tmp_path / name).write_bytes(WHOLE[name])
    image = read_image(tmp_path / name)
    assert image.shape == (20, 30, 3) and image.dtype == np.uint8 and image.std() > 20
    if 'jpg' not in name and name.startswith(('rgb', 'alpha')):
        assert (image == NOISE).all()
    assert np.isfinite(detector(image).boxes).all()


@pytest.mark.parametrize('dtype', [np.float32, np.float64, np.int32, np.uint16])
@pytest.mark.parametrize('image', [GREY, NOISE], ids=['grey', 'rgb'])
def test_samples_without_a_known_white_are_refused(dtype, image, tmp_path):
    path = tmp_path / 'x.tif'
    try:
        path.write_bytes(encode('.tif', image.astype(dtype)))
    except cv2.error:
        pytest.skip('OpenCV writes none')
    with pytest.raises(ImageError, match=rf"x\.tif' has samples of type {np.dtype(dtype).name}"):
        read_image(path)


SIDES = st.one_of(st.sampled_from([1, 2, 3, 96, 97, 4096]), st.integers(1, 200))


@FUZZ
@given(height=SIDES, width=SIDES, alpha=st.sampled_from([None, 1, 4]))
def test_any_size_is_detected_on_or_refused_with_its_size(detector, tmp_path, height, width, alpha):
    if height * width > 200 * 4096:
        width = 3
    image = np.random.default_rng(height).integers(0, 256, (height, width, alpha or 3), dtype=np.uint8)
    (tmp_path / 'x.png').write_bytes(encode('.png', image))
    read = read_image(tmp_path / 'x.png')
    assert read.shape == (height, width, 3)
    try:
        found = detector(read)
    except ImageError as error:
        assert f'{width} x {height} pixels' in str(error)
        assert max(height, width) > 96 * min(height, width)  # the pipeline makes the longer side 96 pixels
    else:
        assert np.isfinite(found.boxes).all() and len(found.boxes) <= 5


@FUZZ
@given(name=st.sampled_from(sorted(WHOLE)), data=st.data())
def test_cut_and_damaged_files_are_images_or_named(name, data, tmp_path, capfd):
    content = bytearray(WHOLE[name])
    if data.draw(st.booleans(), label='cut'):
        del content[data.draw(st.integers(0, len(content) - 1), label='at') :]
    else:
        for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=8), label='places'):
            content[place] ^= 0xFF
    (tmp_path / name).write_bytes(content)
    try:
        image = read_image(tmp_path / name)
    except ImageError as error:
        assert name in str(error)
    else:
        assert image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8 and image.size < 10**8
    capfd.readouterr()  # what the decoders print


MAGIC = [b'', b'\x89PNG\r\n\x1a\n', b'GIF89a', b'II*\x00', b'P6 9 9 ']


@FUZZ
@given(content=st.binary(max_size=100), magic=st.sampled_from(MAGIC))
def test_any_bytes_are_no_image_and_named(content, magic, tmp_path, capfd):
    (tmp_path / 'x.png').write_bytes(magic + content)
    with pytest.raises(ImageError, match=r'x\.png'):
        read_image(tmp_path / 'x.png')
    capfd.readouterr()


def test_the_tool_names_the_file_and_goes_on(tool, tiny_config, trained, tmp_path, capsys):
    images = tmp_path / 'images'
    images.mkdir()
    (images / 'long.png').write_bytes(encode('.png', np.zeros((1, 4096, 3), np.uint8)))
    args = [str(tiny_config), str(trained / 'epoch_1.pth'), '--out']
    assert tool('image_demo')([str(images / 'long.png'), *args, str(tmp_path / 'o.png')]) == 2
    assert "long.png': an image of 4096 x 1 pixels cannot go through" in capsys.readouterr().err
    (images / 'one.png').write_bytes(encode('.png', NOISE[:1, :1]))
    (images / 'rgb.gif').write_bytes(WHOLE['moving.gif'])
    assert tool('image_demo')([str(images), *args, str(tmp_path / 'o')]) == 1
    printed = capsys.readouterr()
    assert '2 of 3 images drawn' in printed.out and 'long.png' in printed.err


def test_more_pixels_than_opencv_reads_are_named(tmp_path):
    (tmp_path / 'bomb.ppm').write_bytes(b'P6 60000 60000 255\n')
    with pytest.raises(ImageError, match=r"bomb\.ppm' has too many pixels"):
        read_image(tmp_path / 'bomb.ppm')
