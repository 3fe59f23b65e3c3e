"""Read detections from files: COCO's JSON of detections, and a submission of text files by class."""

import json
import math
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...utils.messages import clip
from ..errors import EvaluationError
from .written_predictions import Row, find_written, read_written

TASK = re.compile(r'(?:Task[12]_)?(?P<name>.+)\.txt', re.IGNORECASE)
_LARGEST = 2 * 2**30  # bytes of one text file, unpacked
_KINDS = (4, 5, 8)  # columns of a box

Detections = dict[str, dict[str, np.ndarray]]


def read_predictions(path: Path, classes: Sequence[str] | None = None) -> tuple[Detections, list[str]]:
    """Read the detections of a file or folder.

    Args:
        path: A JSON list of detections with `image_id`, `bbox`, `score` and `category_id` from 0, as `DOTAMetric`
            writes it; a folder or zip file of text files Task1_CLASS.txt with lines of image, score and corners; or the
            folder that `predict` wrote to with ``--save dota`` or ``coco``, or its ``coco.json``.
        classes: Class names in the order of the numbers. All but the list have them; then these are all that may be
            there.

    Returns:
        For each image by its name `bboxes` (N, D), `scores` and `labels` (N,), and the class names.

    Raises:
        EvaluationError: If the file is none of them, or a detection cannot be used; the message names file and line.
    """
    if path.is_dir() and next(_texts(path), None) is None or path.is_file():
        written = find_written(path)
        if written is not None:
            rows, names = read_written(written, classes)
            return _gather(rows), names
    if path.is_dir() or path.suffix.lower() == '.zip':
        return _from_texts(path, classes)
    if not path.is_file():
        raise EvaluationError(f"PREDICTIONS '{path}' does not exist")
    if path.suffix.lower() != '.json':
        raise EvaluationError(
            f"PREDICTIONS '{path}' must be a .json file, a folder that predict wrote to, or a folder or .zip file of "
            'Task1_CLASS.txt'
        )
    if classes is None:
        raise EvaluationError(
            f"PREDICTIONS '{path}' has classes as numbers: give their names in the order of the training with --classes"
        )
    try:
        found = json.loads(path.read_text(encoding='utf-8-sig'))
    except (OSError, ValueError, RecursionError) as error:
        raise EvaluationError(f"PREDICTIONS '{path}' cannot be read as JSON ({error})") from error
    if not isinstance(found, list):
        raise EvaluationError(f"PREDICTIONS '{path}' must be a list of detections, and is a {type(found).__name__}")
    return _gather(_json_rows(path, found, len(classes))), list(classes)


def class_names(values: Sequence[str]) -> list[str]:
    """Return class names, or the lines of a file if one value names a file.

    Raises:
        EvaluationError: If a name is there twice, or there is none.
    """
    names = list(values)
    if len(names) == 1 and names[0].lower().endswith('.txt'):
        try:
            text = Path(names[0]).read_text(encoding='utf-8-sig')
        except (OSError, ValueError) as error:
            raise EvaluationError(f"classes='{names[0]}' cannot be read ({error})") from error
        names = [line.strip() for line in text.splitlines() if line.strip()]
    twice = [name for i, name in enumerate(names) if name in names[:i]]
    if twice or not names:
        raise EvaluationError(f'classes={values} {f"has {twice[0]!r} twice" if twice else "has no name"}')
    return names


def _json_rows(path: Path, found: list[Any], number: int) -> Iterator[Row]:
    for place, one in enumerate(found):
        where = f'{path}, detection {place}'
        if not isinstance(one, Mapping):
            raise EvaluationError(f'{where}: {clip(str(one))} is no object with image_id, bbox, score and category_id')
        missing = [key for key in ('image_id', 'bbox', 'score', 'category_id') if key not in one]
        if missing:
            raise EvaluationError(f'{where}: {", ".join(missing)} is missing')
        box, score, label = one['bbox'], one['score'], one['category_id']
        numbers = [*box, score] if isinstance(box, list) else [None]
        if not all(isinstance(v, (int, float)) and math.isfinite(v) for v in numbers) or len(numbers) - 1 not in _KINDS:
            raise EvaluationError(f'{where}: bbox {clip(str(box))} must be 4, 5 or 8 finite numbers, and score one')
        if not isinstance(label, int) or not 0 <= label < number:
            raise EvaluationError(f'{where}: category_id is {label!r}, and the {number} classes count from 0')
        yield str(one['image_id']), [float(v) for v in box], float(score), label


def _from_texts(path: Path, classes: Sequence[str] | None) -> tuple[Detections, list[str]]:
    texts = dict(sorted(_texts(path)))
    if not texts:
        raise EvaluationError(
            f"PREDICTIONS '{path}' holds neither Task1_CLASS.txt nor what predict --save dota coco writes"
        )
    names = list(classes) if classes is not None else list(texts)
    unknown = [name for name in texts if name not in names]
    if unknown:
        raise EvaluationError(f"PREDICTIONS '{path}' has the class {unknown[0]!r}, which --classes does not name")
    rows = (row for name, text in texts.items() for row in _text_rows(f'{path}, {name}', text, names.index(name)))
    return _gather(rows), names


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    if not path.exists():
        raise EvaluationError(f"PREDICTIONS '{path}' does not exist")
    try:
        if path.is_dir():
            for file in sorted(path.iterdir()):
                match = TASK.fullmatch(file.name)
                if match is not None and file.name.lower().startswith('task') and file.is_file():
                    yield match['name'], file.read_text(encoding='utf-8-sig')
            return
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                match = TASK.fullmatch(Path(info.filename).name)
                if match is not None and Path(info.filename).name.lower().startswith('task'):
                    if info.file_size > _LARGEST:
                        raise EvaluationError(f"PREDICTIONS '{path}': {info.filename} has {info.file_size} bytes")
                    yield match['name'], archive.read(info).decode('utf-8-sig')
    except (OSError, zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise EvaluationError(f"PREDICTIONS '{path}' cannot be read ({error})") from error


def _text_rows(where: str, text: str, label: int) -> Iterator[Row]:
    """Yield the detections of a text; what comes before the last nine numbers is the name, blanks included."""
    columns = 9 if all(len(line.split()) >= 10 for line in text.splitlines() if line.strip()) else 5
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        fields = line.strip().rsplit(maxsplit=columns)
        try:
            score, *box = (float(field) for field in fields[1:])
        except ValueError:
            score, box = math.nan, []
        if len(fields) != columns + 1 or not all(map(math.isfinite, (score, *box))):
            raise EvaluationError(
                f"{where}, line {number}: {clip(line)!r} must be 'image score x1 y1 x2 y2 x3 y3 x4 y4', or with four "
                'numbers for upright boxes'
            )
        yield fields[0], box, score, label


def _gather(rows: Iterable[Row]) -> Detections:
    by_name: dict[str, list[Row]] = {}
    columns: set[int] = set()
    for row in rows:
        by_name.setdefault(row[0], []).append(row)
        columns.add(len(row[1]))
    if len(columns) > 1:
        raise EvaluationError(f'the detections have boxes of {sorted(columns)} numbers; they must be of one kind')
    return {
        name: {
            'bboxes': np.array([row[1] for row in found], np.float64),
            'scores': np.array([row[2] for row in found], np.float64),
            'labels': np.array([row[3] for row in found], np.int64),
        }
        for name, found in by_name.items()
    }
