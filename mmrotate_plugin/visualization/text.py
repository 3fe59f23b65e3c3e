"""Write short texts into images, with OpenCV's font, and find free places for them."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from .palette import Colour, lighter
from .pixels import Image

FONT = cv2.FONT_HERSHEY_SIMPLEX
TEXT_SCALE = 0.42
PLUS_MINUS = '\N{PLUS-MINUS SIGN}'


def to_ascii(text: str) -> str:
    """Replace letters that OpenCV's fonts lack, except the plus-minus sign, which `put_text` draws."""
    return PLUS_MINUS.join(part.encode('ascii', 'replace').decode() for part in text.split(PLUS_MINUS))


def text_size(text: str, scale: float = TEXT_SCALE) -> tuple[int, int]:
    """Return the width and height of the space that a text takes, in pixels."""
    (width, height), baseline = cv2.getTextSize(text.replace(PLUS_MINUS, '+'), FONT, scale, 1)
    return width + 4, height + baseline + 2


def put_text(image: Image, text: str, x: int, y: int, colour: Colour, scale: float = TEXT_SCALE) -> None:
    """Write `text` in place, its upper left corner at x, y."""
    plain = text.replace(PLUS_MINUS, '+')
    (_, height), _ = cv2.getTextSize(plain, FONT, scale, 1)
    cv2.putText(image, plain, (x + 2, y + height + 2), FONT, scale, colour, 1, cv2.LINE_AA)
    for i in (i for i, letter in enumerate(text) if letter == PLUS_MINUS):
        left, right = (x + 2 + cv2.getTextSize(plain[:end], FONT, scale, 1)[0][0] for end in (i, i + 1))
        cv2.line(image, (left + 1, y + height + 4), (right - 2, y + height + 4), colour, 1)


def place_text(
    image: Image, texts: Sequence[str], polygon: NDArray[np.float64], colour: Colour, taken: NDArray[np.uint8]
) -> None:
    """Write the first of `texts` for which there is a free place next to the polygon.

    Args:
        image: (H, W, 3), changed in place.
        texts: The same thing said ever shorter.
        polygon: (4, 2), pixels.
        colour: Of the polygon; the text is lighter.
        taken: (H, W), 1 where no text may go; the text's own place is added.
    """
    rows, columns = image.shape[:2]
    left, top = np.floor(polygon.min(axis=0)).astype(int).tolist()
    right, bottom = np.ceil(polygon.max(axis=0)).astype(int).tolist()
    if right < 0 or bottom < 0 or left >= columns or top >= rows:
        return
    middle = (top + bottom) // 2
    light = lighter(colour)
    for text in texts:
        width, height = text_size(text)
        places = (
            (left, top - height - 1),
            (right - width, bottom + 2),
            (right + 2, middle - height // 2),
            (left - width - 2, middle - height // 2),
            (right - width, top - height - 1),
            (left, bottom + 2),
        )
        for x, y in places:
            x, y = min(max(x, 0), columns - width), min(max(y, 0), rows - height)
            if x < 0 or y < 0:  # the text is larger than the image
                continue
            here = taken[y : y + height, x : x + width]
            if here.mean() > 0.1:  # corners of slanted boxes may be touched
                continue
            here[:] = 1
            patch = image[y : y + height, x : x + width]
            patch[:] = (patch * 0.35).astype(np.uint8)  # the background shines through
            put_text(image, text, x, y, light)
            return
