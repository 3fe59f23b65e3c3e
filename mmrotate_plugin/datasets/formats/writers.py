"""Say where each format has its files, what is in them, and what it cannot hold."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from . import coco, labelme, rolabelimg, yolo_obb
from .data_yaml import yaml_text
from .sample import Sample, number

Splits = Mapping[str, Sequence[tuple[Sample, str]]]  # samples with the name of their image file, by split


@dataclass(frozen=True)
class Writer:
    """A format that can be written.

    Args:
        images: Folder of the images of a split.
        labels: Folder of the label files of a split, and their suffix; None if there is no file for each image.
        text: Writes the label file of an image, given the classes and the path of the image from that file.
        further: Writes further files, by their paths.
        default: Name of the split if the data have only one without a name.
    """

    images: Callable[[str], str]
    labels: Callable[[str], tuple[str, str]] | None
    text: Callable[[Sample, Sequence[str], str], str] | None
    further: Callable[[Splits, Sequence[str]], dict[str, str]]
    default: str = ''


def below(split: str, *folders: str) -> str:
    """Join the folder of a split, if it has a name, with folders in it."""
    return str(PurePosixPath(split, *folders))


def losses(kind: str, samples: Sequence[Sample]) -> list[str]:
    """Say in one line each what a format cannot hold, with counts."""
    lost = []
    objects = [one for sample in samples for one in sample.objects]
    difficult = sum(one.difficulty != 0 for one in objects)
    if kind == 'yolo-obb' and difficult:
        lost.append(f'YOLO-OBB has no difficult objects: {difficult} of {len(objects)} objects are ordinary ones now')
    if kind == 'rolabelimg':
        shifts = [shift for sample in samples for shift in rolabelimg.shift_of(sample)]
        if shifts:
            lost.append(
                f'roLabelImg has rectangles alone: {len(shifts)} of {len(objects)} shapes became the smallest '
                f'rectangle around them, whose corners are up to {max(shifts):.3g} pixels away'
            )
    return lost


def dota_text(sample: Sample) -> str:
    """Write the label file of an image in DOTA's format."""
    return ''.join(f'{" ".join(map(number, one.polygon))} {one.name} {one.difficulty}\n' for one in sample.objects)


def _class_list(_: Splits, classes: Sequence[str]) -> dict[str, str]:
    return {'classes.txt': ''.join(f'{name}\n' for name in classes)}


def _data_yaml(splits: Splits, classes: Sequence[str]) -> dict[str, str]:
    folders = {split: f'images/{split}' for split in splits}
    whole = {'train': next(iter(folders.values())), **folders} if 'train' not in folders else folders
    whole = {'val': whole['train'], **whole} if 'val' not in whole else whole
    order = ['train', 'val', *(split for split in whole if split not in ('train', 'val'))]
    return {'data.yaml': yaml_text({split: whole[split] for split in order}, classes)}


def _coco_files(splits: Splits, classes: Sequence[str]) -> dict[str, str]:
    return {
        f'annotations/{split or "instances"}.json': coco.file_text(
            [(sample, below(split, name)) for sample, name in samples], classes
        )
        for split, samples in splits.items()
    }


WRITERS = {
    'dota': Writer(
        images=lambda split: below(split, 'images'),
        labels=lambda split: (below(split, 'labelTxt'), '.txt'),
        text=lambda sample, _classes, _image: dota_text(sample),
        further=_class_list,
    ),
    'yolo-obb': Writer(
        images=lambda split: below('images', split),
        labels=lambda split: (below('labels', split), '.txt'),
        text=lambda sample, classes, _image: yolo_obb.label_text(sample, classes),
        further=_data_yaml,
        default='train',
    ),
    'coco': Writer(images=lambda split: below('images', split), labels=None, text=None, further=_coco_files),
    'rolabelimg': Writer(
        images=lambda split: below(split, 'images'),
        labels=lambda split: (below(split, 'annotations'), '.xml'),
        text=lambda sample, _classes, image: rolabelimg.label_text(sample, PurePosixPath(image).name),
        further=lambda _splits, _classes: {},
    ),
    'labelme': Writer(
        images=lambda split: below(split),
        labels=lambda split: (below(split), '.json'),
        text=lambda sample, _classes, image: labelme.label_text(sample, image),
        further=lambda _splits, _classes: {},
    ),
}
