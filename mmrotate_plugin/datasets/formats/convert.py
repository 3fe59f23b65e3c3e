"""Convert a labelled data set from one format to another."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ...utils.atomic_files import copy_whole, link_whole, write_whole
from ...utils.errors import UsageError
from ...utils.messages import some
from .out_folder import check_out, name_images
from .readers import read_source
from .recognise import FORMATS
from .source import Source
from .writers import WRITERS, losses

# says that this function made the folder, and from what; hidden, as labelling tools take a JSON file for labels
MARK = '.convert-dataset.json'
IMAGES = ('copy', 'link', 'none')


@dataclass
class Conversion:
    """What was converted.

    Args:
        format: Format of the source.
        images: Number of images.
        empty: Number of images without objects.
        objects: Number of objects.
        classes: Class names in the order of their numbers.
        splits: Number of images in each part of the data; '' for data of one part.
        lost: What the new format cannot hold and what was left out, one line each.
    """

    format: str
    images: int = 0
    empty: int = 0
    objects: int = 0
    classes: list[str] = field(default_factory=list)
    splits: dict[str, int] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)


def convert_dataset(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    to: str,
    *,
    from_format: str | None = None,
    images: str = 'copy',
    strict: bool = False,
    angle: str | None = None,
    progress: Callable[[str, int], None] = lambda _what, _count: None,
) -> Conversion:
    """Convert a labelled data set to another format.

    Boxes keep their corners to a thousandth of a pixel, the classes their names, difficult objects their flags, and
    images without objects stay. What the new format cannot hold is counted in `Conversion.lost`.

    Args:
        source: Folder of the data set, its ``data.yaml`` or its file of COCO's JSON. It is only read.
        out: Folder to write to: new, empty, or of an earlier call with the same arguments, which is then continued.
        to: 'dota', 'yolo-obb', 'coco', 'rolabelimg' or 'labelme'.
        from_format: Format of the source, those and 'hrsc' and 'dior'; None to recognise it by what the files contain.
        images: 'copy', 'link' (symbolic links) or 'none'.
        strict: Raise at the first object or file that cannot be used, instead of leaving it out.
        angle: What the fifth number of a `bbox` in COCO's JSON is; see `RotatedCocoDataset`.
        progress: Called with 'read' or 'written' and the number of images so far.

    Raises:
        InputError: If an argument is wrong, the format cannot be recognised or is mixed, images or label files are
            missing, or `out` cannot be written.
        ValueError: If nothing can be used, or with `strict` an object cannot.
    """
    path, folder = Path(source), Path(out)
    if to not in WRITERS:
        more = f'; {FORMATS[to][0]} can only be read' if to in FORMATS else ''
        raise UsageError(f'to={to!r} must be one of {", ".join(WRITERS)}{more}')
    if images not in IMAGES:
        raise UsageError(f'images={images!r} must be one of {", ".join(IMAGES)}')
    facts = {'source': str(path.resolve()), 'from': from_format, 'to': to, 'images': images, 'angle': angle}
    check_out(path, folder, MARK, facts, 'a conversion')
    found = read_source(path, from_format, strict=strict, angle=angle, progress=lambda count: progress('read', count))
    writer = WRITERS[to]
    named = name_images(found, writer.default)
    splits = {split: [(sample, sample.image.name) for sample in samples] for split, samples in named.items()}
    done = _summary(found, to, {split: len(samples) for split, samples in splits.items()})
    try:
        write_whole(folder / MARK, json.dumps({**facts, 'lost': done.lost}, ensure_ascii=False, indent=2) + '\n')
        count = 0
        for split, samples in splits.items():
            for sample, name in samples:
                image = folder / writer.images(split) / name
                _place(sample.image, image, images)
                if writer.labels is not None and writer.text is not None:
                    labels, suffix = writer.labels(split)
                    label = folder / labels / f'{Path(name).stem}{suffix}'
                    target = image if images != 'none' else sample.image.resolve()
                    there = os.path.relpath(target, label.resolve().parent).replace(os.sep, '/')
                    write_whole(label, writer.text(sample, done.classes, there))
                count += 1
                progress('written', count)
        for name, text in writer.further(splits, done.classes).items():
            write_whole(folder / name, text)
    except OSError as error:
        raise UsageError(f"OUT '{folder}' could not be written: {error.strerror or error}") from error
    return done


def _summary(source: Source, to: str, splits: dict[str, int]) -> Conversion:
    samples = source.samples
    lost = [*source.notes, *losses(to, samples)]
    if source.other:
        told = some((f'{name} ({count})' for name, count in source.other.most_common()), 12)
        lost.append(f'not carried over: {told}')
    if to == 'yolo-obb' and not {'train', 'val'} <= set(splits):
        lost.append(f'the data have no {"val" if "train" in splits else "train"}: data.yaml names other images for it')
    empty = sum(not sample.objects for sample in samples)
    objects = sum(len(sample.objects) for sample in samples)
    return Conversion(source.format, len(samples), empty, objects, source.classes, splits, lost)


def _place(image: Path, target: Path, how: str) -> None:
    """Copy or link an image, unless an earlier call has done so."""
    if how == 'copy':
        if not (target.is_file() and not target.is_symlink() and target.stat().st_size == image.stat().st_size):
            copy_whole(image, target)
    elif how == 'link' and not (target.is_symlink() and target.resolve() == image.resolve()):
        link_whole(image.resolve(), target)
