"""Fill areas between two curves, such as where the sides of a box may lie."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Band = tuple[NDArray[np.float64], NDArray[np.float64]]  # outer and inner curve, (P, 2)

OPACITY = 0.6


def fill_bands(image: NDArray[np.uint8], bands: Sequence[Band], colours: Sequence[tuple[int, int, int]]) -> None:
    """Colour the area between each pair of curves, translucently, in place.

    Args:
        image: (H, W, 3) uint8.
        bands: Pairs of curves, in pixels of the image.
        colours: One for each band.
    """
    rows, columns = image.shape[:2]
    for (outer, inner), colour in zip(bands, colours, strict=True):
        if not (np.isfinite(outer).all() and np.isfinite(inner).all()):
            continue
        low = np.clip(np.floor(outer.min(axis=0)).astype(int) - 1, 0, (columns, rows))
        high = np.clip(np.ceil(outer.max(axis=0)).astype(int) + 2, 0, (columns, rows))
        if (high <= low).any():
            continue
        patch = image[low[1] : high[1], low[0] : high[0]]
        area = np.zeros(patch.shape[:2], np.uint8)
        for curve, value in ((outer, 255), (inner, 0)):
            points = np.clip((curve - low) * 16, -(2**26), 2**26).round().astype(np.int32)
            cv2.fillPoly(area, [points], (value,), cv2.LINE_AA, shift=4)
        weight = (OPACITY / 255) * area[..., None]
        patch[:] = (patch * (1 - weight) + np.array(colour) * weight).round().astype(np.uint8)
