"""Image files of every depth, number of channels and orientation, against Pillow, numpy and tifffile."""

import io

import cv2
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile as HostLoader
from mmengine.registry import TRANSFORMS
from PIL import Image, ImageOps

from mmrotate_plugin.datasets.transforms.loading import LoadImageFromFile
from mmrotate_plugin.datasets.utils.image_headers import ImageKindError, read_header, turn

tifffile = pytest.importorskip('tifffile')
RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def encoded(kind, orientation, mode='RGB'):
    file, image = io.BytesIO(), Image.fromarray(RGB).convert(mode)
    if kind == 'TIFF':
        image.save(file, kind, tiffinfo={274: orientation})
    else:
        exif = Image.Exif()
        exif[274] = orientation
        image.save(file, kind, exif=exif, **({'lossless': True} if kind == 'WEBP' else {}))
    return file.getvalue()


def tiff(image, photometric='minisblack', planes=False, orientation=1, **options):
    file = io.BytesIO()
    tifffile.imwrite(
        file, np.moveaxis(image, -1, 0) if planes else image, photometric=photometric, metadata=None,
        planarconfig=('separate' if planes else 'contig') if image.ndim == 3 else None,
        extratags=[(274, 3, 1, orientation, True)], **options,
    )  # fmt: skip
    return file.getvalue()


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'TIFF'])
def test_images_are_upright_in_every_format(kind, orientation):
    data = encoded(kind, orientation)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))[..., ::-1]
    header = read_header(io.BytesIO(data))
    assert (header.kind.orientation, header.width, header.height) == (orientation, 30, 20)
    for color_type in ('color', 'unchanged', 'color_ignore_orientation'):
        for backend in ('cv2', 'pillow'):
            image = LoadImageFromFile(color_type=color_type, imdecode_backend=backend).decode(data, 'x')
            wanted = RGB[..., ::-1] if 'ignore' in color_type else upright
            assert image.shape == wanted.shape and image.flags.c_contiguous
            assert kind == 'JPEG' or (image == wanted).all()
    red = LoadImageFromFile(channels=[0]).decode(data, 'x')
    assert kind == 'JPEG' or (red[..., 0] == upright[..., 2]).all()


@pytest.mark.parametrize('options', [{}, {'compression': 'zlib'}, {'bigtiff': True}, {'tile': (16, 16)}], ids=str)
@pytest.mark.parametrize('planes', [False, True])
@pytest.mark.parametrize('bands', [2, 3, 4, 5, 8])
def test_tiffs_of_several_bands(bands, planes, options):
    eight = np.random.default_rng(bands).integers(0, 256, (20, 30, bands), dtype=np.uint8)
    twelve = eight.astype(np.uint16) * 16 + 7
    for image, orientation in ((eight, 1), (twelve, 1), (twelve, 6), (eight, 3)):
        data = tiff(image, planes=planes, orientation=orientation, **options)
        wanted = turn(eight, orientation)
        load = LoadImageFromFile(color_type='unchanged', bit_depth=12)
        assert (load.decode(data, 'x') == wanted).all()
        load = LoadImageFromFile(channels=(bands - 1, 0), bit_depth=12)
        assert (load.decode(data, 'x') == wanted[..., [bands - 1, 0]]).all()
    with pytest.raises(ImageKindError, match=f'has {bands} bands, and color_type'):
        LoadImageFromFile().decode(data, 'x')
    with pytest.raises(ImageKindError, match=rf'has {bands} channels, but channels='):
        LoadImageFromFile(channels=[bands]).decode(data, 'x')


def test_a_band_a_page_is_a_tiff_of_several_bands():
    file = io.BytesIO()
    tifffile.imwrite(file, np.moveaxis(np.dstack([RGB, RGB]), -1, 0), photometric='minisblack', metadata=None)
    image = LoadImageFromFile(color_type='unchanged').decode(file.getvalue(), 'x')
    assert (image == np.dstack([RGB, RGB])).all()


@pytest.mark.parametrize('suffix', ['.png', '.tif'])
@pytest.mark.parametrize('bits', [9, 11, 12, 16])
def test_deep_images_by_their_bits(suffix, bits):
    noise = np.random.default_rng(bits).integers(0, 2 ** (bits - 8), RGB.shape)
    deep = (RGB.astype(np.uint16) << (bits - 8)) + noise.astype(np.uint16)
    data = cv2.imencode(suffix, deep)[1].tobytes()
    assert (LoadImageFromFile(bit_depth=bits).decode(data, 'x') == RGB).all()
    exact = LoadImageFromFile(bit_depth=bits, to_float32=True).decode(data, 'x')
    assert exact.dtype == np.float32 and np.allclose(exact, deep / 2 ** (bits - 8), rtol=1e-6)
    stretched = LoadImageFromFile(white=2**bits - 1).decode(data, 'x')
    assert np.abs(stretched - deep * (255 / (2**bits - 1))).max() <= 0.5 + 1e-9
    with pytest.raises(ImageKindError, match=rf'samples of type uint16.*bit_depth={int(deep.max()).bit_length()} in'):
        LoadImageFromFile().decode(data, 'x')
    with pytest.raises(ImageKindError, match='which is none of bit_depth=8'):
        LoadImageFromFile(bit_depth=8).decode(data, 'x')
    grey = LoadImageFromFile(bit_depth=bits, color_type='grayscale').decode(data, 'x')
    assert grey.shape == (20, 30) and np.abs(grey - RGB @ [0.114, 0.587, 0.299]).max() < 1.5


@pytest.mark.parametrize('dtype, low, high', [('f4', 0, 1), ('f8', -5, 40), ('i2', -100, 900), ('u4', 0, 1e6)])
def test_other_samples_need_a_white(dtype, low, high):
    values = (low + RGB[..., 0] / 255 * (high - low)).astype(dtype)
    data = tiff(values)
    with pytest.raises(ImageKindError, match='nothing says which is white; write .*black= and white='):
        LoadImageFromFile(bit_depth=12 if dtype != 'i2' else None).decode(data, 'x')
    image = LoadImageFromFile(black=low, white=high).decode(data, 'x')
    assert image.shape == RGB.shape and np.abs(image[..., 1].astype(int) - RGB[..., 0]).max() <= 1
    holes = values.astype('f4')
    holes[0] = np.nan
    assert (LoadImageFromFile(black=low, white=high).decode(tiff(holes), 'x')[0] == 0).all()


def test_what_a_format_says_of_its_bits_is_taken():
    twelve = RGB[..., 0].astype('>u2') * 16 + 3
    image = LoadImageFromFile().decode(b'P5 30 20 4095\n' + twelve.astype('>u2').tobytes(), 'x')
    assert (image == RGB[..., :1]).all()
    with pytest.raises(ImageKindError, match='nothing says which is white'):
        LoadImageFromFile().decode(b'P5 30 20 5000\n' + twelve.astype('>u2').tobytes(), 'x')


def test_other_codings_are_what_opencv_makes_of_them():
    for mode, kind in (('LA', 'PNG'), ('P', 'PNG'), ('1', 'PNG'), ('CMYK', 'JPEG'), ('RGBA', 'PNG'), ('L', 'JPEG')):
        file = io.BytesIO()
        Image.fromarray(RGB).convert(mode).save(file, kind)
        for color_type, flag in (('color', 1), ('grayscale', 0), ('unchanged', -1)):
            wanted = cv2.imdecode(np.frombuffer(file.getvalue(), np.uint8), flag)
            assert np.array_equal(LoadImageFromFile(color_type=color_type).decode(file.getvalue(), 'x'), wanted)


def test_it_stands_in_a_pipeline_as_mmcvs_does(tmp_path):
    cv2.imwrite(str(tmp_path / 'x.png'), RGB)
    load = TRANSFORMS.build(dict(type='mmrotate_plugin.LoadImageFromFile'))
    mine, host = load({'img_path': str(tmp_path / 'x.png')}), HostLoader()({'img_path': str(tmp_path / 'x.png')})
    assert set(mine) == set(host) and mine['ori_shape'] == host['ori_shape'] and (mine['img'] == host['img']).all()
    assert isinstance(load, HostLoader) and 'bit_depth=None' in repr(load)
    assert TRANSFORMS.get('LoadImageFromFile') is HostLoader
    (tmp_path / 'empty.png').write_bytes(b'')
    assert LoadImageFromFile(ignore_empty=True)({'img_path': str(tmp_path / 'empty.png')}) is None


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(bit_depth=7), 'bit_depth=7 must be'),
        (dict(bit_depth='12'), "bit_depth='12' must be"),
        (dict(bit_depth=12, white=4095), 'give one of bit_depth=12 and white=4095'),
        (dict(white=0), 'white=0 must be above black'),
        (dict(black=3), 'black=3 needs white'),
        (dict(channels=()), 'must be counted from 0'),
        (dict(channels=(-1, 0)), 'must be counted from 0'),
        (dict(color_type='colour'), "color_type='colour' is unknown"),
    ],
)
def test_arguments_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        LoadImageFromFile(**options)
