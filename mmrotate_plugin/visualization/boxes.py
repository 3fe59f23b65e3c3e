"""Rotated and horizontal boxes drawn onto images.

Images are (H, W, 3) uint8 in OpenCV's channel order (blue, green, red); boxes are in pixels of the image.
"""

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from .bands import Band, fill_bands

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]

FONT = cv2.FONT_HERSHEY_SIMPLEX
TEXT_SCALE = 0.42
PAPER: Colour = (255, 255, 255)
INK: Colour = (25, 25, 25)
PLUS_MINUS = '\N{PLUS-MINUS SIGN}'


def to_polygons(boxes: ArrayLike) -> NDArray[np.float64]:
    """Corners of boxes, whatever their kind.

    Args:
        boxes: (N, 4) as x1, y1, x2, y2; (N, 5) as cx, cy, w, h, angle in radians, from x towards y (mmrotate's);
            or (N, 8), four corners.

    Returns:
        (N, 4, 2) corners, x then y.

    Raises:
        ValueError: If the last size is none of 4, 5, 8.
    """
    boxes = np.asarray(boxes, dtype=np.float64)
    if boxes.size == 0:
        return np.zeros((0, 4, 2))
    if boxes.ndim != 2 or boxes.shape[1] not in (4, 5, 8):
        raise ValueError(f'boxes must be (N, 4), (N, 5) or (N, 8), but came as {boxes.shape}')
    if boxes.shape[1] == 8:
        return boxes.reshape(-1, 4, 2)
    if boxes.shape[1] == 4:
        x1, y1, x2, y2 = boxes.T
        return np.stack([x1, y1, x2, y1, x2, y2, x1, y2], axis=1).reshape(-1, 4, 2)
    centre, size, angle = boxes[:, None, :2], boxes[:, None, 2:4], boxes[:, 4]
    unit = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.stack([cos, sin, -sin, cos], axis=1).reshape(-1, 2, 2)  # row vectors: x y times this
    return centre + (unit * size) @ turn


def class_colours(number: int, palette: Sequence[Sequence[int]] | str | None = None) -> list[Colour]:
    """One colour (blue, green, red) per class.

    Args:
        number: How many classes.
        palette: Colours as red, green, blue, as in the `metainfo` of a dataset. It is used if it has enough of them;
            otherwise hues are spread by the golden ratio, so that neighbours in the list look different.
    """
    if palette is not None and not isinstance(palette, str) and len(palette) >= number:
        return [(int(c[2]), int(c[1]), int(c[0])) for c in palette[:number]]
    colours = []
    for i in range(number):
        hue = (0.08 + i * 0.61803398875) % 1
        red, green, blue = colorsys.hsv_to_rgb(hue, (0.95, 0.6)[i // 6 % 2], 1.0)
        colours.append((round(255 * blue), round(255 * green), round(255 * red)))
    return colours


def as_image(pixels: ArrayLike, bands: Sequence[int] | None = None) -> Image:
    """Anything like an image as a new (H, W, 3) uint8 array; one or two channels become grey, of more the first three.

    Values that are not 8 bits wide are stretched from their smallest and largest to 0 and 255.

    Args:
        pixels: (H, W) or (H, W, C).
        bands: Channels, counted from 0, that are drawn as red, green and blue.

    Raises:
        ValueError: For arrays of another shape, and bands that are not there.
    """
    pixels = np.asarray(pixels)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if bands is not None and pixels.ndim == 3:
        if len(bands) != 3 or not all(0 <= band < pixels.shape[2] for band in bands):
            raise ValueError(f'bands={tuple(bands)} must be three channels from 0 to {pixels.shape[2] - 1}')
        pixels = pixels[..., list(bands)[::-1]]
    if pixels.ndim != 3 or pixels.shape[2] == 0:
        raise ValueError(f'an image must be (H, W), (H, W, 1) or (H, W, 3), but came as {pixels.shape}')
    pixels = np.repeat(pixels[..., :1], 3, axis=2) if pixels.shape[2] < 3 else pixels[..., :3]
    if pixels.dtype != np.uint8:
        pixels = np.nan_to_num(pixels.astype(np.float64))
        low, high = (pixels.min(), pixels.max()) if pixels.size else (0.0, 0.0)
        pixels = (pixels - low) * (255 / (high - low) if high > low else 1)
        pixels = np.clip(pixels, 0, 255)
    return np.ascontiguousarray(pixels.astype(np.uint8)).copy()


def draw_boxes(
    image: ArrayLike,
    boxes: ArrayLike,
    labels: ArrayLike | None = None,
    scores: ArrayLike | None = None,
    *,
    classes: Sequence[str] = (),
    colours: Sequence[Colour] | None = None,
    scores_std: ArrayLike | None = None,
    bands: Sequence[Band] | None = None,
    min_size: int = 512,
) -> Image:
    """Outline boxes on a copy of an image.

    The four sides look alike: the angle of a rotated box tells no front from a back. A text says class and score where
    it hides no other text; in a crowd it shrinks to the score, then it is left out, and the colours remain.

    Args:
        image: (H, W, 3) uint8.
        boxes: (N, 4), (N, 5) or (N, 8), see `to_polygons`.
        labels: (N,) indices into `classes`; all 0 if missing.
        scores: (N,) in [0, 1]; boxes of higher score are drawn on top.
        classes: Names for the texts; an index beyond them is written as a number.
        colours: One per class, by default `class_colours`.
        scores_std: (N,) standard deviations, which the texts then say too.
        bands: For each box an outer and an inner curve, (P, 2) each, see `box_bands`; the area between them is coloured
            and the outline is thin, not to cover it.
        min_size: An image whose longer side is below this is enlarged by a whole number, for lines and texts to be
            readable; boxes are scaled along.

    Returns:
        (f H, f W, 3) uint8, f = 1 for large images.
    """
    image = as_image(image)
    polygons = to_polygons(boxes)
    number = len(polygons)
    labels = np.zeros(number, int) if labels is None else np.asarray(labels, dtype=int)
    if len(labels) != number or (scores is not None and len(np.asarray(scores)) != number):
        raise ValueError(f'{number} boxes came with {len(labels)} labels and {np.size(scores)} scores')
    if scores_std is not None and (scores is None or len(np.asarray(scores_std)) != number):
        raise ValueError(f'{np.size(scores_std)} scores_std came with {np.size(scores)} scores; give one for each')
    if bands is not None and len(bands) != number:
        raise ValueError(f'{number} boxes came with {len(bands)} bands')
    if colours is None:
        colours = class_colours(max(len(classes), int(labels.max(initial=0)) + 1))

    factor = max(1, -(-min_size // max(1, *image.shape[:2])))
    if factor > 1:
        image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)
    # pixel centres: x in the small image is factor * (x + 0.5) - 0.5 in the large one
    polygons = (polygons + 0.5) * factor - 0.5
    order = np.arange(number) if scores is None else np.argsort(np.asarray(scores), kind='stable')

    visible = polygons[np.isfinite(polygons).all(axis=(1, 2))]
    sides = np.linalg.norm(np.roll(visible, -1, axis=1) - visible, axis=2).min(axis=1)
    width = 2 if len(sides) == 0 or np.median(sides) >= 16 else 1  # thick lines would cover small objects
    if bands is not None:
        width = 1
        large = [tuple((curve + 0.5) * factor - 0.5 for curve in bands[i]) for i in order]
        fill_bands(image, large, [colours[labels[i] % len(colours)] for i in order])
    for dark in (True, False) if bands is None else (False,):  # all shadows below all lines; they would hide bands
        for i in order:
            if not np.isfinite(polygons[i]).all():
                continue
            corners = [np.clip(polygons[i] * 16, -(2**26), 2**26).round().astype(np.int32)]
            if dark:
                cv2.polylines(image, corners, True, (0, 0, 0), width + 2, cv2.LINE_AA, shift=4)
            else:
                colour = colours[labels[i] % len(colours)]
                colour = colour if bands is None else _lighter(colour)  # a band has the colour itself
                cv2.polylines(image, corners, True, colour, width, cv2.LINE_AA, shift=4)

    taken = np.zeros(image.shape[:2], np.uint8)  # where no text may go: on objects and on other texts
    for polygon in visible:
        cv2.fillPoly(taken, [np.clip(polygon, -(2**15), 2**15).round().astype(np.int32)], 1)
    for i in reversed(order):
        if not np.isfinite(polygons[i]).all():
            continue
        texts = [_ascii(classes[labels[i]] if 0 <= labels[i] < len(classes) else str(labels[i]))]
        if scores is not None:
            score = f'{float(np.asarray(scores)[i]):.2f}'
            if scores_std is not None:
                std = float(np.asarray(scores_std)[i])
                score = f'{score}{PLUS_MINUS}{std:{".2f" if std >= 0.01 else ".1g"}}'
            texts = [f'{texts[0]} {score}', score]
        _place_text(image, texts, polygons[i], colours[labels[i] % len(colours)], taken)
    return image


def _lighter(colour: Colour) -> Colour:
    return tuple(c // 2 + 128 for c in colour)


def _ascii(text: str) -> str:
    """OpenCV's fonts know no other letters; `put_text` makes one."""
    return PLUS_MINUS.join(part.encode('ascii', 'replace').decode() for part in text.split(PLUS_MINUS))


def text_size(text: str, scale: float = TEXT_SCALE) -> tuple[int, int]:
    (width, height), baseline = cv2.getTextSize(text.replace(PLUS_MINUS, '+'), FONT, scale, 1)
    return width + 4, height + baseline + 2


def put_text(image: Image, text: str, x: int, y: int, colour: Colour, scale: float = TEXT_SCALE) -> None:
    """Write `text` with its upper left corner at x, y."""
    plain = text.replace(PLUS_MINUS, '+')
    (_, height), _ = cv2.getTextSize(plain, FONT, scale, 1)
    cv2.putText(image, plain, (x + 2, y + height + 2), FONT, scale, colour, 1, cv2.LINE_AA)
    for i in (i for i, letter in enumerate(text) if letter == PLUS_MINUS):
        left, right = (x + 2 + cv2.getTextSize(plain[:end], FONT, scale, 1)[0][0] for end in (i, i + 1))
        cv2.line(image, (left + 1, y + height + 4), (right - 2, y + height + 4), colour, 1)


def _place_text(
    image: Image, texts: list[str], polygon: NDArray[np.float64], colour: Colour, taken: NDArray[np.uint8]
) -> None:
    """Write the first of `texts` that has a free place beside the polygon."""
    rows, columns = image.shape[:2]
    left, top = np.floor(polygon.min(axis=0)).astype(int).tolist()
    right, bottom = np.ceil(polygon.max(axis=0)).astype(int).tolist()
    if right < 0 or bottom < 0 or left >= columns or top >= rows:
        return
    middle = (top + bottom) // 2
    light = _lighter(colour)  # pure blue on dark ground cannot be read
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
            patch[:] = (patch * 0.35).astype(np.uint8)  # the ground shines through
            put_text(image, text, x, y, light)
            return


def legend(classes: Sequence[str], colours: Sequence[Colour] | None = None, *, width: int = 512) -> Image:
    """A strip that names the colours, in as many rows as the width asks for.

    Returns:
        (rows, width, 3) uint8.
    """
    colours = class_colours(len(classes)) if colours is None else colours
    line, margin, square = 20, 6, 12
    places, x, y = [], margin, margin
    for name in map(_ascii, classes):
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
    """Images next to each other, a caption above each, one legend below all.

    Args:
        panels: Pairs of a caption and an (H, W, 3) image; heights may differ.
        classes, colours: Of the legend; without classes there is none.
    """
    if not panels:
        raise ValueError('side_by_side needs at least one panel')
    images = [(_ascii(caption), as_image(image)) for caption, image in panels]
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


def encode_image(image: ArrayLike, suffix: str = '.png') -> bytes:
    """The bytes of an image file.

    Raises:
        ValueError: If OpenCV cannot write this kind of file.
    """
    try:
        done, data = cv2.imencode(suffix, as_image(image))
    except cv2.error:
        done = False
    if not done:
        raise ValueError(f"pictures cannot be written as '{suffix}'; use .png or .jpg")
    return data.tobytes()
