"""Say how a config reads HRSC2016 and DIOR-R: by their lists of images in ImageSets."""

import dataclasses
import os
from pathlib import Path
from typing import Any

from ...datasets.formats.sample import Sample
from ...datasets.formats.source import Source, names_in_list
from ...utils.errors import UsageError
from ...utils.messages import some

LISTED = ('hrsc', 'dior')
LISTS = ('train', 'val', 'trainval', 'test')
USUAL = {  # arguments that need not be written
    'hrsc': {'img_subdir': 'AllImages', 'ann_subdir': 'Annotations', 'img_suffix': ('bmp',)},
    'dior': {'ann_subdir': 'Annotations/Oriented Bounding Boxes', 'img_suffix': ('jpg',)},
}

Part = tuple[dict[str, Any], list[Sample]]


def listed_parts(source: Source) -> dict[str, Part]:
    """Find the lists of a source, and how a data set reads each.

    Args:
        source: What was read, of HRSC2016 or DIOR-R.

    Returns:
        For each list of `LISTS` that names images: the arguments of its data set, and its images in their order.

    Raises:
        UsageError: If there is no list, or the images of one lie in several folders.
    """
    by_name = {sample.image.stem: sample for sample in source.samples}
    parts: dict[str, Part] = {}
    for name in LISTS:
        for file in sorted(source.root.rglob(f'ImageSets/**/{name}.txt'))[:1]:
            samples = [by_name[stem] for stem in names_in_list(file) if stem in by_name]
            if samples:
                parts[name] = _arguments(source, file, samples), samples
    if not parts:
        raise UsageError(
            f'{source.where}: there is no list of its images, such as ImageSets/train.txt, which this format needs; '
            'write one, a name in each line, or convert-dataset makes a folder of another format'
        )
    return parts


def as_one_class(source: Source, name: str = 'ship') -> None:
    """Give all objects one class, as `HRSCDataset` does without `classwise`."""
    for sample in source.samples:
        sample.objects[:] = [dataclasses.replace(one, name=name) for one in sample.objects]
    source.classes[:] = [name]


def _arguments(source: Source, file: Path, samples: list[Sample]) -> dict[str, Any]:
    root = source.root
    images = {sample.image.parent for sample in samples}
    labels = {sample.label.parent for sample in samples if sample.label is not None}
    for what, folders in (('images', images), ('XML files', labels)):
        if len(folders) != 1:
            places = some(sorted(str(folder.relative_to(root)) for folder in folders))
            raise UsageError(
                f'{source.where}: the {what} of {file.relative_to(root)} lie in several folders ({places}); '
                'convert-dataset writes them into one'
            )
    (image,), (label,) = images, labels
    found: dict[str, Any] = {'ann_file': file.relative_to(root).as_posix()}
    more: dict[str, Any] = {}
    if source.format == 'hrsc':
        common = Path(os.path.commonpath([image, label]))
        found['data_prefix'] = {'sub_data_root': _folder(common, root)}
        more = {'img_subdir': _below(image, common), 'ann_subdir': _below(label, common)}
    else:
        found['data_prefix'] = {'img_path': _folder(image, root)}
        more = {'ann_subdir': _below(label, root)}
    more['img_suffix'] = tuple(sorted({sample.image.suffix.lower()[1:] for sample in samples}))
    return found | {key: value for key, value in more.items() if value != USUAL[source.format][key]}


def _folder(folder: Path, root: Path) -> str:
    text = folder.relative_to(root).as_posix()
    return './' if text == '.' else f'{text}/'


def _below(folder: Path, root: Path) -> str:
    return folder.relative_to(root).as_posix()
