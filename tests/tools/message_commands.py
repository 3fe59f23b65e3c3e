"""Triggers of the messages of `browse-dataset`, `split-dataset`, `merge-predictions`, `report`, `predict` and `init`.

Each takes an empty folder, and runs through `run_command.run`, as the command of a tool does.
"""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config

from mmrotate_plugin.apis.own_data import init_config
from mmrotate_plugin.apis.prediction_sources import find_sources
from mmrotate_plugin.apis.test_time_augmentation import set_augmented_pipeline
from mmrotate_plugin.commands.predict import tell_end
from mmrotate_plugin.commands.report import report as make_report
from mmrotate_plugin.datasets.formats.readers import read_source
from mmrotate_plugin.datasets.patches.split import split_dataset
from mmrotate_plugin.evaluation import merge_predictions

SHIP = '5 5 35 5 35 20 5 20 ship 0'
YOLO = '0 .1 .1 .5 .1 .5 .2 .1 .2'
HRSC = (
    '<HRSC_Image><HRSC_Objects><HRSC_Object><Class_ID>100000002</Class_ID><mbox_cx>30</mbox_cx><mbox_cy>20</mbox_cy>'
    '<mbox_w>20</mbox_w><mbox_h>8</mbox_h><mbox_ang>0.3</mbox_ang></HRSC_Object></HRSC_Objects></HRSC_Image>'
)


def put(folder: Path, **files: str) -> Path:
    """Write files, of which `__` parts folders; images have no text."""
    for name, text in files.items():
        file = folder / '/'.join(name.split('__'))
        file.parent.mkdir(parents=True, exist_ok=True)
        if text:
            file.with_suffix('.xml' if text.startswith('<') else '.txt').write_text(text)
        else:
            cv2.imwrite(str(file.with_suffix('.png')), np.full((40, 60, 3), 90, np.uint8))
    return folder


def labelled(folder: Path) -> Path:
    return put(folder, images__a='', labels__a=SHIP)


def yolo(folder: Path) -> Path:
    put(folder, set__images__a='', set__labels__a=YOLO)
    (folder / 'set/data.yaml').write_text('train: images\nnames: [ship]\n')
    return folder / 'set/labels'


def merged(folder: Path, text: str, **more: str) -> Any:
    put(folder, found__dota__a__1__0=text, **more)
    (folder / 'found/dota/a/1/0.txt').rename(folder / 'found/dota/a__1__0___0.txt')
    return merge_predictions(folder / 'found', folder / 'out.json')


def interrupted(folder: Path) -> Any:
    put(folder, found__dota__a=SHIP)
    (folder / 'found/.predict.jsonl').write_text('{}')
    return merge_predictions(folder / 'found', folder / 'out.json')


def horizontal(_: Path) -> Any:
    from mmdet.models import DetTTAModel

    view = dict(ori_shape=(9, 9), flip=True, flip_direction='horizontal')
    return DetTTAModel.__new__(DetTTAModel).merge_aug_bboxes([torch.zeros(1, 5)], [torch.zeros(1)], [view])


def existing(folder: Path) -> Any:
    (folder / 'a.py').write_text('')
    return init_config(folder, folder / 'a.py')


def nothing_read(folder: Path) -> Any:
    saved = SimpleNamespace(total=1, done=0, others=[], failed={'a.png': 'a.png is broken'})
    return tell_end(saved, SimpleNamespace(image=[str(folder)]))


def nothing_to_report(folder: Path) -> Any:
    return make_report(SimpleNamespace(source=folder, measured=[], out=None))


REFUSED: dict[str, Callable[[Path], Any]] = {
    'holds no images itself, but': lambda folder: find_sources(labelled(folder)),
    'which holds both': lambda folder: read_source(labelled(folder) / 'images'),
    'is one: give that file or its folder': lambda folder: read_source(yolo(folder)),
    'could be read as an image': nothing_read,
    'with a pipeline to make the views from': lambda _: set_augmented_pipeline(Config(dict(model={}))),
    'brings back horizontal boxes only': horizontal,
    'holds labels, not detections': lambda folder: merged(folder, SHIP),
    'predict was interrupted, and the same command continues it': interrupted,
    'has neither scalars of a training': nothing_to_report,
    'gives patches of': lambda folder: split_dataset(labelled(folder), folder / 'out', sizes=[20], gaps=[5]),
    'exists already; give another --out, or --force to replace it': existing,
    'there is no list of its images': lambda folder: init_config(
        put(folder / 'd', AllImages__a='', Annotations__a=HRSC), folder / 'a.py'
    ),
    'so add empty label files for images without objects': lambda folder: init_config(
        put(labelled(folder / 'd'), images__b=''), folder / 'a.py'
    ),
}
