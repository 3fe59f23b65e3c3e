"""Draw maps of numbers in colour over an image, with their scale."""

import cv2
import numpy as np
from numpy.typing import ArrayLike

from .palette import INK, PAPER
from .pixels import Image, as_image
from .text import put_text, text_size

GROUND = 0.45  # share of the grey image below a heat map
MAP = cv2.COLORMAP_INFERNO  # from dark to bright, also when printed in grey
BAR, MARGIN = 14, 6  # pixels


def heat_map(
    image: ArrayLike, values: ArrayLike, *, title: str, largest: float | None = None, min_size: int = 512
) -> Image:
    """Draw values in colour over the grey image, with a bar of their scale at the right.

    Args:
        image: (H, W, 3) uint8.
        values: (H, W), finite and non-negative.
        title: Name of the values, written above the picture.
        largest: Value of the brightest colour, which larger values share; by default the largest of all.
        min_size: See `draw_boxes`.

    Returns:
        (H', W', 3) uint8, larger than the image.

    Raises:
        ValueError: If the sizes differ, or values are negative or not finite.
    """
    image, values = as_image(image), np.asarray(values, dtype=np.float64)
    if values.shape != image.shape[:2]:
        raise ValueError(f'values are {values.shape}, but the image is {image.shape[:2]}; they must have one size')
    if not (np.isfinite(values) & (values >= 0)).all():
        raise ValueError('values must be finite and not negative')
    top = float(values.max(initial=0)) if largest is None else float(largest)
    level = (values / top if top > 0 else values).clip(0, 1)
    factor = max(1, -(-min_size // max(1, *image.shape[:2])))
    size = (factor * image.shape[1], factor * image.shape[0])
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    grey = cv2.resize(grey, size, interpolation=cv2.INTER_NEAREST)
    level = cv2.resize(level, size, interpolation=cv2.INTER_LINEAR)
    heat = cv2.applyColorMap((255 * level).round().astype(np.uint8), MAP)
    mixed = (heat * (1 - GROUND) + grey[..., None] * GROUND).round().astype(np.uint8)

    numbers = [f'{top * part:.2g}' for part in (1, 0.75, 0.5, 0.25, 0)]
    head = text_size('0')[1] + 4
    wide = 2 * MARGIN + BAR + max(text_size(text)[0] for text in numbers)
    sheet = np.full((head + size[1] + MARGIN, size[0] + wide, 3), PAPER, np.uint8)
    put_text(sheet, title, 2, 1, INK)
    sheet[head : head + size[1], : size[0]] = mixed
    left = size[0] + MARGIN
    ramp = np.linspace(255, 0, size[1]).round().astype(np.uint8)[:, None]
    below = np.uint8(128)  # mix grey into the bar, as the image is mixed into the map
    bar = cv2.applyColorMap(ramp, MAP) * (1 - GROUND) + below * GROUND
    sheet[head : head + size[1], left : left + BAR] = bar.round().astype(np.uint8)
    for i, text in enumerate(numbers):
        height = text_size(text)[1]
        y = head + round(i / (len(numbers) - 1) * (size[1] - height))
        put_text(sheet, text, left + BAR + 1, y, INK)
    return sheet
