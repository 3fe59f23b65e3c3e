"""Say how a config reads a labelled folder: the data sets of its parts, in the order in which they read images."""

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ...datasets.folder_dataset import SUFFIXES
from ...datasets.formats.coco import CocoFile
from ...datasets.formats.readers import find_yaml
from ...datasets.formats.sample import Sample
from ...datasets.formats.source import Source
from ...utils.errors import UsageError
from ...utils.messages import some
from .listed_layout import LISTED, as_one_class, listed_parts

SHARE = 5  # one image in five validates, if the folder has one part only
TYPES = {
    'dota': 'DOTADataset',
    'yolo-obb': 'YOLOOBBDataset',
    'coco': 'RotatedCocoDataset',
    'rolabelimg': 'RoLabelImgDataset',
    'labelme': 'LabelMeDataset',
    'hrsc': 'HRSCDataset',
    'dior': 'DIORDataset',
}


@dataclass
class Layout:
    """Data sets of a config.

    Attributes:
        type: Name of the class.
        root: Folder that paths are relative to.
        train: Arguments of the data sets for training.
        val: Of those for validation.
        why: How training and validation were told apart.
        train_samples: What the training reads.
        val_samples: What the validation reads.
    """

    type: str
    root: Path
    train: list[dict[str, Any]]
    val: list[dict[str, Any]]
    why: str
    train_samples: list[Sample] = field(default_factory=list)
    val_samples: list[Sample] = field(default_factory=list)

    def note(self) -> str:
        """Say which classes the validation asks for that the training never shows; '' if there are none."""
        shown = {one.name for sample in self.train_samples for one in sample.objects}
        asked = {one.name for sample in self.val_samples for one in sample.objects if one.difficulty == 0}
        missing = sorted(asked - shown)
        if not missing:
            return ''
        return (
            f'validation has objects of {some(missing)}, and training has none: AP will be 0 for {len(missing)} of '
            f'{len(asked)} classes'
        )


def lay_out(source: Source, path: Path) -> Layout:
    """Find the data sets of a source.

    Args:
        source: What was read.
        path: As it was named.

    Raises:
        UsageError: If no config can read it as it lies; the message says what would work.
    """
    if source.format in LISTED:
        return _by_lists(source)
    if source.unlabelled and source.format == 'dota':
        names = some(image.name for image in source.unlabelled)
        raise UsageError(
            f'{source.where}: {len(source.unlabelled)} images have no label file ({names}); training refuses them, so '
            'add empty label files for images without objects, or move these images away'
        )
    splits: dict[str, list[Sample]] = {}
    for sample in source.samples:
        splits.setdefault(sample.split, []).append(sample)
    kind = TYPES[source.format]
    known = {name.lower(): name for name in splits}
    train = next((known[name] for name in ('train', 'training', 'trainval') if name in known), None)
    val = next((known[name] for name in ('val', 'valid', 'validation', 'test') if name in known), None)
    if train is not None and val is not None:
        why = f'the folder has {train} ({len(splits[train])} images) and {val} ({len(splits[val])})'
        return Layout(
            kind, source.root, _of(source, path, train, splits[train]), _of(source, path, val, splits[val]), why,
            splits[train], splits[val],
        )  # fmt: skip
    if len(splits) > 1 and train is None:
        raise UsageError(
            f'{source.where} has the parts {some(splits)}; name them train and val, or give one of these folders'
        )
    name, samples = (train, splits[train]) if train is not None else next(iter(splits.items()))
    return _divided(kind, source, path, name, samples)


def _by_lists(source: Source) -> Layout:
    """Find the data sets of HRSC2016 and DIOR-R: the list train, else trainval; and val, else test."""
    if source.format == 'hrsc':
        as_one_class(source)
    parts, kind = listed_parts(source), TYPES[source.format]
    train = next((name for name in ('train', 'trainval') if name in parts), None)
    if train is None:
        raise UsageError(f'{source.where}: no list of ImageSets is for training: there is {some(parts)}, not train.txt')
    arguments, samples = parts[train]
    val = next((name for name in ('val', 'test') if name in parts and (train, name) != ('trainval', 'val')), None)
    if val is None:
        return _divide(kind, source, [arguments], samples)
    why = f'ImageSets has {train} ({len(samples)} images) and {val} ({len(parts[val][1])})'
    return Layout(kind, source.root, [arguments], [parts[val][0]], why, samples, parts[val][1])


def _divided(kind: str, source: Source, path: Path, split: str, samples: list[Sample]) -> Layout:
    """Divide one part into training and validation."""
    datasets = _of(source, path, split, samples)
    if len(datasets) > 1:
        raise UsageError(
            f'{source.where} has images in {len(datasets)} folders, none of them for validation; move some to a folder '
            'val next to train, or convert-dataset writes them into one'
        )
    ordered = samples if source.format == 'coco' else sorted(samples, key=lambda sample: sample.image.name)
    return _divide(kind, source, datasets, ordered)


def _divide(kind: str, source: Source, datasets: list[dict[str, Any]], ordered: list[Sample]) -> Layout:
    """Divide one data set by the places of images in its order."""
    count = len(ordered)
    last = count // SHARE
    if last == 0:
        why = f'only {count} images: validation looks at those of the training, so its scores say little'
        return Layout(kind, source.root, datasets, datasets, why, ordered, ordered)
    (one,) = datasets
    if _has_all(ordered[: count - last], ordered[count - last :]):
        why = f'no part for validation: the last {last} of {count} images, as neighbours are often alike'
        train, val = {**one, 'indices': count - last}, {**one, 'indices': -last}
        return Layout(kind, source.root, [train], [val], why, ordered[: count - last], ordered[count - last :])
    order = np.random.default_rng(0).permutation(count).tolist()
    chosen = sorted(order[:last])
    rest = sorted(order[last:])
    why = f'no part for validation: {last} of {count} images, drawn by chance, as the last ones lack classes'
    train, val = {**one, 'indices': rest}, {**one, 'indices': chosen}
    parts = [ordered[i] for i in rest], [ordered[i] for i in chosen]
    return Layout(kind, source.root, [train], [val], why, *parts)


def _has_all(train: list[Sample], val: list[Sample]) -> bool:
    """Whether training has each class, and validation each that five images or more have."""
    images: dict[str, int] = {}
    for sample in (*train, *val):
        for name in {one.name for one in sample.objects}:
            images[name] = images.get(name, 0) + 1
    in_train = {one.name for sample in train for one in sample.objects}
    in_val = {one.name for sample in val for one in sample.objects}
    return set(images) == in_train and all(name in in_val for name, count in images.items() if count >= SHARE)


def _of(source: Source, path: Path, split: str, samples: list[Sample]) -> list[dict[str, Any]]:
    """Return the arguments of the data sets that read one part."""
    root = source.root
    if source.format == 'yolo-obb':
        return [dict(ann_file=str(find_yaml(path).path.relative_to(root)), split=split)]
    found: dict[tuple[str, str], dict[str, Any]] = {}
    depths = _depths(samples) if source.format == 'coco' else {}
    suffixes = tuple(sorted({sample.image.suffix.lower()[1:] for sample in samples}))
    usual = ('png',) if source.format == 'dota' else SUFFIXES
    more = {} if source.format == 'coco' or set(suffixes) <= set(usual) else {'img_suffix': suffixes}
    for sample in samples:
        if sample.label is None:
            continue
        if source.format == 'coco':
            depth = depths.get((sample.label, sample.image.name), 1)
            folder, labels = _inside(sample.image.parents[depth - 1], root), str(sample.label.relative_to(root))
        else:
            folder, labels = _inside(sample.image.parent, root), _inside(sample.label.parent, root)
        found[folder, labels] = dict(ann_file=labels, data_prefix=dict(img_path=folder), **more)
    if source.format == 'coco' and len({labels for _, labels in found}) < len(found):
        raise UsageError(
            f'{source.where}: the images of one file lie in several folders; convert-dataset writes them into one'
        )
    return list(found.values())


def _depths(samples: list[Sample]) -> dict[tuple[Path, str], int]:
    """Count the parts of the paths that COCO's files name: the label file and the image's name to the number."""
    files = dict.fromkeys(sample.label for sample in samples if sample.label is not None)
    return {
        (file, name.parts[-1]): len(name.parts)
        for file in files
        for entry in CocoFile(file).images.values()
        if (name := PurePosixPath(entry['file_name'].replace('\\', '/'))).parts
    }


def _inside(folder: Path, root: Path) -> str:
    text = folder.relative_to(root).as_posix()
    return './' if text == '.' else f'{text}/'
