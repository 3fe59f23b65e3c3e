"""`split_dataset`: pixels, labels, names, formats, interruptions and what a careless user does."""

import json
import os
import shutil
import sys
import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from mmrotate_plugin.datasets import DOTADataset, LoadImageFromFile, convert_dataset, split_dataset
from mmrotate_plugin.datasets.formats.boxes import corners_of
from mmrotate_plugin.datasets.formats.readers import read_source
from mmrotate_plugin.datasets.patches import cutting, window_reader
from mmrotate_plugin.datasets.utils.broken_files import BrokenFileError
from mmrotate_plugin.evaluation.functional.submission import parse_patch
from mmrotate_plugin.utils.errors import UsageError

WIDTH, HEIGHT = 150, 110
OPTIONS = dict(sizes=(64,), gaps=(20,), nproc=2)
NAMES = ['a.b', 'Straße é', 'x__y__1__2___3', 'P__0', '__', 'UPPER', 'a.a.tif.b', '東京', 'tail_']


def image(seed: int = 0, channels: int = 3, dtype=np.uint8) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shape = (HEIGHT, WIDTH, channels) if channels > 1 else (HEIGHT, WIDTH)
    return rng.integers(0, np.iinfo(dtype).max, shape).astype(dtype)


def lines(number: int = 12, seed: int = 0, longest: float = 14) -> list[str]:
    rng = np.random.default_rng(seed)
    found = []
    for i in range(number):
        corners = corners_of(*rng.uniform((9, 9), (WIDTH - 9, HEIGHT - 9)), longest, 6, rng.uniform(0, np.pi))
        found.append(' '.join(f'{v:.3f}' for v in corners) + f' {("ship", "small plane")[i % 2]} {i % 3 == 0:d}')
    return found


@pytest.fixture
def dota(tmp_path):
    """Three images, one without objects."""
    root = tmp_path / 'dota'
    for name in ('images', 'labelTxt'):
        (root / name).mkdir(parents=True)
    for seed, name in enumerate(('a', 'b c', 'empty')):
        cv2.imwrite(str(root / 'images' / f'{name}.png'), image(seed))
        text = lines(seed=seed) if name != 'empty' else []
        (root / 'labelTxt' / f'{name}.txt').write_bytes(('\ufeff' + '\r\n'.join(text)).encode())
    return root


def only_image(root: Path, data: np.ndarray | bytes, name: str) -> Path:
    (root / 'i').mkdir(parents=True)
    file = root / 'i' / name
    if isinstance(data, bytes):
        file.write_bytes(data)
    else:
        cv2.imwrite(str(file), data)
    return file


def check_pixels_of(file: Path, folder: Path, *, side: int = 64) -> int:
    """Compare each patch with the same window of the whole image, both by the package's own reader."""
    read = LoadImageFromFile(color_type='unchanged')
    whole = read.stored(str(file))
    patches = sorted(folder.glob('*'))
    for patch in patches:
        where = parse_patch(patch.stem, blanks=True)
        part = whole[where.y : where.y + side, where.x : where.x + side]
        got = read.stored(str(patch))
        assert got.dtype == whole.dtype and got.shape[:2] == (side, side)
        np.testing.assert_array_equal(got[: part.shape[0], : part.shape[1]], part)
        assert not got[part.shape[0] :].any() and not got[:, part.shape[1] :].any()
    return len(patches)


def test_patches_have_the_pixels_and_labels_of_their_place(dota, tmp_path):
    seen = []
    done = split_dataset(dota, tmp_path / 'out', progress=lambda *told: seen.append(told), **OPTIONS)
    assert (done.format, done.to, done.images, done.patches, done.continued) == ('dota', 'dota', 3, 27, 0)
    assert sum(done.before.values()) == 24 == sum(done.whole.values()) and not done.lost and done.partial > 3
    assert seen[-1] == ('written', 27, 27) and ('read', 3, 0) in seen
    before = {sample.image.stem: sample for sample in read_source(dota).samples}
    after = read_source(tmp_path / 'out')
    assert sum(len(sample.objects) for sample in after.samples) == sum(done.after.values())
    assert sum(not sample.objects for sample in after.samples) == done.empty >= 9
    found = {name: set() for name in before}
    for sample in after.samples:
        where = parse_patch(sample.image.stem, blanks=True)
        of = before[where.image].objects
        for one in sample.objects:
            moved = np.add(one.polygon, (where.x, where.y) * 4)
            near = [i for i, other in enumerate(of) if np.abs(moved - other.polygon).max() < 1e-5]
            assert len(near) == 1 and of[near[0]].name == one.name
            inside = min(one.polygon) >= 0 and max(one.polygon) <= 64
            assert one.difficulty == (of[near[0]].difficulty or (0 if inside else 2))
            found[where.image].add(near[0])
    assert {name: len(places) for name, places in found.items()} == {'a': 12, 'b c': 12, 'empty': 0}


def test_objects_that_no_patch_has_are_counted(dota, tmp_path):
    (dota / 'labelTxt/empty.txt').write_text('2 50 148 50 148 60 2 60 ship 0\n')
    done = split_dataset(dota, tmp_path / 'out', **OPTIONS)
    assert dict(done.lost) == {'ship': 1} and 'objects are in no patch' in done.notes[-1]
    assert not split_dataset(dota, tmp_path / 'o2', iof_thr=0.3, **OPTIONS).lost


@pytest.mark.parametrize('name', NAMES)
def test_names_survive(tmp_path, name):
    file = only_image(tmp_path / 'd', image(), f'{name}.PNG')
    done = split_dataset(tmp_path / 'd', tmp_path / 'out', from_format='images', **OPTIONS)
    assert (done.format, done.patches) == ('images', 9) and check_pixels_of(file, tmp_path / 'out/images') == 9
    stems = {parse_patch(patch.stem, blanks=True).image for patch in (tmp_path / 'out/images').iterdir()}
    assert {unicodedata.normalize('NFC', stem) for stem in stems} == {unicodedata.normalize('NFC', name)}
    assert not (tmp_path / 'out/labelTxt').exists()


def tiff(data: np.ndarray, **options) -> bytes:
    import io

    buffer = io.BytesIO()
    tifffile.imwrite(buffer, data, **options)
    return buffer.getvalue()


MINIS = dict(photometric='minisblack')
KINDS = {
    'rgb.png': lambda: image(),
    'grey.png': lambda: image(channels=1),
    'alpha.png': lambda: image(channels=4),
    'grey16.png': lambda: image(channels=1, dtype=np.uint16),
    'rgb16.png': lambda: image(dtype=np.uint16),
    'rgb.bmp': lambda: image(),
    'rgb.jpg': lambda: image(),
    'rgb.tif': lambda: tiff(image(), photometric='rgb'),
    'rgb16.TIF': lambda: tiff(image(dtype=np.uint16), photometric='rgb'),
    'five.tif': lambda: tiff(image(channels=5), **MINIS, planarconfig='contig'),
    'five16.tif': lambda: tiff(image(channels=5, dtype=np.uint16), **MINIS, planarconfig='contig', compression='zlib'),
    'planes.tif': lambda: tiff(np.moveaxis(image(channels=4), -1, 0), **MINIS, planarconfig='separate'),
    'pages.tif': lambda: tiff(np.moveaxis(image(channels=6), -1, 0).copy(), **MINIS),
    'tiles.tif': lambda: tiff(image(), photometric='rgb', tile=(32, 48), compression='zlib'),
    'float.tif': lambda: tiff(image().astype(np.float32)[..., 0], **MINIS),
    'signed.tif': lambda: tiff(image(channels=1, dtype=np.uint16).view(np.int16), **MINIS),
    'big-endian.tif': lambda: tiff(image(channels=1, dtype=np.uint16), **MINIS, byteorder='>'),
    'white.tif': lambda: tiff(image(channels=1), photometric='miniswhite'),
    'turned.tif': lambda: tiff(image(), photometric='rgb', extratags=[(274, 'H', 1, 6, True)]),
}
IN_PARTS = {'rgb.png', 'grey.png', 'alpha.png', 'grey16.png', 'rgb16.png'} | {
    name for name in KINDS if name.lower().endswith('.tif') and name.split('.')[0] not in ('pages', 'white', 'turned')
}
MAPPED = {name for name in IN_PARTS if '.t' in name.lower() and name not in ('five16.tif', 'tiles.tif')}


@pytest.mark.parametrize('library', ['rasterio', None])
@pytest.mark.parametrize('name', KINDS)
def test_images_of_every_kind_keep_their_pixels(tmp_path, monkeypatch, name, library):
    hows = set()
    read = window_reader.WindowReader.read

    def spy(self, *window):
        found = read(self, *window)
        hows.add(self.how)
        return found

    monkeypatch.setattr(window_reader.WindowReader, 'read', spy)
    if library is not None:
        pytest.importorskip(library)
    else:
        monkeypatch.setitem(sys.modules, 'rasterio', None)
    file = only_image(tmp_path / 'd', KINDS[name](), name)
    done = split_dataset(tmp_path / 'd', tmp_path / 'out', from_format='images', **OPTIONS)
    assert check_pixels_of(file, tmp_path / 'out/images') == done.patches >= 9
    expected = 'rasterio' if library and name in IN_PARTS else 'tifffile' if name in MAPPED else 'whole'
    assert hows == {expected}
    ending = '.tif' if name.lower().endswith('.tif') else '.png'
    assert {patch.suffix for patch in (tmp_path / 'out/images').iterdir()} == {ending}


def test_patches_of_a_geotiff_keep_their_place_on_the_ground(tmp_path):
    rasterio = pytest.importorskip('rasterio')
    from rasterio.transform import from_origin

    (tmp_path / 'd').mkdir()
    data = np.moveaxis(image(channels=5, dtype=np.uint16), -1, 0) >> 4
    facts = dict(crs='EPSG:32633', transform=from_origin(400000, 5000000, 0.5, 0.5), nodata=0, nbits=12)
    with rasterio.open(
        tmp_path / 'd/geo.tif', 'w', driver='GTiff', width=WIDTH, height=HEIGHT, count=5, dtype='uint16', **facts
    ) as target:
        target.write(data)
    split_dataset(tmp_path / 'd', tmp_path / 'out', from_format='images', padding=False, **OPTIONS)
    with rasterio.open(tmp_path / 'out/images/geo__64__86___44.tif') as patch:
        assert patch.crs.to_epsg() == 32633 and patch.nodata == 0
        assert patch.tags(1, ns='IMAGE_STRUCTURE')['NBITS'] == '12'
        assert (patch.transform.c, patch.transform.f) == (400043, 4999978)
        np.testing.assert_array_equal(patch.read(), data[:, 44:108, 86:150])


def test_no_padding_its_value_and_its_faults(tmp_path):
    options = dict(sizes=(128,), gaps=(20,), from_format='images')
    source = tmp_path / 'd'
    only_image(source, image(), 'a.png')
    split_dataset(source, tmp_path / 'o1', padding=False, **options)
    sizes = sorted(cv2.imread(str(file)).shape for file in (tmp_path / 'o1/images').iterdir())
    assert sizes == [(110, 128, 3)] * 2
    split_dataset(source, tmp_path / 'o2', padding_value=(1, 2, 3), **options)
    patch = cv2.imread(str(tmp_path / 'o2/images/a__128__22___0.png'))
    assert (patch[110:] == (3, 2, 1)).all()  # given as the file has the channels, red first
    for value, message in (((1, 2), 'has 2 numbers'), ((300,), 'does not fit'), ((0.5,), 'does not fit')):
        with pytest.raises(UsageError, match=message):
            split_dataset(source, tmp_path / 'o3', padding_value=value, **options)
        shutil.rmtree(tmp_path / 'o3', ignore_errors=True)


@pytest.mark.parametrize('to', ['yolo-obb', 'coco', 'rolabelimg', 'labelme'])
def test_each_format_gives_the_same_patches(dota, tmp_path, to):
    convert_dataset(dota, tmp_path / 'source', to)
    done = split_dataset(tmp_path / 'source', tmp_path / 'out', **OPTIONS)
    expected = split_dataset(dota, tmp_path / 'expected', **OPTIONS)
    assert done.format == done.to == to and done.after == expected.after and done.patches == expected.patches
    # polygons of a box that lies partly outside come back too
    found = {s.image.stem: s.objects for s in read_source(tmp_path / 'out', to).samples}
    for sample in read_source(tmp_path / 'expected').samples:
        mine = found.get(sample.image.stem, [])
        assert [one.name for one in mine] == [one.name for one in sample.objects]
        for one, other in zip(mine, sample.objects, strict=True):
            np.testing.assert_allclose(sorted(one.polygon), sorted(other.polygon), atol=2e-3)
            assert to in ('yolo-obb',) or bool(one.difficulty) == bool(other.difficulty)
    assert split_dataset(dota, tmp_path / 'as', to=to, **OPTIONS).to == to


def test_splits_stay_apart(dota, tmp_path):
    for name in ('train', 'val'):
        shutil.copytree(dota, tmp_path / 'two' / name)
    done = split_dataset(tmp_path / 'two', tmp_path / 'out', **OPTIONS)
    assert done.splits == {'train': 27, 'val': 27} and len(list((tmp_path / 'out/val/images').iterdir())) == 27


def test_the_patches_train(dota, tmp_path):
    split_dataset(dota, tmp_path / 'out', **OPTIONS)
    data = DOTADataset(
        data_root=str(tmp_path / 'out'), ann_file='labelTxt', data_prefix={'img_path': 'images'},
        metainfo={'classes': ('ship', 'small plane')},
    )  # fmt: skip
    assert len(data) == 27


def test_an_interrupted_call_continues(dota, tmp_path):
    out = tmp_path / 'out'

    def stop(what, count, _total):
        if (what, count) == ('written', 10):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        split_dataset(dota, out, progress=stop, **OPTIONS)
    there = set((out / 'images').iterdir())
    assert 10 <= len(there) < 27 and not [file for file in out.rglob('.*') if file.name != '.split-dataset.json']
    kept = {file: file.stat().st_mtime_ns for file in there}
    done = split_dataset(dota, out, **OPTIONS)
    assert done.continued == len(there) and all(file.stat().st_mtime_ns == kept[file] for file in there)
    whole = split_dataset(dota, tmp_path / 'o2', **OPTIONS)
    for file in (tmp_path / 'o2').rglob('*.*'):
        if file.is_file() and file.name != '.split-dataset.json':
            assert file.read_bytes() == (out / file.relative_to(tmp_path / 'o2')).read_bytes()
    assert whole.after == done.after
    os.utime(dota / 'images/a.png')  # changed since: its patches are cut again
    assert split_dataset(dota, out, **OPTIONS).continued == 18
    with pytest.raises(UsageError, match='holds patches of'):
        split_dataset(dota, out, sizes=(64,), gaps=(10,))


def test_threads_and_memory_change_nothing(dota, tmp_path, monkeypatch):
    monkeypatch.setattr(cutting, 'BUDGET', 1)  # one image at a time
    for nproc in (1, 3):
        split_dataset(dota, tmp_path / str(nproc), sizes=(64,), gaps=(20,), nproc=nproc)
    for file in (tmp_path / '1/labelTxt').iterdir():
        assert file.read_bytes() == (tmp_path / '3/labelTxt' / file.name).read_bytes()
    assert len(list((tmp_path / '3/images').iterdir())) == 27


def test_a_broken_image_is_left_out_with_all_its_patches(dota, tmp_path):
    data = bytearray((dota / 'images/a.png').read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)  # header and end are whole
    (dota / 'images/a.png').write_bytes(data)
    done = split_dataset(dota, tmp_path / 'out', to='coco', **OPTIONS)
    assert done.images == 2 and '1 images were left out' in done.notes[-1]
    names = {entry['file_name'] for entry in json.loads(
        (tmp_path / 'out/annotations/instances.json').read_text()
    )['images']}  # fmt: skip
    files = {file.name for file in (tmp_path / 'out/images').iterdir()}
    assert names == files and not any(name.startswith('a__') for name in names)
    with pytest.raises(BrokenFileError, match='cannot be decoded'):
        split_dataset(dota, tmp_path / 'o2', strict=True, **OPTIONS)


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(sizes=()), 'must be one number, or one for each'),
        (dict(sizes=(64, 128), gaps=(1, 2, 3)), 'must be one number, or one for each'),
        (dict(sizes=(64,), gaps=(64,)), 'below sizes'),
        (dict(sizes=(64,), gaps=(-1,)), '0 or more'),
        (dict(sizes=(16,), gaps=(0,)), 'must have 32 or more'),
        (dict(sizes=(64,), gaps=(8,), rates=(4,)), 'gives patches of 16 pixels'),
        (dict(rates=(0,)), 'rates='),
        (dict(rates=(float('nan'),)), 'rates='),
        (dict(img_rate_thr=1.5), 'img_rate_thr=1.5'),
        (dict(iof_thr=0), 'iof_thr=0'),
        (dict(nproc=0), 'nproc=0'),
        (dict(to='voc'), "to='voc'"),
        (dict(to='hrsc'), 'can only be read'),
        (dict(save_ext='gif'), "save_ext='gif'"),
        (dict(angle='cw-degrees'), "is for COCO's JSON"),
        (dict(from_format='images', angle='cw-degrees'), 'reads no labels'),
    ],
)
def test_wrong_arguments(dota, tmp_path, options, message):
    with pytest.raises((UsageError, ValueError), match=message):
        split_dataset(dota, tmp_path / 'out', **options)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('save_ext, name, fits', [
    ('.JPG', 'rgb.png', True), ('bmp', 'grey.png', True), ('tif', 'rgb16.png', True), ('png', 'rgb16.TIF', True),
    ('jpg', 'rgb16.png', False), ('jpg', 'alpha.png', False), ('png', 'five.tif', False), ('png', 'float.tif', False),
])  # fmt: skip
def test_an_ending_that_cannot_hold_an_image_is_refused_first(tmp_path, save_ext, name, fits):
    file = only_image(tmp_path / 'd', KINDS[name](), name)
    options = dict(from_format='images', save_ext=save_ext, **OPTIONS)
    if not fits:
        with pytest.raises(UsageError, match='cannot hold'):
            split_dataset(tmp_path / 'd', tmp_path / 'out', **options)
        assert not (tmp_path / 'out').exists()
        return
    assert split_dataset(tmp_path / 'd', tmp_path / 'out', **options).patches == 9
    if 'jpg' not in save_ext.lower():
        assert check_pixels_of(file, tmp_path / 'out/images') == 9


def test_folders_that_cannot_be_used(dota, tmp_path):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(UsageError, match='no image below'):
        split_dataset(tmp_path / 'empty', tmp_path / 'o', from_format='images')
    with pytest.raises(UsageError, match='must be a folder of images'):
        split_dataset(dota / 'images/a.png', tmp_path / 'o', from_format='images')
    only_image(tmp_path / 'd', b'', 'a.png')
    with pytest.raises(UsageError, match='none of 1 images'):
        split_dataset(tmp_path / 'd', tmp_path / 'o', from_format='images')
    with pytest.raises(UsageError, match='lie in each other'):
        split_dataset(dota, dota / 'out')
    (tmp_path / 'file').write_text('')
    with pytest.raises(UsageError, match='is a file'):
        split_dataset(dota, tmp_path / 'file')
    with pytest.raises(UsageError, match='could not be written'):
        split_dataset(dota, '/proc/patches')


def test_a_full_disk_ends_it_in_one_line(dota, tmp_path, monkeypatch):
    def full(path, _data):
        raise OSError(28, 'No space left on device', str(path))

    monkeypatch.setattr(cutting, 'write_whole', full)
    with pytest.raises(UsageError, match='could not be written: No space left'):
        split_dataset(dota, tmp_path / 'out', **OPTIONS)
