"""Read a labelled folder of any format as samples, with everything counted that is left out."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ...utils.errors import UsageError
from ...utils.messages import some, warn
from ..dota_format import BadAnnotation, check_polygon
from ..folder_dataset import Found
from ..utils.broken_files import BrokenFileError, image_size
from ..utils.class_names import classes_fault
from ..utils.folder_files import IMAGES
from ..utils.label_files import plain_name, read_text
from ..utils.object_census import Census
from .nearby import GENERIC, images_nearby
from .recognise import files_below
from .sample import Sample

LISTS = ('train', 'val', 'test')  # of HRSC2016 and DIOR, in ImageSets
CLASSES = 'classes.txt'


@dataclass
class Source:
    """What was read.

    Args:
        format: Key of `recognise.FORMATS`.
        root: Folder that holds all of it.
        where: Source as it was named, for messages.
        unit: Name of an object, for messages.
        strict: Raise at the first object or file that cannot be used.
    """

    format: str
    root: Path
    where: str
    unit: str
    strict: bool
    classes: list[str] = field(default_factory=list)  # in the order of the format, if it has one
    samples: list[Sample] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    other: Counter[str] = field(default_factory=Counter)
    unlabelled: list[Path] = field(default_factory=list)  # images without label file
    broken_files: list[str] = field(default_factory=list)  # what is wrong with each file that was left out
    progress: Callable[[int], None] = lambda _: None

    def __post_init__(self) -> None:
        self.census = Census((), (), unit=self.unit, strict=self.strict, wanted='see --from')

    def add(
        self,
        image: Path,
        split: str,
        label: Path | str | None,
        read: Callable[[int, int], Found],
        *,
        file: Path | None = None,
    ) -> None:
        """Read the objects of one image.

        Args:
            image: Its file.
            split: Its part of the data.
            label: Its label file, for messages.
            read: Reads the objects, given the width and height of the image.
            file: The file that holds the objects, where `label` is a text.

        Raises:
            BrokenFileError: If image or label file cannot be used, and `strict`.
            ValueError: If an object cannot be used, and `strict`.
        """
        try:
            width, height = image_size(image)
            found = list(read(width, height))
        except BrokenFileError as error:
            if self.strict:
                raise
            self.broken_files.append(str(error))
            warn(f'{error}; the image is left out')
            return
        sample, refused = Sample(image, split, width, height, label=label if isinstance(label, Path) else file), []
        for number, item in found:
            try:
                if isinstance(item, BadAnnotation):
                    raise item
                check_polygon(item.polygon, width, height)
            except BadAnnotation as error:
                refused.append((number, error))
                continue
            sample.objects.append(item)
            self.census.kept[item.name] += 1
            self.other.update(item.other)
            self.other.update(key for key in item.extra if key != 'ignore_flag')
        self.census.refuse(label or image, refused, len(found))
        self.samples.append(sample)
        self.progress(len(self.samples))

    def finish(self) -> 'Source':
        """Check that something was read, and settle the classes.

        Raises:
            ValueError: If no image or no object can be used, or a class has an impossible name.
        """
        if not self.samples:
            raise UsageError(f'{self.where}: none of {len(self.broken_files)} images can be used')
        self.census.report(self.where, training=False)
        if self.census.refused:
            self.notes.append(f'{self.census.refused} {self.unit}s that cannot be used were left out')
        if self.broken_files:
            self.notes.append(f'{len(self.broken_files)} images were left out, as they or their label files are broken')
        found = {one.name for sample in self.samples for one in sample.objects}
        self.classes += sorted(found - set(self.classes))
        fault = classes_fault(self.classes) if self.classes else None
        if fault is not None:
            raise UsageError(f'{self.where}: {fault}')
        return self


def pair(root: Path, labels: list[Path]) -> tuple[list[tuple[Path, Path, str]], list[Path]]:
    """Pair label files with the images of their names below one folder.

    Of several images of a name, the one counts whose folders share most names with those of the label file:
    ``train/labelTxt/a.txt`` belongs to ``train/images/a.png``.

    Returns:
        Image, label file and the name of their part of the data, such as 'train', for each label file; and the images
        without one.

    Raises:
        UsageError: If a label file has no image or several, or an image has several label files.
    """
    images = files_below(root, IMAGES)
    by_stem: dict[str, list[Path]] = {}
    for image in images:
        by_stem.setdefault(image.stem, []).append(image)
    pairs, lone = [], []
    owner: dict[Path, Path] = {}
    for label in labels:
        folders = label.parent.relative_to(root).parts
        ranked: dict[int, list[Path]] = {}
        for image in by_stem.get(label.stem, []):
            shared = sum((Counter(folders) & Counter(image.parent.relative_to(root).parts)).values())
            ranked.setdefault(2 * shared + (image.parent == label.parent), []).append(image)
        if not ranked:
            lone.append(label)
            continue
        best = ranked[max(ranked)]
        if len(best) > 1:
            raise UsageError(f'{label} may belong to {best[0]} or to {best[1]}; convert folders that hold one of them')
        (image,) = best
        if image in owner:
            raise UsageError(
                f'{image} has two label files, {owner[image]} and {label}; convert a folder that holds one of them'
            )
        owner[image] = label
        common = [part for part in folders if part in image.parent.relative_to(root).parts]
        pairs.append((image, label, '-'.join(part for part in common if part.lower() not in GENERIC)))
    if lone:
        names = some(str(label.relative_to(root)) for label in lone)
        raise UsageError(
            f'{root}: {len(lone)} of {len(labels)} label files have no image of their name ({names})'
            f'{"" if images else images_nearby(root)}'
        )
    return pairs, [image for image in images if image not in owner]


def listed_splits(root: Path) -> dict[str, str]:
    """Read the lists of HRSC2016 and DIOR: name of the image to 'train', 'val' or 'test'; empty if there are none."""
    splits: dict[str, str] = {}
    for split in LISTS:
        for file in sorted(root.rglob(f'ImageSets/**/{split}.txt')):
            for name in names_in_list(file):
                splits.setdefault(name, split)
    return splits


def names_in_list(file: Path) -> list[str]:
    """Read a list of images, the first word of each line, without suffixes of images and XML files; each once."""
    words = [line.split()[0] for line in read_text(file).split('\n') if line.strip()]
    return list(dict.fromkeys(Path(word).stem if word.lower().endswith((*IMAGES, '.xml')) else word for word in words))


def listed_classes(root: Path) -> list[str]:
    """Read ``classes.txt`` next to the data, a name in each line; empty if there is none."""
    file = root / CLASSES
    if not file.is_file():
        return []
    return list(dict.fromkeys(name for line in read_text(file).split('\n') if (name := plain_name(line))))


def headers_of(text: str) -> list[str]:
    """Name the header lines of a label file of DOTA, which no other format has."""
    lines = [line.strip().lower() for line in text.split('\n')[:4]]
    return [f'header line {key}' for key in ('imagesource', 'gsd') if any(line.startswith(key) for line in lines)]
