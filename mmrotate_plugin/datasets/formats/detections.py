"""Write detections as lines of label files with a score, and read such lines back as labels."""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from ...utils.messages import clip
from ..dota_format import Annotation, BadAnnotation, is_number, parse_line
from .boxes import area_of, upright_box
from .sample import number

# numbers behind the class: the score, then its deviation and those of a box of 4, 5 or 8 numbers
_TAILS = (1, 6, 7, 10)
COCO = 'coco.json'  # in the folder of predictions, for all images
UNFINISHED = '.predict.jsonl'  # in one that an interruption left unfinished
_SHAPE = 'the score, or the score and its standard deviation and those of the box'


def dota_line(polygon: Sequence[float], name: str, score: float, std: Sequence[float] = ()) -> str:
    """Write a detection as a line of DOTA's labels with the score in place of the difficulty.

    Args:
        polygon: Four corners, pixels: x1, y1, ..., x4, y4.
        name: Name of the class.
        score: From 0 to 1.
        std: Standard deviations of the score and of the box's numbers, pixels and radians; empty if unknown.
    """
    return ' '.join([*map(number, polygon), name, *_tail(score, std)]) + '\n'


def yolo_line(
    polygon: Sequence[float], label: int, score: float, std: Sequence[float] = (), *, width: int, height: int
) -> str:
    """Write a detection as a line of YOLO-OBB with the score at its end, as ultralytics does with `save_conf`.

    Args:
        polygon: Four corners, pixels.
        label: Number of the class, from 0.
        score: From 0 to 1.
        std: As for `dota_line`: pixels and radians here too.
        width, height: Of the image, pixels.
    """
    corners = (number(value / side, 10) for value, side in zip(polygon, (width, height) * 4, strict=True))
    return ' '.join([str(label), *corners, *_tail(score, std)]) + '\n'


def coco_annotation(polygon: Sequence[float], score: float, facts: dict[str, Any]) -> dict[str, Any]:
    """Make the entry of a detection in COCO's JSON: corners, upright box, area and score.

    Args:
        polygon: Four corners, pixels.
        score: From 0 to 1.
        facts: Further entries, such as `id`, `image_id` and `category_id`.
    """
    rounded = [round(float(value), 6) for value in polygon]
    return {
        **facts,
        'segmentation': [rounded],
        'bbox': [round(value, 6) for value in upright_box(rounded)],
        'area': round(area_of(rounded), 6),
        'iscrowd': 0,
        'score': round(float(score), 9),
    }


def check_min_score(min_score: float | None) -> None:
    """Refuse a threshold that no score can be compared with.

    Raises:
        ValueError: If it is neither None nor from 0 to 1.
    """
    if min_score is not None and not 0 <= min_score <= 1:
        raise ValueError(f'min_score={min_score!r} must be from 0 to 1, or None for files of labels')


def confident(
    text: str, min_score: float, parse: Callable[[str], Annotation], *, numbers: int, known: Collection[str] = ()
) -> Iterator[tuple[int, Annotation | BadAnnotation]]:
    """Yield the detections of a file that are sure enough, each with the number of its line, counted from 1.

    Args:
        text: Content of the file.
        min_score: Lowest score to take.
        parse: Makes a label of the line without its scores.
        numbers: Leading numbers of a line, before the name of the class, if any, and the scores.
        known: Known class names, which may contain numbers and blanks; empty for lines without a name.
    """
    for count, line in enumerate(text.replace('\r\n', '\n').replace('\r', '\n').split('\n'), 1):
        if not line.strip():
            continue
        try:
            label, score = _split(line, numbers, known, named=numbers % 2 == 0)
            if score >= min_score:
                yield count, parse(label)
        except BadAnnotation as error:
            yield count, error


def detection_of(line: str, known: Collection[str] = ()) -> tuple[Annotation, float]:
    """Read a line of DOTA's labels with a score, as `dota_line` writes it.

    Args:
        line: Corners, class, score, and maybe standard deviations.
        known: Known class names, which may contain numbers and blanks.

    Returns:
        The label and the score.

    Raises:
        BadAnnotation: If it is no such line.
    """
    label, score = _split(line, 8, known, named=True)
    return parse_line(label, set(known)), score


def _split(line: str, numbers: int, known: Collection[str], *, named: bool) -> tuple[str, float]:
    """Part a line into the label and its score."""
    fields = line.split()
    rest = fields[numbers:]
    lengths = range(1, len(rest)) if named else (0,)
    fits = [n for n in lengths if all(map(is_number, rest[n:])) and len(rest) - n in _TAILS]
    fits = [n for n in fits if ' '.join(rest[:n]) in known] or fits
    if not fits:
        raise BadAnnotation(f'{clip(line)!r} is no detection: behind the class must be {_SHAPE}')
    scores = [float(field) for field in rest[fits[0] :]]
    if not (0 <= scores[0] <= 1 and all(map(math.isfinite, scores))):
        raise BadAnnotation(f'{clip(line)!r} has a score or deviation out of range; scores are from 0 to 1')
    return ' '.join(fields[: numbers + fits[0]]), scores[0]


def _tail(score: float, std: Sequence[float]) -> list[str]:
    return [number(float(value), 9) for value in (score, *std)]
