"""Turn arrays into 8-bit images, and images into files.

Images are (H, W, 3) uint8 in OpenCV's channel order (blue, green, red).
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Image = NDArray[np.uint8]


def as_image(pixels: ArrayLike, bands: Sequence[int] | None = None) -> Image:
    """Copy an array of any type and number of channels into an (H, W, 3) uint8 image.

    One or two channels become grey; of more than three, the first three are taken. Values of other types are stretched
    so that the smallest becomes 0 and the largest 255.

    Args:
        pixels: (H, W) or (H, W, C).
        bands: Channels, counted from 0, to draw as red, green and blue.

    Raises:
        ValueError: If the shape is another, or a band does not exist.
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


def encode_image(image: ArrayLike, suffix: str = '.png', *, quality: int | None = None) -> bytes:
    """Encode an image as the bytes of a file.

    Args:
        image: (H, W, 3) uint8.
        suffix: Kind of file.
        quality: Of a JPEG, 1 to 100; None for OpenCV's, 95.

    Raises:
        ValueError: If OpenCV cannot write this kind of file, or `quality` is given for one that is no JPEG.
    """
    if quality is not None and suffix.lower() not in ('.jpg', '.jpeg'):
        raise ValueError(f"quality={quality} is for .jpg, not for '{suffix}'")
    options = [] if quality is None else [cv2.IMWRITE_JPEG_QUALITY, quality]
    try:
        done, data = cv2.imencode(suffix, as_image(image), options)
    except cv2.error:
        done = False
    if not done:
        raise ValueError(f"pictures cannot be written as '{suffix}'; use .png or .jpg")
    return data.tobytes()
