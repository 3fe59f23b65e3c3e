"""Cut boxes out of an image and turn them upright."""

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

LONGEST = 2**15 - 2  # pixels; OpenCV warps no longer sides


def upright_crop(image: NDArray[Any], box: Sequence[float]) -> NDArray[Any]:
    """Cut a rotated box out of an image, with the side w along the rows.

    Pixels are interpolated linearly. What lies beyond the image is 0.

    Args:
        image: (H, W) or (H, W, C), of any type that OpenCV interpolates: uint8, uint16, int16 or floats.
        box: cx, cy, w, h in pixels, and the angle in radians from x towards y.

    Returns:
        (h, w) or (h, w, C), sides rounded and at least 1, a pixel of the image to a pixel; of the type of the image.

    Raises:
        ValueError: If a number is not finite, or a side is beyond 32766 pixels.
    """
    cx, cy, w, h, angle = map(float, box)
    if not all(map(math.isfinite, (cx, cy, w, h, angle))):
        raise ValueError(f'box={tuple(box)} has a number that is not finite')
    width, height = max(1, round(w)), max(1, round(h))
    if max(width, height) > LONGEST:
        raise ValueError(f'box={tuple(box)} has a side beyond {LONGEST} pixels')
    cos, sin = math.cos(angle), math.sin(angle)
    # OpenCV warps no image whose sides are beyond 2^15 either: cut the part around the box first
    reach = [(abs(w * cos) + abs(h * sin)) / 2 + 2, (abs(w * sin) + abs(h * cos)) / 2 + 2]
    left, top = (max(0, math.floor(c - r)) for c, r in zip((cx, cy), reach, strict=True))
    right, bottom = math.ceil(cx + reach[0]), math.ceil(cy + reach[1])
    part = image[top : max(bottom, 0), left : max(right, 0)]
    if 0 in part.shape:
        return np.zeros((height, width, *image.shape[2:]), image.dtype)
    along = np.array([[cos, -sin], [sin, cos]]) @ np.diag([w / width, h / height])
    # pixel (column, row) has its centre at + 0.5, in the image and in the crop
    shift = np.array([cx - left, cy - top]) - 0.5 + along @ (np.array([1 - width, 1 - height]) / 2)
    matrix = np.column_stack([along, shift])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    planes = part[..., None] if part.ndim == 2 else part
    warped = [
        cv2.warpAffine(np.ascontiguousarray(planes[..., c]), matrix, (width, height), flags=flags)
        for c in range(planes.shape[2])
    ]
    return warped[0] if image.ndim == 2 else np.stack(warped, -1)
