"""Read windows of an image file, without decoding the whole image where a library can."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..transforms.loading import LoadImageFromFile
from ..utils.broken_files import BrokenFileError
from ..utils.image_headers import BANDS, Header, ImageKindError

CACHE = 128 * 2**20  # bytes of decoded rows that GDAL keeps, so that the next row of windows finds those it shares
PLAIN = {'MINISBLACK', 'RGB', 'YCBCR', BANDS, 'L', 'RGBA', 'I;16'}  # codings whose stored samples are the image
_FORMATS = ('TIFF', 'PNG')  # decoded row by row or tile by tile to the same values as by OpenCV


class WindowReader:
    """An image file that is opened once and read in windows, by any number of threads.

    With rasterio, TIFF and PNG files are decoded in parts. Without it, a TIFF that is not compressed is read in parts
    by tifffile. Other files are decoded whole, by `LoadImageFromFile`: upright, and with all channels and bits.

    Args:
        path: The file.
        header: Its header.

    Attributes:
        how: 'rasterio', 'tifffile' or 'whole'; None before the first window.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self.path, self.header = path, header
        self.how: str | None = None
        self._lock = threading.Lock()
        self._source: Any = None
        self._order: list[int] | None = None  # from OpenCV's order of channels to the stored one, window by window

    @property
    def in_parts(self) -> bool:
        """Tell whether a library may read the file in parts, judging by its header."""
        kind = self.header.kind
        known = kind.format in _FORMATS and kind.coding in PLAIN and kind.orientation == 1 and kind.sample != 'complex'
        return known and find_rasterio() is not None

    def read(self, x: int, y: int, width: int, height: int) -> NDArray[Any]:
        """Read a window within the image, (height, width) or (height, width, C), channels in the stored order.

        Raises:
            BrokenFileError: If it cannot be decoded.
            ImageKindError: If no installed library can decode it.
        """
        with self._lock, self._broken_file_errors():
            if self._source is None:
                self._open()
            if self.how == 'rasterio':
                rasterio = find_rasterio()
                with rasterio.Env(GDAL_CACHEMAX=CACHE):
                    bands = self._source.read(window=rasterio.windows.Window(x, y, width, height))
                return np.ascontiguousarray(bands[0] if len(bands) == 1 else np.moveaxis(bands, 0, -1))
            part = self._source[y : y + height, x : x + width]
            part = part if self._order is None else part[..., self._order]
            return np.array(part, part.dtype.newbyteorder('='))

    def profile(self, x: int, y: int, width: int, height: int) -> dict[str, Any]:
        """Describe a window for `rasterio.open`: place on the ground, no-data value, bits; empty without rasterio."""
        if self.how != 'rasterio' or self.header.kind.format != 'TIFF':
            return {}
        source, rasterio = self._source, find_rasterio()
        with self._lock:
            bits = source.tags(1, ns='IMAGE_STRUCTURE').get('NBITS')
        found = {'crs': source.crs, 'nodata': source.nodata, **({'nbits': bits} if bits else {})}
        if not source.transform.is_identity:
            found['transform'] = source.window_transform(rasterio.windows.Window(x, y, width, height))
        return found

    def close(self) -> None:
        """Forget the pixels."""
        with self._lock:
            if self.how == 'rasterio':
                self._source.close()
            self._source = None

    def _open(self) -> None:
        size, kind = (self.header.height, self.header.width), self.header.kind
        if self.in_parts:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')  # of files without a place on the ground
                source = find_rasterio().open(self.path)
            if self._fits(source):
                self._source, self.how = source, 'rasterio'
                return
            source.close()
        if kind.format == 'TIFF' and kind.coding in PLAIN and kind.orientation == 1:
            self._source = _mapped(self.path, size, kind.channels)
            self.how = 'tifffile'
        if self._source is None:
            image = LoadImageFromFile(color_type='unchanged').stored(str(self.path))
            if image.ndim == 3 and image.shape[2] in (3, 4) and kind.coding != BANDS:
                self._order = [2, 1, 0, 3][: image.shape[2]]
            self._source, self.how = image, 'whole'
            size = size[::-1] if kind.orientation >= 5 else size
        if self._source.shape[:2] != size:
            raise BrokenFileError(f'{self.path} has {self._source.shape[:2]} pixels, and its header says {size}')

    def _fits(self, source: Any) -> bool:
        """Tell whether rasterio sees what the package's own reader sees."""
        kind = self.header.kind
        bits = source.tags(1, ns='IMAGE_STRUCTURE').get('NBITS')
        return (
            (source.width, source.height, source.count) == (self.header.width, self.header.height, kind.channels)
            and len(set(source.dtypes)) == 1
            and (bits is None or int(bits) > 8)
            and (kind.format == 'TIFF' or source.nodata is None)
        )

    @contextmanager
    def _broken_file_errors(self) -> Iterator[None]:
        try:
            yield
        except (BrokenFileError, ImageKindError, MemoryError):
            raise
        except Exception as error:  # those of rasterio, tifffile, Pillow and OpenCV
            raise BrokenFileError(f'{self.path} cannot be decoded ({error})') from error


def _mapped(path: Path, size: tuple[int, int], channels: int) -> NDArray[Any] | None:
    """Map a TIFF whose samples lie in the file as in memory; None for others."""
    try:
        import tifffile

        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            count, bits = page.samplesperpixel, page.bitspersample
            planes = count > 1 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE
            if not page.is_memmappable or count != channels or bits != np.dtype(page.dtype).itemsize * 8:
                return None
        image: NDArray[Any] = tifffile.memmap(path, page=0, mode='r')
        image = np.moveaxis(image, 0, -1) if planes else image
    except Exception:  # the package's own reader opens it next, and says what is wrong
        return None
    return image if image.shape[:2] == size else None


def find_rasterio() -> Any:
    """Return the module rasterio, or None if it is not installed."""
    try:
        import rasterio
        import rasterio.io
        import rasterio.windows
    except ImportError:
        return None
    return rasterio
