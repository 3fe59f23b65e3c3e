"""One labelled image, as a conversion carries it from one format to another."""

from dataclasses import dataclass, field
from pathlib import Path

from ..dota_format import Annotation

DECIMALS = 6  # of a pixel in label files


@dataclass
class Sample:
    """An image with its objects.

    Args:
        image: Its file.
        split: Name of its part of the data, such as 'train'; '' if there is one part only.
        width: Pixels.
        height: Pixels.
        objects: Its objects, corners in pixels.
        label: File that has them; None if there is none.
    """

    image: Path
    split: str
    width: int
    height: int
    objects: list[Annotation] = field(default_factory=list)
    label: Path | None = None


def number(value: float, decimals: int = DECIMALS) -> str:
    """Write a number with at most `decimals` decimals, without trailing zeros and without an exponent."""
    text = f'{value:.{decimals}f}'.rstrip('0').rstrip('.')
    return '0' if text == '-0' else text
