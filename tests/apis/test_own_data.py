"""init: a folder becomes a config that trains; what it chooses, and the folders that it refuses."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from mmrotate_plugin.apis.config import load_config
from mmrotate_plugin.apis.own_data import init_config
from mmrotate_plugin.apis.own_data.choices import choose
from mmrotate_plugin.apis.own_data.images import choose_loading
from mmrotate_plugin.apis.own_data.layout import Layout
from mmrotate_plugin.datasets.dota_format import Annotation
from mmrotate_plugin.datasets.formats.sample import Sample
from mmrotate_plugin.utils.errors import InputError
from mmrotate_plugin_cli.main import main

GB = 2**30


def dota(root, names=('a b.png', 'ü.JPG', 'c.png', 'd.png', 'e.png', 'f.png'), classes=('ship',), dtype=np.uint8):
    """A flat folder in DOTA's format, images of 60 x 40 pixels."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(names):
        image, label = root / 'images' / name, root / 'labelTxt' / f'{Path(name).stem}.txt'
        for file in (image, label):
            file.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256 if dtype == np.uint8 else 4000, (40, 60, 3)).astype(dtype)
        image.write_bytes(cv2.imencode(image.suffix.lower(), pixels)[1].tobytes())
        kind = classes[number % len(classes)]
        label.write_text(f'5 5 35 5 35 20 5 20 {kind} 0\n' if number else '')
    return root


def sample(side, width, length, count=5, name='ship'):
    polygon = [10.0, 10, 10 + length, 10, 10 + length, 10 + width, 10, 10 + width]
    return Sample(Path('a.png'), '', side, side, [Annotation(polygon, name)] * count)


def test_scale_follows_the_objects():
    large = choose([sample(1000, 200, 400)] * 20, 'cpu', 8 * GB)
    small = choose([sample(1000, 16, 40)] * 20, 'cpu', 8 * GB)
    tiny = choose([sample(10_000, 10, 20)] * 20, 'cpu', 8 * GB)
    assert large.scale == 193 and small.scale == 513 and tiny.scale == 1025
    assert 16 * small.scale / 1000 >= 8 and 16 * (small.scale - 32) / 1000 < 8  # the smallest that keeps 8 pixels
    assert 'patches' in tiny.notes[0] and not any('patches' in note for note in (*large.notes, *small.notes))
    assert all((one.scale - 1) % 32 == 0 for one in (large, small, tiny))
    assert choose([sample(1000, 16, 40)] * 20, 'cuda', 8 * GB).scale == 769  # 12 pixels
    long = choose([sample(1000, 16, 500)] * 20, 'cpu', 8 * GB)
    assert (large.levels, small.levels, long.levels) == (2, 2, 3)


def test_the_batch_follows_the_memory_and_the_epoch_the_number_of_images():
    samples = [sample(1000, 16, 40)] * 20
    batches = [choose(samples, 'cpu', memory).batch for memory in (GB // 4, GB, 64 * GB)]
    assert batches == sorted(batches) and batches[0] == 1 and batches[-1] == 8
    samples = [sample(100, 16, 40)] * 20
    for memory in (GB // 16, GB // 4, 64 * GB):
        found = choose(samples, 'cpu', memory)
        batch = found.batch
        assert found.times * len(samples) >= 50 * batch > (found.times - 1) * len(samples)


def test_an_epoch_of_few_large_images_takes_a_minute_of_a_processor():
    few, many = [sample(1000, 12, 40)] * 4, [sample(1000, 12, 40)] * 1200
    found = choose(few, 'cpu', 64 * GB)
    shown = found.times * len(few) * found.scale**2
    assert 30e6 - len(few) * found.scale**2 < shown <= 30e6
    assert choose(few, 'cuda', 64 * GB).times == 50  # 100 iterations of batches of 2
    assert choose(many, 'cpu', 64 * GB).times == 1 and 'hours of a processor' in choose(many, 'cpu', GB).why['epochs']


def test_the_batch_is_at_most_half_of_the_images():
    samples = [sample(1000, 16, 40)] * 20
    assert choose(samples[:2], 'cpu', 64 * GB).batch == 1
    assert choose([sample(1000, 16, 40, count=130)], 'cpu', GB).most == 300


@pytest.mark.slow
def test_a_flat_folder_is_divided_and_the_config_trains(tmp_path, monkeypatch, capsys):
    pytest.importorskip('mmrotate')
    monkeypatch.chdir(tmp_path)
    folder = dota(tmp_path / 'meine daten.v1')
    assert main(['init', str(folder), '--device', 'cpu']) == 0
    assert 'next: mmrotate-plugin train meine_daten_v1.py' in capsys.readouterr().out
    cfg = load_config('meine_daten_v1.py')
    assert tuple(cfg.classes) == ('ship',) and cfg.model.bbox_head.num_classes == 1
    assert cfg.train_dataloader.dataset.dataset.indices == 5 and cfg.val_dataloader.dataset.indices == -1
    assert not [file for file in tmp_path.iterdir() if file.name.startswith('.')]
    shorter = ['train_cfg.max_epochs=1', 'train_dataloader.dataset.times=1', 'train_dataloader.num_workers=0']
    shorter += ['train_dataloader.persistent_workers=False', 'val_dataloader.num_workers=0']
    shorter += ['val_dataloader.persistent_workers=False']
    words = ['--work-dir', 'w', '--pictures', '0', '--no-report', '--cfg-options', *shorter]
    assert main(['train', 'meine_daten_v1.py', *words]) == 0
    assert (tmp_path / 'w/epoch_1.pth').is_file()
    assert main(['init', str(folder)]) == 2
    assert "'meine_daten_v1.py' exists already" in capsys.readouterr().err


def test_the_parts_share_no_image_and_miss_no_class(tmp_path):
    names = [f'{i}.png' for i in range(20)]
    found = init_config(dota(tmp_path / 'd', names, ('car', *['ship'] * 9)), tmp_path / 'c.py', device='cpu')
    assert (found.train, found.val) == (16, 4)
    sorted_by_class = dota(tmp_path / 'e', names, (*['ship'] * 15, *['car'] * 5))
    init_config(sorted_by_class, tmp_path / 'e.py', device='cpu')
    cfg = load_config(str(tmp_path / 'e.py'))
    train, val = cfg.train_parts[0].indices, cfg.val_parts[0].indices
    assert sorted([*train, *val]) == list(range(20)) and len(val) == 4
    assert 'drawn by chance' in (tmp_path / 'e.py').read_text()


def test_yolo_with_its_parts(tmp_path):
    root = tmp_path / 'y'
    for split in ('train', 'val'):
        for name in 'ab':
            for folder in ('images', 'labels'):
                (root / folder / split).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / 'images' / split / f'{name}.webp'), np.zeros((40, 60, 3), np.uint8) + ord(name))
            (root / 'labels' / split / f'{name}.txt').write_text('1 .1 .1 .5 .1 .5 .4 .1 .4\n')
    (root / 'data.yaml').write_text('train: images/train\nval: images/val\nnames: [plane, "it\'s a ship"]\n')
    found = init_config(root, tmp_path / 'c.py', device='cpu')
    assert found.classes == ('plane', "it's a ship") and (found.train, found.val, found.objects) == (2, 2, 2)
    assert load_config(str(tmp_path / 'c.py')).val_dataloader.dataset.split == 'val'


@pytest.mark.parametrize(('dtype', 'said'), [(np.uint8, "type='LoadImageFromFile'"), (np.uint16, 'bit_depth=12')])
def test_images_of_more_bits(dtype, said, tmp_path):
    folder = dota(tmp_path / 'd', [f'{i}.png' for i in range(5)], dtype=dtype)
    init_config(folder, tmp_path / 'c.py', device='cpu')
    assert said in (tmp_path / 'c.py').read_text()


def test_bands_and_floats(tmp_path):
    tifffile = pytest.importorskip('tifffile')
    rng = np.random.default_rng(0)
    bands = (rng.random((5, 20, 30)) * [[[100]], [[200]], [[50]], [[80]], [[10]]]).astype(np.float32)
    tifffile.imwrite(tmp_path / 'a.tif', bands, photometric='minisblack', planarconfig='separate')
    found = choose_loading([tmp_path / 'a.tif'])
    assert found.bands == len(found.mean) == len(found.std) == 5 and found.step['color_type'] == 'unchanged'
    assert 150 < found.step['white'] <= 200 and found.mean[1] > found.mean[4]
    cv2.imwrite(str(tmp_path / 'b.png'), np.zeros((20, 30, 3), np.uint8))
    with pytest.raises(InputError, match='different numbers of bands'):
        choose_loading([tmp_path / 'a.tif', tmp_path / 'b.png'])


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (lambda root: [file.unlink() for file in root.glob('labelTxt/*')], 'there is no label file'),
        (lambda root: [file.write_text('') for file in root.glob('labelTxt/*')], 'label files are empty'),
        (lambda root: (root / 'labelTxt/c.txt').unlink(), '1 images have no label file (c.png)'),
        (lambda root: (root / 'labelTxt/c.txt').write_text('0 .1 .1 .5 .1 .5 .4 .1 .4\n'), 'mixes formats'),
        (lambda root: (root / 'images').rename(root / 'pictures'), None),
        (lambda root: [file.unlink() for file in root.glob('images/*')], 'have no image of their name'),
    ],
)
def test_folders_of_careless_users(change, said, tmp_path, capsys):
    root = dota(tmp_path / 'd')
    change(root)
    status = main(['init', str(root), '--out', str(tmp_path / 'c.py'), '--device', 'cpu'])
    if said is None:
        assert status == 0
    else:
        (line,) = [text for text in capsys.readouterr().err.splitlines() if text.startswith('error: ')]
        assert status == 2 and said in line and not (tmp_path / 'c.py').exists()
    assert not list(tmp_path.glob('.*'))


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        (['nowhere'], "SOURCE 'nowhere' does not exist"),
        (['{root}', '--out', '{tmp}/c.txt'], 'must be the name of a config that ends with .py'),
        (['{root}', '--out', '/proc/nowhere/c.py'], 'cannot be written'),
    ],
)
def test_wrong_calls_are_one_line(words, said, tmp_path, capsys):
    root = dota(tmp_path / 'd')
    assert main(['init', *(word.format(root=root, tmp=tmp_path) for word in words)]) == 2
    assert said in capsys.readouterr().err


def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def listed(root, kind, lists, image=None):
    """HRSC2016's or DIOR-R's layout, an object in each image of 60 x 40 pixels."""
    for name in dict.fromkeys(name for names in lists.values() for name in names):
        if kind == 'hrsc':
            ship = ''.join(
                f'<mbox_{key}>{value}</mbox_{key}>' for key, value in dict(cx=30, cy=20, w=30, h=9, ang=0.3).items()
            )
            ship = f'<HRSC_Object><Class_ID>1000000{7 if name == "a" else "02":0>2}</Class_ID>{ship}</HRSC_Object>'
            put(
                root / f'FullDataSet/Annotations/{name}.xml',
                f'<HRSC_Image><HRSC_Objects>{ship}</HRSC_Objects></HRSC_Image>',
            )
            file = root / (image or 'FullDataSet/AllImages/{}.bmp').format(name)
        else:
            places = zip(('left_top', 'right_top', 'right_bottom', 'left_bottom'), 'aabb', strict=True)
            box = ''.join(f'<x_{p}>{5 + 20 * i}</x_{p}><y_{p}>{9 if e == "a" else 19}</y_{p}>' for i, (p, e) in
                          zip((0, 1, 1, 0), places, strict=True))  # fmt: skip
            text = f'<annotation><object><name>Airplane</name><robndbox>{box}</robndbox></object></annotation>'
            put(root / f'Annotations/Oriented Bounding Boxes/{name}.xml', text)
            file = root / (image or 'JPEGImages-trainval/{}.jpg').format(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), np.full((40, 60, 3), 90, np.uint8))
    for part, names in lists.items():
        put(root / ('ImageSets' if kind == 'hrsc' else 'ImageSets/Main') / f'{part}.txt', '\n'.join(names))
    return root


@pytest.mark.parametrize('kind', ['hrsc', 'dior'])
def test_folders_with_lists_are_read_by_them(kind, tmp_path):
    pytest.importorskip('mmrotate')
    root = listed(
        tmp_path / 'd', kind, {'train': ['c', 'a', 'b'], 'trainval': ['c', 'a', 'b', 'd'], 'test': ['d', 'e']}
    )
    found = init_config(root, tmp_path / 'c.py', device='cpu')
    assert found.classes == (('ship',) if kind == 'hrsc' else ('airplane',))
    assert (found.train, found.val, found.objects) == (3, 2, 3)
    assert 'ImageSets has train (3 images) and test (2)' in (tmp_path / 'c.py').read_text()
    assert 'img_subdir' not in (tmp_path / 'c.py').read_text()  # the usual one


def test_lists_alone_and_other_folders(tmp_path):
    pytest.importorskip('mmrotate')
    names = ['f', 'a', 'e', 'b', 'd']
    root = listed(tmp_path / 'd', 'hrsc', {'trainval': names}, image='FullDataSet/pictures/{}.PNG')
    found = init_config(root, tmp_path / 'c.py', device='cpu')
    assert (found.train, found.val) == (4, 1)
    cfg = load_config(str(tmp_path / 'c.py'))
    part = cfg.val_dataloader.dataset
    assert (part.ann_file, part.indices, part.img_subdir, part.img_suffix) == (
        'ImageSets/trainval.txt',
        -1,
        'pictures',
        ('png',),
    )
    for name in ('trainval', 'test'):
        (root / f'ImageSets/{name}.txt').unlink(missing_ok=True)
    with pytest.raises(InputError, match='there is no list of its images, such as ImageSets/train.txt'):
        init_config(root, tmp_path / 'e.py', device='cpu')
    put(root / 'ImageSets/test.txt', 'a')
    with pytest.raises(InputError, match='no list of ImageSets is for training: there is test'):
        init_config(root, tmp_path / 'e.py', device='cpu')
    put(root / 'ImageSets/train.txt', 'a\nb')
    (root / 'more').mkdir()
    (root / 'FullDataSet/pictures/b.PNG').rename(root / 'more/b.PNG')
    with pytest.raises(InputError, match='the images of ImageSets/train.txt lie in several folders'):
        init_config(root, tmp_path / 'e.py', device='cpu')
    assert not (tmp_path / 'e.py').exists()


def test_classes_that_training_never_shows_are_told():
    ship, plane, both = sample(100, 9, 20), sample(100, 9, 20, name='plane'), sample(100, 9, 20, name='plane', count=1)
    both.objects.append(ship.objects[0])
    layout = Layout('DOTADataset', Path(), [], [], '', [ship], [plane, both])
    assert 'objects of plane, and training has none: AP will be 0 for 1 of 2 classes' in layout.note()
    for train, val in (([ship, plane], [both]), ([both], [ship, plane]), ([ship], [])):
        assert Layout('DOTADataset', Path(), [], [], '', train, val).note() == ''
