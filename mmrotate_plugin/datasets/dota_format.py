"""Parse label files in DOTA's format, and check that boxes can be used."""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from ..utils.messages import clip
from .utils.foreign_formats import are_fractions, guess_line

_THINNEST = 0.1  # pixels; the logarithm of a thinner side would ruin the training
FARTHEST = 1e6  # pixels; no image is that large, and sides of 1e20 overflow float32
_WORDS = 4  # at most, in a class name with blanks
_GUESSES = 20  # of formats per file
_HEADERS = ('imagesource:', 'gsd:')
_SHAPE_OF_A_LINE = "'x1 y1 x2 y2 x3 y3 x4 y4 class difficulty'"


class BadAnnotation(ValueError):
    """An object cannot be used.

    Args:
        text: The reason.
        looks: Format that it seems to have, a key of `foreign_formats.describe`.
        reach: Farthest corner of a box outside the image, in widths or heights of the image.
        swapped: Whether the box would lie inside with x and y exchanged.
    """

    def __init__(
        self, text: str, looks: str | None = None, *, reach: float | None = None, swapped: bool = False
    ) -> None:
        super().__init__(text)
        self.looks, self.reach, self.swapped = looks, reach, swapped


@dataclass(frozen=True)
class Annotation:
    """One object as the file has it.

    Args:
        polygon: Four corners, pixels: x1, y1, ..., x4, y4.
        name: Name of its class.
        difficulty: 0 is easy, 1 is difficult.
        extra: Further entries of its instance.
        other: Names of further facts in the file, which nothing here reads; a conversion counts them.
    """

    polygon: list[float]
    name: str
    difficulty: int = 0
    extra: dict[str, Any] = field(default_factory=dict)
    other: tuple[str, ...] = ()


def parse_text(text: str, known: Collection[str]) -> Iterator[tuple[int, Annotation | BadAnnotation]]:
    """Yield the objects of a label file, each with the number of its line, counted from 1."""
    guesses = _GUESSES
    for number, line in enumerate(text.replace('\r\n', '\n').replace('\r', '\n').split('\n'), 1):
        if not line.strip() or line.strip().lower().startswith(_HEADERS):
            continue
        try:
            yield number, parse_line(line, known)
        except BadAnnotation as error:
            if guesses:
                guesses, error.looks = guesses - 1, guess_line(line)
            yield number, error


def parse_line(line: str, known: Collection[str]) -> Annotation:
    """Parse the corners, class and difficulty (0 if missing) of one line.

    Args:
        line: Line of the file.
        known: Known class names. Others pass, but only these may contain numbers and blanks.

    Raises:
        BadAnnotation: If the line has another form.
    """
    fields = line.split()
    if len(fields) < 9:
        raise BadAnnotation(f'{len(fields)} fields ({clip(line)!r}); it must be {_SHAPE_OF_A_LINE}')
    try:
        polygon = [float(value) for value in fields[:8]]
    except ValueError:
        raise BadAnnotation(f'{clip(line)!r} does not begin with 8 numbers; it must be {_SHAPE_OF_A_LINE}') from None
    if not all(map(math.isfinite, polygon)):
        raise BadAnnotation(f'{clip(line)!r} has a coordinate that is not finite')
    if max(map(abs, polygon)) > FARTHEST:
        raise BadAnnotation(f'{clip(line)!r} has a coordinate beyond {FARTHEST:.0f} pixels')
    name, difficulty = _class_and_difficulty(line, fields[8:], known)
    if name not in known and is_number(name):
        if guess_line(line) in ('yolo-obb', 'yolo-polygon'):
            raise BadAnnotation(f'{clip(line)!r} has coordinates from 0 to 1; they must be pixels')
        if not name.isdigit():
            raise BadAnnotation(f'{clip(line)!r} has a number where the class should be')
    return Annotation(polygon, name, difficulty)


def check_polygon(polygon: list[float], width: int, height: int) -> None:
    """Refuse a box that has no area, lies outside the image, or is not in pixels.

    Raises:
        BadAnnotation: If it does; the message says which.
    """
    if are_fractions(polygon) and min(width, height) > 4:
        raise BadAnnotation('its corners are from 0 to 1, or in the first pixel; they must be pixels', 'fractions')
    points = np.array(polygon, np.float32).reshape(4, 2)
    sides = cv2.minAreaRect(points)[1]
    if min(sides) < _THINNEST:
        raise BadAnnotation(f'its box is {sides[0]:.3g} x {sides[1]:.3g} pixels; it must have an area')
    low, high = points.min(0), points.max(0)
    if (low >= 0).all() and (high <= (width, height)).all():
        return
    image = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    area, _ = cv2.intersectConvexConvex(cv2.convexHull(points), image)
    if area <= 0:
        x, y = ' to '.join(f'{v:g}' for v in (low[0], high[0])), ' to '.join(f'{v:g}' for v in (low[1], high[1]))
        raise BadAnnotation(
            f'its box (x {x}, y {y}) lies outside the image of {width} x {height} pixels',
            reach=float(max(high / (width, height))),
            swapped=bool((low >= 0).all() and (high <= (height, width)).all()),
        )


def parse_difficulty(text: str) -> int | None:
    """Parse a difficulty: 0 is easy, 1 is difficult; ``1.0`` and ``True`` are 1. None if it is not a whole number."""
    truth = {'true': 1, 'false': 0}.get(text.strip().lower())
    if truth is not None:
        return truth
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if value.is_integer() else None


def _class_and_difficulty(line: str, rest: list[str], known: Collection[str]) -> tuple[str, int]:
    """Parse the class, which may have blanks, and the difficulty."""
    whole = ' '.join(rest)
    if whole in known or len(rest) == 1:
        return whole, 0
    difficulty = parse_difficulty(rest[-1])
    words = rest if difficulty is None else rest[:-1]
    name = ' '.join(words)
    if name in known:
        return name, difficulty or 0
    if len(words) == 1:
        return name, difficulty or 0
    if len(rest) == 2 and (rest[0] in known or is_number(rest[1])):
        raise BadAnnotation(f'difficulty {clip(rest[1])!r} is no whole number; 0 is easy, 1 is difficult')
    if len(words) > _WORDS or any(map(is_number, words)):
        raise BadAnnotation(f'{8 + len(rest)} fields ({clip(line)!r}); it must be {_SHAPE_OF_A_LINE}')
    return name, difficulty or 0


def is_number(text: str) -> bool:
    """Tell whether a word of a label file is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True
