"""Collect images and objects of a data set as arrays, from a data set of a config or from a folder."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...structures.corners import box_corners
from ..formats.source import Source
from ..utils.object_census import Census
from ..utils.wrappers import leaves

Floats = NDArray[np.float64]


@dataclass
class DataPart:
    """One part of the data, such as 'train'.

    Args:
        name: Its name; '' if there is one part only.
        classes: Names of the classes by their labels.
        paths: Files of the images, N of them.
        sizes: (N, 2), width and height in pixels.
        polygons: (M, 4, 2), corners of the objects, pixels.
        labels: (M,), indices into `classes`.
        owners: (M,), indices into `paths`.
        difficult: (M,), whether the object is ignored or difficult.
        unlabelled: Images without label file.
        broken: What is wrong with each file that was left out.
        refused: Number of objects that cannot be used; those that lie outside of their image are among them.
        outside: Number of objects that lie outside of their image altogether.
        refused_first: The first of them, with the reason.
        other_classes: Objects of classes that the config does not have, by class.
    """

    name: str
    classes: tuple[str, ...]
    paths: list[str]
    sizes: NDArray[np.int64]
    polygons: Floats
    labels: NDArray[np.int64]
    owners: NDArray[np.int64]
    difficult: NDArray[np.bool_]
    unlabelled: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    refused: int = 0
    outside: int = 0
    refused_first: str = ''
    other_classes: dict[str, int] = field(default_factory=dict)

    def add_census(self, census: Census | None) -> None:
        """Take over what was counted while label files were read."""
        if census is None:
            return
        self.refused += census.refused
        self.outside += len(census.outside)
        self.refused_first = self.refused_first or census.first
        for name, count in census.left.items():
            self.other_classes[name] = self.other_classes.get(name, 0) + count


def part_of_dataset(dataset: Any, name: str) -> DataPart:
    """Collect a built data set: what it reads from its files, before its pipeline.

    Args:
        dataset: One of mmengine's kind, or wrappers around several.
        name: Name of the part.

    Raises:
        ValueError: If an object has a box of another form than 4, 5 or 8 numbers.
    """
    parts = list(leaves(dataset))
    infos = (leaf.get_data_info(i) for leaf in parts for i in range(len(leaf)))
    classes = tuple(parts[0].metainfo.get('classes') or ())
    part = _part(name, classes, (_entry(info) for info in infos))
    for leaf in parts:
        part.add_census(getattr(leaf, 'census', None))
        part.unlabelled += getattr(leaf, 'unlabelled', ())
        part.broken += getattr(leaf, 'broken', ())
    return part


def parts_of_source(source: Source) -> list[DataPart]:
    """Collect a folder that `read_source` has read, one part for each split.

    Objects that cannot be used are counted in the first part: label files are counted together.
    """
    label_of = {name: label for label, name in enumerate(source.classes)}
    parts = []
    for split in dict.fromkeys(sample.split for sample in source.samples):
        entries = (
            (
                str(sample.image),
                (sample.width, sample.height),
                [(one.polygon, label_of[one.name], one.difficulty > 0) for one in sample.objects],
            )
            for sample in source.samples
            if sample.split == split
        )
        parts.append(_part(split, tuple(source.classes), entries))
    parts[0].add_census(source.census)
    parts[0].unlabelled = [_below(image, source.root) for image in source.unlabelled]
    parts[0].broken = list(source.broken_files)
    return parts


def to_corners(box: Sequence[float]) -> list[float]:
    """Return the corners of a box: x1, y1, ..., x4, y4.

    Args:
        box: x1, y1, x2, y2; or cx, cy, w, h and the angle in radians; or the corners.

    Raises:
        ValueError: If it has another number of values.
    """
    values = [float(value) for value in np.asarray(box, np.float64).ravel()]
    if len(values) == 8:
        return values
    if len(values) == 5:
        return box_corners(np.array([values])).ravel().tolist()
    if len(values) == 4:
        x1, y1, x2, y2 = values
        return [x1, y1, x2, y1, x2, y2, x1, y2]
    raise ValueError(f'a box has {len(values)} numbers; 4 (upright), 5 (with angle) and 8 (corners) can be read')


Entry = tuple[str, tuple[int, int], list[tuple[list[float], int, bool]]]


def _entry(info: Mapping[str, Any]) -> Entry:
    objects = [
        (to_corners(one['bbox']), int(one['bbox_label']), bool(one.get('ignore_flag')))
        for one in info.get('instances') or ()
    ]
    return str(info.get('img_path', '')), (int(info.get('width') or 0), int(info.get('height') or 0)), objects


def _part(name: str, classes: tuple[str, ...], entries: Iterable[Entry]) -> DataPart:
    paths: list[str] = []
    sizes, polygons, labels, owners, difficult = [], [], [], [], []
    for path, size, objects in entries:
        for polygon, label, ignored in objects:
            polygons.append(polygon)
            labels.append(label)
            owners.append(len(paths))
            difficult.append(ignored)
        paths.append(path)
        sizes.append(size)
    return DataPart(
        name,
        classes,
        paths,
        np.array(sizes, np.int64).reshape(-1, 2),
        np.array(polygons, np.float64).reshape(-1, 4, 2),
        np.array(labels, np.int64),
        np.array(owners, np.int64),
        np.array(difficult, bool),
    )


def _below(file: Path, root: Path) -> str:
    return str(file.relative_to(root)) if file.is_relative_to(root) else str(file)
