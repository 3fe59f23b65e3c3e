"""Put images side by side on one sheet, with captions and a legend."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike

from .palette import INK, PAPER, Colour, class_colours
from .pixels import Image, as_image
from .text import put_text, text_size, to_ascii


def legend(classes: Sequence[str], colours: Sequence[Colour] | None = None, *, width: int = 512) -> Image:
    """Draw a strip that names the colours, in as many rows as fit the width.

    Returns:
        (rows, width, 3) uint8.
    """
    colours = class_colours(len(classes)) if colours is None else colours
    line, margin, square = 20, 6, 12
    places, x, y = [], margin, margin
    for name in map(to_ascii, classes):
        wide = square + 4 + text_size(name)[0] + 8
        if x > margin and x + wide > width:
            x, y = margin, y + line
        places.append((x, y, name))
        x += wide
    strip = np.full((y + line + 2, width, 3), PAPER, np.uint8)
    for (x, y, name), colour in zip(places, colours, strict=False):
        cv2.rectangle(strip, (x, y), (x + square, y + square), colour, -1)
        cv2.rectangle(strip, (x, y), (x + square, y + square), INK, 1)
        put_text(strip, name, x + square + 4, y - 1, INK)
    return strip


def side_by_side(
    panels: Sequence[tuple[str, ArrayLike]],
    *,
    classes: Sequence[str] = (),
    colours: Sequence[Colour] | None = None,
) -> Image:
    """Put images next to each other, each below its caption, with one legend below all.

    Args:
        panels: Pairs of a caption and an (H, W, 3) image; heights may differ.
        classes, colours: Entries of the legend; without classes there is no legend.

    Raises:
        ValueError: If there is no panel.
    """
    if not panels:
        raise ValueError('side_by_side needs at least one panel')
    images = [(to_ascii(caption), as_image(image)) for caption, image in panels]
    height = max(image.shape[0] for _, image in images)
    gap, head = 6, 24
    columns = []
    for caption, image in images:
        column = np.full((head + height, image.shape[1], 3), PAPER, np.uint8)
        while len(caption) > 4 and text_size(caption, 0.5)[0] > image.shape[1]:
            caption = caption[:-4] + '...'
        put_text(column, caption, 2, 4, INK, 0.5)
        column[head : head + image.shape[0]] = image
        columns += [column, np.full((head + height, gap, 3), PAPER, np.uint8)]
    sheet = np.concatenate(columns[:-1], axis=1)
    if classes:
        sheet = np.concatenate([sheet, legend(classes, colours, width=sheet.shape[1])])
    return sheet
