"""Triggers of messages about data and images, for `test_every_message.py`; see `message_runs.py`."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config

from mmrotate_plugin.apis.runner import build_loop
from mmrotate_plugin.datasets import (
    DOTADataset,
    HRSCDataset,
    LoadImageFromFile,
    RotatedCocoDataset,
    YOLOOBBDataset,
    convert_dataset,
)

IMAGE = np.full((40, 60, 3), 90, np.uint8)
SHIP = '10 10 30 10 30 20 10 20 ship 0'
BOAT = SHIP.replace('ship', 'boat')


def labels(folder: Path, *lines: str, images: tuple[str, ...] = ('a.png',), classes=('ship',), **options: Any) -> Any:
    for name in ('i', 'l'):
        (folder / name).mkdir(exist_ok=True)
    for name in images:
        cv2.imwrite(str(folder / 'i' / name), IMAGE)
    (folder / 'l/a.txt').write_text('\n'.join(lines))
    metainfo = {'classes': classes} if classes else None
    return DOTADataset(
        data_root=str(folder), ann_file='l', data_prefix={'img_path': 'i'}, metainfo=metainfo, serialize_data=False,
        **options,
    )  # fmt: skip


def json_labels(folder: Path) -> None:
    (folder / 'l').mkdir()
    (folder / 'l/a.json').write_text('{"images": []}')
    (folder / 'i').mkdir()
    cv2.imwrite(str(folder / 'i/a.png'), IMAGE)
    DOTADataset(data_root=str(folder), ann_file='l', data_prefix={'img_path': 'i'})


def yolo(folder: Path, line: str, *, names: str = '[ship]', label: str = 'labels/a.txt') -> Any:
    """A data set in YOLO-OBB, of one image."""
    for name in ('images', 'labels'):
        (folder / name).mkdir()
    cv2.imwrite(str(folder / 'images/a.png'), IMAGE)
    (folder / label).write_text(line)
    (folder / 'data.yaml').write_text(f'train: images\nnames: {names}\n')
    return YOLOOBBDataset(data_root=str(folder), ann_file='data.yaml', split='train', serialize_data=False)


def labelled_by(cls: type, folder: Path, name: str, text: str) -> Any:
    """A data set of one image and a file of labels, of another tool."""
    for part in ('i', 'l'):
        (folder / part).mkdir()
    cv2.imwrite(str(folder / 'i/a.png'), IMAGE)
    (folder / 'l' / name).write_text(text)
    place = f'l/{name}' if cls is RotatedCocoDataset else 'l'
    return cls(data_root=str(folder), ann_file=place, data_prefix={'img_path': 'i'}, serialize_data=False)


LABELME = '{"shapes": [{"label": "ship", "points": [[10, 10], [30, 10], [30, 20], [10, 20]]}]}'
FIVE = (
    '{"images": [{"id": 1, "file_name": "a.png"}], "categories": [{"id": 1, "name": "ship"}], '
    '"annotations": [{"image_id": 1, "category_id": 1, "bbox": [30, 20, 20, 10, 1]}]}'
)


def convert(folder: Path, files: dict[str, str], image: str = 'a.png', *, again: bool = False) -> Any:
    """Convert a folder with an image and some files; `again` with other arguments."""
    (folder / 's').mkdir()
    cv2.imwrite(str(folder / 's' / image), IMAGE)
    for name, text in files.items():
        (folder / 's' / name).write_text(text)
    done = convert_dataset(folder / 's', folder / 'o', 'coco')
    return convert_dataset(folder / 's', folder / 'o', 'labelme') if again else done


def lone_image(folder: Path) -> None:
    labels(folder, SHIP)
    (folder / 'l/b.txt').write_text(SHIP)
    labels(folder, SHIP)


def resized_images(folder: Path) -> None:
    (folder / 'l').mkdir()
    cv2.imwrite(str(folder / 'a.bmp'), IMAGE)
    (folder / 'list.txt').write_text('a')
    ship = ''.join(f'<mbox_{key}>{value}</mbox_{key}>' for key, value in dict(cx=30, cy=20, w=20, h=8, ang=0.3).items())
    size = '<Img_SizeWidth>99</Img_SizeWidth><Img_SizeHeight>99</Img_SizeHeight>'
    objects = f'<HRSC_Objects><HRSC_Object>{ship}</HRSC_Object></HRSC_Objects>'
    (folder / 'l/a.xml').write_text(f'<HRSC_Image>{size}{objects}</HRSC_Image>')
    HRSCDataset(
        data_root=f'{folder}/',
        ann_file='list.txt',
        ann_subdir='l/',
        img_subdir='',
        serialize_data=False,
        data_prefix=dict(sub_data_root=''),
    )


def image_file(folder: Path, image: Any, name: str = 'a.png') -> str:
    cv2.imwrite(str(folder / name), image)
    return str(folder / name)


def tiff(folder: Path, image: Any, name: str = 'a.tif', **options: Any) -> str:
    import tifffile

    tifffile.imwrite(folder / name, image, photometric='minisblack', planarconfig='contig', **options)
    return str(folder / name)


def load(path: str, **options: Any) -> Any:
    return LoadImageFromFile(**options).transform({'img_path': path})


def images_of(folder: Path, suffix: Any, **options: Any) -> Any:
    step = dict(type='mmcv.LoadImageFromFile', **options)
    return DOTADataset(
        data_root=str(folder), data_prefix={'img_path': ''}, img_suffix=suffix, pipeline=[step], serialize_data=False
    )


def other_counts(folder: Path) -> None:
    image_file(folder, IMAGE)
    image_file(folder, IMAGE[..., 0], 'b.png')
    images_of(folder, 'png', color_type='unchanged')


def unknown_compression(folder: Path) -> None:
    from mmrotate_plugin.datasets.utils import image_headers

    path = tiff(folder, np.zeros((20, 30, 6), np.uint8))
    with Path(path).open('rb') as file:
        kind = image_headers.read_header(file).kind

    class Broken:
        def __init__(self, *_: Any) -> None:
            raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    import tifffile

    own, tifffile.TiffFile = tifffile.TiffFile, Broken
    try:
        image_headers.read_tiff(b'II*\0', kind, path)
    finally:
        tifffile.TiffFile = own


def network(channels: int = 3, mean: float = 100.0) -> Any:
    preprocessor = SimpleNamespace(_enable_normalize=True, mean=torch.tensor([mean]), std=torch.tensor([50.0]))
    return SimpleNamespace(
        backbone=SimpleNamespace(conv1=torch.nn.Conv2d(channels, 4, 1)), data_preprocessor=preprocessor
    )


def check_image(image: Any, **options: Any) -> None:
    from mmrotate_plugin.engine.checks.input_images import check_image as check

    check(network(**options), image, "'a.png'")


def bands(count: int) -> Any:
    return np.zeros((20, 30, count), np.uint8)


def empty_image(folder: Path) -> None:
    labels(folder, SHIP)
    (folder / 'i/a.png').write_bytes(b'')
    labels(folder, SHIP, images=(), strict=True)


def outside(folder: Path) -> None:
    data = labels(folder, SHIP)
    data.data_list[0]['img_path'] = str(folder.parent / 'b.png')
    loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=data))
    cfg = Config(dict(train_dataloader=dict(dataset=dict(type='DOTADataset'))))
    build_loop(SimpleNamespace(cfg=cfg, train_loop=loop, model=network()), 'train')


def no_images(_: Path) -> None:
    loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=[]))
    cfg = Config(dict(train_dataloader=dict(dataset=dict(type='DOTADataset'))))
    build_loop(SimpleNamespace(cfg=cfg, train_loop=loop, model=network()), 'train')
