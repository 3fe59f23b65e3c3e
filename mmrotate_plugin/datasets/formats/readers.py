"""Read a source of each format for a conversion."""

import os
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from ...utils.errors import UsageError
from ...utils.messages import some
from ..dota_format import Annotation, BadAnnotation, parse_text
from ..folder_dataset import Found, Pair
from ..hrsc_dior import dior_object, hrsc_object
from ..hrsc_dior_classes import DIOR, HRSC
from ..utils.folder_files import IMAGES
from ..utils.label_files import parse_xml, read_bytes, read_text
from ..xml_dataset import each_object
from . import labelme, rolabelimg, yolo_obb
from .coco import CocoFile, check_angle
from .data_yaml import DataYaml, read_data_yaml, split_images
from .nearby import GENERIC, images_nearby, yaml_nearby
from .recognise import FORMATS, files_below, recognise
from .source import Source, headers_of, listed_classes, listed_splits, pair

_NUMBERS = {f'1000000{number}': name for name, (number, _) in HRSC.items()}
_SPLIT = re.compile(r'instances|annotations?|coco|^labels$', re.IGNORECASE)


def read_source(
    path: Path,
    wanted: str | None = None,
    *,
    strict: bool = False,
    angle: str | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Source:
    """Read a labelled data set of any format of `recognise.FORMATS`.

    Args:
        path: Its folder, its ``data.yaml`` or its JSON file.
        wanted: The format; None to recognise it.
        strict: Raise at the first object or file that cannot be used.
        angle: What the fifth number of a `bbox` in COCO's JSON is; see `RotatedCocoDataset`.
        progress: Called with the number of images that are read.

    Raises:
        InputError: If the format cannot be recognised, or images or label files are missing.
        ValueError: If nothing can be used, or with `strict` an object cannot.
    """
    if not path.exists():
        raise UsageError(f"SOURCE '{path}' does not exist")
    check_angle(angle)
    root, files = path, [path]
    if path.is_file():
        kind = {'.json': 'coco', '.yaml': 'yolo-obb', '.yml': 'yolo-obb'}.get(path.suffix.lower())
        if kind is None:
            raise UsageError(f"SOURCE '{path}' must be a folder, a data.yaml or a file of COCO's JSON")
        if wanted not in (None, kind):
            raise UsageError(f"--from {wanted}: SOURCE '{path}' is read as {FORMATS[kind][0]}; name its folder")
        root = path.parent.parent if path.parent.name.lower() in GENERIC else path.parent
    else:
        kind, files = recognise(path, wanted)
    if angle is not None and kind != 'coco':
        raise UsageError(f"angle={angle!r} is for COCO's JSON, and {path} is {FORMATS[kind][0]}")
    unit = {'dota': 'line', 'yolo-obb': 'line', 'coco': 'annotation'}.get(kind, 'object')
    source = Source(kind, root, str(path), unit, strict, progress=progress)
    if kind == 'yolo-obb':
        _read_yolo(source, path, files)
    elif kind == 'coco':
        _read_coco(source, files, angle)
    else:
        _read_pairs(source, files)
    return source.finish()


def _read_pairs(source: Source, labels: list[Path]) -> None:
    """Read a format with a label file for each image."""
    source.classes = listed_classes(source.root) if source.format == 'dota' else []
    pairs, unlabelled = pair(source.root, labels)
    source.unlabelled += unlabelled
    if unlabelled:
        names = some(str(image.relative_to(source.root)) for image in unlabelled)
        source.notes.append(f'{len(unlabelled)} images have no label file and were left out ({names})')
    splits = listed_splits(source.root) if source.format in ('hrsc', 'dior') else {}
    parse = {
        'dota': _dota, 'rolabelimg': _rolabelimg, 'labelme': _labelme, 'hrsc': _hrsc, 'dior': _dior
    }[source.format]  # fmt: skip
    for image, label, split in pairs:
        split = splits.get(image.stem, 'unlisted') if splits else split
        source.add(image, split, label, lambda _w, _h, label=label: parse(source, label))  # type: ignore[misc]


def _dota(source: Source, label: Path) -> Found:
    text = read_text(label)
    source.other.update(headers_of(text))
    return parse_text(text, set(source.classes))


def _rolabelimg(_: Source, label: Path) -> Found:
    return rolabelimg.parse_root(label, parse_xml(label, read_bytes(label)))


def _labelme(source: Source, label: Path) -> Found:
    found, _ = labelme.parse_file(label)
    if label.suffix.lower() == '.json':
        source.other.update(labelme.image_flags(label))
    return found


def _hrsc(_: Source, label: Path) -> Found:
    def ship(element: Element) -> Annotation:
        number = (element.findtext('Class_ID') or '').strip()
        if not number:
            raise BadAnnotation('the field Class_ID is missing')
        return hrsc_object(element, _NUMBERS.get(number, f'Class_ID {number}'))

    return each_object(parse_xml(label, read_bytes(label)).findall('HRSC_Objects/HRSC_Object'), ship)


def _dior(_: Source, label: Path) -> Found:
    objects = parse_xml(label, read_bytes(label)).findall('object')
    return each_object(objects, lambda element: dior_object(element, DIOR))


def _read_yolo(source: Source, path: Path, files: list[Path]) -> None:
    data = find_yaml(path, files)
    source.classes = list(data.names.values())
    read: set[Path] = set()
    owner: dict[Path, str] = {}
    for split in data.splits:
        pairs: list[Pair] = split_images(data, split, tuple(f'.{end}' for end in yolo_obb.SUFFIXES))
        yolo_obb.tell_empty(pairs, f'{data.path}, {split}')
        for _, image, label in pairs:
            if image in owner:
                source.notes.append(f'{split} has images of {owner[image]} too, which are not written twice')
                continue
            owner[image] = split
            if label is None:
                source.unlabelled.append(image)
            else:
                read.add(label.resolve())
            source.add(image, split, label, lambda w, h, label=label: _yolo(label, data, w, h))  # type: ignore[misc]
    source.notes = list(dict.fromkeys(source.notes))
    rest = [file for file in files if file.suffix.lower() == '.txt' and file.resolve() not in read]
    if rest and path.is_dir():
        names = some(str(file.relative_to(path)) for file in rest)
        source.notes.append(
            f'{len(rest)} label files belong to no image of {data.path.name} and were left out ({names})'
        )


def _yolo(label: Path | None, data: DataYaml, width: int, height: int) -> Found:
    return () if label is None else yolo_obb.parse_text(read_text(label), data.names, width, height)


def find_yaml(path: Path, labels: Sequence[Path] = ()) -> DataYaml:
    """Find and read the ``data.yaml`` of a folder, or read that file itself.

    Args:
        path: The folder or the file.
        labels: Label files, beside which a missing ``data.yaml`` may lie.

    Raises:
        UsageError: If the folder has none or several, or the file names no folder of images.
    """
    if path.is_file():
        data = read_data_yaml(path)
    else:
        files = [file for end in ('yaml', 'yml') for file in sorted(path.glob(f'*.{end}'))]
        named = [file for file in files if re.search(r'^names\s*:', read_text(file), re.MULTILINE)]
        if len(named) != 1:
            what = 'several data.yaml' if named else 'no data.yaml'
            cure = 'name one of them as SOURCE' if named else 'add the file, which names the classes and the folders'
            cure = ('' if named else yaml_nearby(path, labels).removeprefix('; ')) or cure
            raise UsageError(f'{path} has {what} ({some(file.name for file in named) or "a .yaml with names"}); {cure}')
        data = read_data_yaml(named[0])
    if not data.splits:
        raise UsageError(f'{data.path} names no folder of images: train, val or test')
    return data


def _read_coco(source: Source, files: list[Path], angle: str | None) -> None:
    by_name: dict[str, list[Path]] = {}
    for image in files_below(source.root, IMAGES):
        by_name.setdefault(image.name, []).append(image)
    for file in files:
        content = CocoFile(file)
        source.classes += [name for name in content.names.values() if name not in source.classes]
        split = _split_of(file, source.root) if len(files) > 1 else _SPLIT.sub('', file.stem).strip('_-. ')
        for entry in content.images.values():
            image = _find_image(source.root, file, entry['file_name'], split, by_name)
            read = partial(_coco_objects, content, entry['id'], angle)
            source.add(image, split, f'{file}, image {entry["file_name"]}', read, file=file)


def _coco_objects(content: CocoFile, image_id: Any, angle: str | None, _width: int, _height: int) -> Found:
    return content.objects(image_id, 'obb', angle)


def _split_of(file: Path, root: Path) -> str:
    name = _SPLIT.sub('', file.stem).strip('_-. ')
    parts = [part for part in file.parent.relative_to(root).parts if part.lower() not in GENERIC]
    return '-'.join([*parts, *([name] if name else [])]) or file.stem


def _find_image(root: Path, file: Path, name: str, split: str, by_name: dict[str, list[Path]]) -> Path:
    """Find the image that a JSON file names: where it says, else the one file of that name."""
    name = name.replace('\\', '/')
    for folder in (file.parent, root / 'images', root / 'images' / split, root / split / 'images', root / split, root):
        if (folder / name).is_file():
            return folder / name
    found = by_name.get(os.path.basename(name), [])
    if len(found) != 1:
        what = f'may be {found[0]} or {found[1]}' if found else 'is missing'
        hint = '' if by_name else images_nearby(root)
        raise UsageError(f'{file}: the image {name} {what} (looked for below {root}){hint}')
    return found[0]
