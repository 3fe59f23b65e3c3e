"""Colours of classes, of paper and of ink, as (blue, green, red)."""

import colorsys
from collections.abc import Sequence

Colour = tuple[int, int, int]

PAPER: Colour = (255, 255, 255)
INK: Colour = (25, 25, 25)


def class_colours(number: int, palette: Sequence[Sequence[int]] | str | None = None) -> list[Colour]:
    """Choose one colour (blue, green, red) per class.

    Args:
        number: How many classes.
        palette: Colours (red, green, blue), as in the `metainfo` of a dataset; used if there are enough. Otherwise hues
            are spread by the golden ratio, so that neighbours in the list look different.
    """
    if palette is not None and not isinstance(palette, str) and len(palette) >= number:
        return [(int(c[2]), int(c[1]), int(c[0])) for c in palette[:number]]
    colours = []
    for i in range(number):
        hue = (0.08 + i * 0.61803398875) % 1
        red, green, blue = colorsys.hsv_to_rgb(hue, (0.95, 0.6)[i // 6 % 2], 1.0)
        colours.append((round(255 * blue), round(255 * green), round(255 * red)))
    return colours


def lighter(colour: Colour) -> Colour:
    """Mix a colour half and half with white; pure blue on dark ground is hard to read."""
    blue, green, red = (value // 2 + 128 for value in colour)
    return blue, green, red
