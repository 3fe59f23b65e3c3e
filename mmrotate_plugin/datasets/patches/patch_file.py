"""Encode a patch as an image file that keeps its bits, its channels and its place on the ground."""

import io
import warnings
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ...utils.errors import UsageError
from ..utils.image_headers import BANDS, ImageKind
from .window_reader import find_rasterio

LOSSY = ('.jpg', '.jpeg')
ENDINGS = ('.png', '.tif', '.tiff', '.bmp', *LOSSY)
_QUALITY = 95
_PNG_LEVEL = 3


def ending_for(kind: ImageKind) -> str:
    """Choose the ending that loses nothing: '.tif' for a TIFF, and '.png' for all others."""
    return '.tif' if kind.format == 'TIFF' else '.png'


def check_ending(ending: str, kind: ImageKind, name: str) -> None:
    """Refuse an ending whose format cannot hold an image.

    Raises:
        UsageError: If it cannot.
    """
    most = 16 if ending == '.png' else 8
    if ending in ('.tif', '.tiff'):
        return
    if kind.bits > most or kind.sample != 'uint' or kind.channels > 4 or kind.coding == BANDS:
        raise UsageError(
            f"save_ext='{ending}' cannot hold '{name}', which has {kind.channels} channels of {kind.bits} bits "
            f'({kind.sample}); leave save_ext out, or write tif'
        )
    if kind.channels == 4 and ending != '.png':
        raise UsageError(f"save_ext='{ending}' cannot hold '{name}', which has 4 channels; write png or tif")


def pad(image: NDArray[Any], side: int, value: tuple[float, ...]) -> NDArray[Any]:
    """Pad an image, (H, W) or (H, W, C), at its right and lower edge to a square.

    Args:
        image: Samples of any type.
        side: Pixels.
        value: One number, or one for each channel.

    Raises:
        UsageError: If the numbers do not fit the channels or their type.
    """
    if image.shape[:2] == (side, side):
        return image
    channels = image.shape[2] if image.ndim == 3 else 1
    if len(value) not in (1, channels):
        raise UsageError(f'padding_value={value} has {len(value)} numbers, and an image has {channels} channels')
    filling = np.asarray(value if image.ndim == 3 else value[0])
    if not np.array_equal(filling.astype(image.dtype), filling) and image.dtype.kind != 'f':
        raise UsageError(f'padding_value={value} does not fit samples of type {image.dtype}')
    padded = np.empty((side, side, *image.shape[2:]), image.dtype)
    padded[...] = filling.astype(image.dtype)
    padded[: image.shape[0], : image.shape[1]] = image
    return padded


def encode(image: NDArray[Any], ending: str, kind: ImageKind, profile: dict[str, Any]) -> bytes:
    """Encode a patch.

    Args:
        image: (H, W) or (H, W, C), channels in the stored order.
        ending: One of `ENDINGS`.
        kind: Of the image that it was cut from.
        profile: See `WindowReader.profile`.

    Raises:
        UsageError: If the format cannot hold the image.
    """
    colours = image.ndim == 3 and image.shape[2] in (3, 4) and kind.coding != BANDS
    if ending in ('.tif', '.tiff'):
        if profile:
            return _geotiff(image, colours, profile)
        try:
            import tifffile
        except ImportError:
            pass  # OpenCV writes the usual kinds
        else:
            buffer = io.BytesIO()
            layout: dict[str, Any] = {'planarconfig': 'contig'} if image.ndim == 3 else {}
            photometric = 'rgb' if colours else 'minisblack'
            tifffile.imwrite(buffer, image, photometric=photometric, compression='zlib', metadata=None, **layout)
            return buffer.getvalue()
    if colours:
        image = image[..., [2, 1, 0, *range(3, image.shape[2])]]
    quality = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY] if ending in LOSSY else []
    options = [cv2.IMWRITE_PNG_COMPRESSION, _PNG_LEVEL] if ending == '.png' else quality
    try:
        done, data = cv2.imencode(ending, np.ascontiguousarray(image), options)
    except cv2.error:
        done = False
    if not done:
        raise UsageError(
            f"save_ext='{ending}' cannot hold patches of shape {image.shape} and type {image.dtype}; write tif"
        )
    return data.tobytes()


def _geotiff(image: NDArray[Any], colours: bool, profile: dict[str, Any]) -> bytes:
    bands = image[None] if image.ndim == 2 else np.moveaxis(image, -1, 0)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of files without a place on the ground
        with find_rasterio().io.MemoryFile() as memory:
            with memory.open(
                driver='GTiff',
                width=bands.shape[2],
                height=bands.shape[1],
                count=len(bands),
                dtype=bands.dtype.name,
                interleave='pixel',
                compress='deflate',
                photometric='RGB' if colours else 'MINISBLACK',
                **profile,
            ) as target:
                target.write(bands)
            return bytes(memory.read())
