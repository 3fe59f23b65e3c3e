"""Draw rotated and horizontal boxes onto images; boxes are in pixels of the image."""

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..structures.corners import box_corners
from .bands import Band, fill_bands
from .palette import Colour, class_colours, lighter
from .pixels import Image, as_image
from .text import PLUS_MINUS, place_text, to_ascii

LARGE = 16  # pixels: the median of the shorter sides from which lines are thick
FAR = 2**26  # sixteenths of a pixel, within the range of OpenCV's integers


def to_polygons(boxes: ArrayLike) -> NDArray[np.float64]:
    """Return the corners of boxes of any kind.

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
    return box_corners(boxes)


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

    The four sides look alike: the angle of a rotated box does not tell front from back. A text gives class and score
    where it hides no other text. In a crowd it shrinks to the score, then disappears; the colours remain.

    Args:
        image: (H, W, 3) uint8.
        boxes: (N, 4), (N, 5) or (N, 8), see `to_polygons`.
        labels: (N,) indices into `classes`; all 0 if missing.
        scores: (N,) in [0, 1]; boxes of higher score are drawn on top.
        classes: Names for the texts; an index beyond them is written as a number.
        colours: One per class, by default `class_colours`.
        scores_std: (N,) standard deviations, which the texts then give too.
        bands: For each box an outer and an inner curve, (P, 2) each, see `box_bands`. The area between them is
            coloured, and the outline is thin so as not to cover it.
        min_size: Enlarge an image whose longer side is shorter than this by a whole number, to keep lines and texts
            readable; boxes are scaled along.

    Returns:
        (f H, f W, 3) uint8, f = 1 for large images.

    Raises:
        ValueError: If there are not as many labels, scores, `scores_std` or `bands` as boxes.
    """
    image = as_image(image)
    polygons = to_polygons(boxes)
    number = len(polygons)
    labels = np.zeros(number, int) if labels is None else np.asarray(labels, dtype=int)
    scores = None if scores is None else np.asarray(scores, dtype=np.float64)
    scores_std = None if scores_std is None else np.asarray(scores_std, dtype=np.float64)
    if len(labels) != number or (scores is not None and len(scores) != number):
        count = 'no' if scores is None else scores.size
        raise ValueError(f'{number} boxes came with {len(labels)} labels and {count} scores')
    if scores_std is not None and (scores is None or len(scores_std) != number):
        count = 'no' if scores is None else scores.size
        raise ValueError(f'{scores_std.size} scores_std came with {count} scores; give one for each')
    if bands is not None and len(bands) != number:
        raise ValueError(f'{number} boxes came with {len(bands)} bands')
    if colours is None:
        colours = class_colours(max(len(classes), int(labels.max(initial=0)) + 1))
    of_box = [colours[label % len(colours)] for label in labels.tolist()]

    factor = max(1, -(-min_size // max(1, *image.shape[:2])))
    if factor > 1:
        image = as_image(cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST))
    # pixel centres: x in the small image is factor * (x + 0.5) - 0.5 in the large one
    polygons = (polygons + 0.5) * factor - 0.5
    finite = np.array([np.isfinite(polygon).all() for polygon in polygons], dtype=bool)
    order = (np.arange(number) if scores is None else np.argsort(scores, kind='stable')).tolist()

    if bands is not None:
        large = [((outer + 0.5) * factor - 0.5, (inner + 0.5) * factor - 0.5) for outer, inner in bands]
        fill_bands(image, [large[i] for i in order], [of_box[i] for i in order])
    drawn = [i for i in order if finite[i]]
    outlines = [(polygons[i], of_box[i]) for i in drawn]
    if bands is None:
        _outline(image, outlines, _line_width(polygons[finite]))
    else:
        _outline(image, [(polygon, lighter(colour)) for polygon, colour in outlines], 1, shadows=False)

    taken = np.zeros(image.shape[:2], np.uint8)  # where no text may go: on objects and on other texts
    for polygon in polygons[finite]:
        cv2.fillPoly(taken, [np.clip(polygon, -(2**15), 2**15).round().astype(np.int32)], (1,))
    for i in reversed(drawn):
        label = int(labels[i])
        texts = [to_ascii(classes[label] if 0 <= label < len(classes) else str(label))]
        if scores is not None:
            score = _score_text(scores[i], None if scores_std is None else scores_std[i])
            texts = [f'{texts[0]} {score}', score]
        place_text(image, texts, polygons[i], of_box[i], taken)
    return image


def _line_width(polygons: NDArray[np.float64]) -> int:
    """Choose thin lines for small objects, which thick ones would cover."""
    sides = np.linalg.norm(np.roll(polygons, -1, axis=1) - polygons, axis=2).min(axis=1)
    return 2 if len(sides) == 0 or np.median(sides) >= LARGE else 1


def _outline(
    image: Image, outlines: Iterable[tuple[NDArray[np.float64], Colour]], width: int, *, shadows: bool = True
) -> None:
    """Draw polygons in their colours, in place; all shadows lie below all lines."""
    fixed = [(np.clip(polygon * 16, -FAR, FAR).round().astype(np.int32), colour) for polygon, colour in outlines]
    for corners, _ in fixed if shadows else ():
        cv2.polylines(image, [corners], True, (0, 0, 0), width + 2, cv2.LINE_AA, shift=4)
    for corners, colour in fixed:
        cv2.polylines(image, [corners], True, colour, width, cv2.LINE_AA, shift=4)


def _score_text(score: float, std: float | None) -> str:
    if std is None:
        return f'{score:.2f}'
    return f'{score:.2f}{PLUS_MINUS}{std:{".2f" if std >= 0.01 else ".1g"}}'
