"""Read the detections that `predict` writes: lines of DOTA's labels with scores, and COCO's JSON."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ...datasets.dota_format import BadAnnotation
from ...datasets.formats.detections import COCO, UNFINISHED, detection_of
from ...datasets.formats.source import CLASSES, listed_classes
from ...datasets.utils.folder_files import IMAGES
from ...datasets.utils.label_files import read_json, read_text
from ...utils.messages import clip
from ..errors import EvaluationError

TEXTS = 'dota'

Row = tuple[str, list[float], float, int]


def find_written(path: Path) -> Path | None:
    """Find the file or folder that `predict` wrote: ``coco.json``, or a folder with a text for each image.

    Args:
        path: The folder that `predict` wrote to, the folder of texts in it, or the JSON file.

    Returns:
        The JSON file or the folder of texts; None if there is neither.

    Raises:
        EvaluationError: If `predict` was interrupted, or wrote lines of YOLO-OBB alone.
    """
    if not path.is_dir():
        return path if path.suffix.lower() == '.json' and _is_coco(path) else None
    for folder in (path, path.parent):
        if (folder / UNFINISHED).exists() and (folder == path or path.name == TEXTS):
            raise EvaluationError(
                f"PREDICTIONS '{path}' is not complete: predict was interrupted, and the same command continues it"
            )
    if (path / COCO).is_file():
        return path / COCO
    if (path / TEXTS).is_dir():
        return path / TEXTS
    if path.name == 'yolo-obb' or (path / 'yolo-obb').is_dir():
        raise EvaluationError(
            f"PREDICTIONS '{path}' has lines of YOLO-OBB, which are relative to the size of a patch: give the "
            'dota/ or coco.json of predict --save dota coco'
        )
    return path if any(_texts(path)) else None


def read_written(path: Path, classes: Sequence[str] | None) -> tuple[Iterator[Row], list[str]]:
    """Read what `find_written` found.

    Args:
        path: The JSON file or the folder of texts.
        classes: Class names in the order of their numbers; None for those of the file, or of ``classes.txt`` in the
            folder or above it.

    Returns:
        Name of the image, four corners in pixels, score and number of the class for each detection; and the names.

    Raises:
        EvaluationError: When reading, if a file cannot be read, is no detection, or has a class that is not named.
    """
    if path.is_dir():
        names = list(classes) if classes is not None else listed_classes(path) or listed_classes(path.parent)
        return _text_rows(path, names, fixed=classes is not None or bool(names)), names
    content = _json(path)
    categories = {one['id']: str(one['name']) for one in content.get('categories', ()) if isinstance(one, Mapping)}
    names = list(classes) if classes is not None else [categories[key] for key in sorted(categories)]
    return _coco_rows(path, content, categories, names), names


def image_name(file: str) -> str:
    """Return the name of an image without folders and suffix."""
    name = PurePosixPath(file.replace('\\', '/')).name
    return name[: -len(PurePosixPath(name).suffix)] if name.lower().endswith(IMAGES) else name


def _texts(folder: Path) -> Iterator[Path]:
    return (file for file in sorted(folder.rglob('*.txt')) if file.name != CLASSES and not file.name.startswith('.'))


def _text_rows(folder: Path, names: list[str], *, fixed: bool) -> Iterator[Row]:
    """Yield the detections of all texts; without fixed names, those that are met are added."""
    owner: dict[str, Path] = {}
    scores: set[str] = set()
    for file in _texts(folder):
        name = image_name(file.name[: -len('.txt')])
        if name in owner:
            raise EvaluationError(f'{file} and {owner[name]} are of two images named {name!r}; which is meant?')
        owner[name] = file
        try:
            text = read_text(file)
        except ValueError as error:
            raise EvaluationError(str(error)) from error
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip():
                continue
            try:
                found, score = detection_of(line, names)
            except BadAnnotation as error:
                raise EvaluationError(f'{file}, line {number}: {error}') from error
            if found.name not in names:
                if fixed:
                    raise EvaluationError(
                        f'{file}, line {number}: the class {found.name!r} is none of {clip(str(names))}'
                    )
                names.append(found.name)
            scores.add(line.split()[-1])
            yield name, list(found.polygon), score, names.index(found.name)
    if scores and scores <= {'0', '1', '2'}:
        raise EvaluationError(
            f"PREDICTIONS '{folder}' holds labels, not detections: the last number of each line is "
            f'{" or ".join(sorted(scores))}, as of difficult objects, and no score'
        )


def _is_coco(path: Path) -> bool:
    """Tell whether a JSON file begins as an object; a list is what `DOTAMetric` writes."""
    try:
        with path.open(encoding='utf-8-sig') as file:
            return file.read(200).lstrip().startswith('{')
    except (OSError, ValueError):
        return False


def _json(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path, None)
    except ValueError as error:
        raise EvaluationError(f'PREDICTIONS {error}') from error
    lists = [key for key in ('images', 'annotations', 'categories') if isinstance(content.get(key), list)]
    if len(lists) < 3:
        raise EvaluationError(
            f"PREDICTIONS '{path}' must have images, annotations and categories, as predict --save coco writes them, "
            'or be a list of detections'
        )
    return content


def _coco_rows(
    path: Path, content: Mapping[str, Any], categories: Mapping[Any, str], names: list[str]
) -> Iterator[Row]:
    images: dict[Any, str] = {}
    for one in content['images']:
        images[one['id']] = image_name(str(one['file_name']))
    if len(set(images.values())) < len(images):
        twice = next(name for name in images.values() if list(images.values()).count(name) > 1)
        raise EvaluationError(f'{path}: two images are named {twice!r}; which is meant?')
    for place, one in enumerate(content['annotations']):
        where = f'{path}, annotation {place}'
        try:
            (polygon,) = one['segmentation']
            name, label = images[one['image_id']], categories[one['category_id']]
            score, corners = float(one['score']), [float(value) for value in polygon]
        except (KeyError, TypeError, ValueError) as error:
            what = f'{error} is missing' if isinstance(error, KeyError) else str(error)
            raise EvaluationError(f'{where} is no detection with score and segmentation of predict ({what})') from error
        if len(corners) != 8 or not all(map(math.isfinite, (*corners, score))):
            raise EvaluationError(f'{where}: {clip(str(corners))} must be four corners, finite, and the score too')
        if label not in names:
            raise EvaluationError(f'{where}: the class {label!r} is none of {clip(str(names))}')
        yield name, corners, score, names.index(label)
