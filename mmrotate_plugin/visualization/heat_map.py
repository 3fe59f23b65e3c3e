"""Maps of numbers in colour, over the image, with their scale."""

import cv2
import numpy as np
from numpy.typing import ArrayLike

from .boxes import INK, PAPER, Image, as_image, put_text, text_size

GROUND = 0.45  # of the grey image below a heat map
MAP = cv2.COLORMAP_INFERNO  # dark to bright; in grey too
BAR, MARGIN = 14, 6  # pixels


def heat_map(
    image: ArrayLike, values: ArrayLike, *, title: str, largest: float | None = None, min_size: int = 512
) -> Image:
    """Values in colour over the grey image, beside them a bar with their scale.

    Args:
        image: (H, W, 3) uint8.
        values: (H, W), none negative.
        title: What they are, above the picture.
        largest: The value of the brightest colour, by default the largest one; larger ones look like it.
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
    below = np.uint8(128)  # the image is mixed in, so the bar is too
    bar = cv2.applyColorMap(ramp, MAP) * (1 - GROUND) + below * GROUND
    sheet[head : head + size[1], left : left + BAR] = bar.round().astype(np.uint8)
    for i, text in enumerate(numbers):
        height = text_size(text)[1]
        y = head + round(i / (len(numbers) - 1) * (size[1] - height))
        put_text(sheet, text, left + BAR + 1, y, INK)
    return sheet
