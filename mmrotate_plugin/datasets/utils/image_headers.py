"""Read image headers (size, orientation, channels, bits), and TIFFs that OpenCV cannot read."""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import Base

from ...utils.errors import InputError

BANDS = 'bands'  # coding of several channels that are not colours
TIFF_MAGIC = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')  # the last two: BigTIFF
PIL_BITS = {'I': 32, 'F': 32}  # modes that do not have 8 bits
# EXIF's orientations: swap rows and columns, then reverse rows, then columns
UPRIGHT = {2: (False, False, True), 3: (False, True, True), 4: (False, True, False), 5: (True, False, False),
           6: (True, False, True), 7: (True, True, True), 8: (True, True, False)}  # fmt: skip
SIDEWAYS = 5  # from this orientation on width and height change places


class ImageKindError(InputError, ValueError):
    """The configured loader cannot read an intact image file correctly; the message says what to write."""


@dataclass(frozen=True)
class ImageKind:
    """Properties that files share if a loader treats them alike.

    Attributes:
        format: Pillow's name, such as 'PNG'.
        coding: Meaning of the channels, such as 'RGB'; `BANDS` if they are not colours.
        channels: Number of stored channels; pages of one band each count as channels of a TIFF.
        bits: Bits of a stored sample.
        sample: 'uint', 'int' or 'float'.
        orientation: EXIF's, from 1 (upright) to 8.
    """

    format: str
    coding: str
    channels: int
    bits: int
    sample: str = 'uint'
    orientation: int = 1


@dataclass(frozen=True)
class Header:
    """Kind and stored size of an image file, and the bits in use if its format says so (TIFF of 9 to 15 bits, PGM)."""

    kind: ImageKind
    width: int
    height: int
    bits_in_use: int | None = None


def read_header(file: BinaryIO) -> Header:
    """Read the header of an image file, without decoding the file.

    Raises:
        OSError, SyntaxError, ValueError: If neither Pillow nor, for a TIFF, tifffile can open it.
    """
    start = file.read(2048)
    file.seek(0)
    if start.startswith(TIFF_MAGIC):
        try:
            import tifffile
        except ImportError:  # Pillow opens those of usual kinds
            pass
        else:
            return _tiff_header(tifffile, file)
    with any_size(), Image.open(file) as image:
        (width, height), name, mode, channels = image.size, str(image.format), image.mode, len(image.getbands())
        tags = image.getexif() if name == 'TIFF' else _exif(image.info.get('exif'))
        orientation = _known_orientation(tags.get(Base.Orientation))
    if name == 'TIFF' and orientation >= SIDEWAYS:
        width, height = height, width  # Pillow has turned it already
    bits, in_use = (16 if mode.startswith('I;16') else PIL_BITS.get(mode, 8)), None
    if name == 'PNG':
        bits = max(start[24], 8)
    elif name == 'JPEG2000' and 0 <= (at := start.find(b'\xff\x51')) < len(start) - 40:
        bits = (start[at + 40] & 127) + 1  # of the first component
        bits = 8 if bits <= 8 else 16
    elif name == 'PPM' and (found := re.match(rb'P[2356]\s+(?:#.*\n)*\d+\s+\d+\s+(\d+)', start)):
        white = int(found[1])
        bits = 8 if white < 256 else 16
        in_use = white.bit_length() if bits == 16 and white + 1 == 1 << white.bit_length() else None
    sample = 'float' if mode == 'F' else 'uint'
    return Header(ImageKind(name, mode, channels, bits, sample, orientation), width, height, in_use)


def _tiff_header(tifffile: Any, file: BinaryIO) -> Header:
    try:
        tiff = tifffile.TiffFile(file)
        page = tiff.pages[0]
        bits = page.bitspersample
        bits = max(bits) if isinstance(bits, (tuple, list)) else int(bits)
        channels, coding = int(page.samplesperpixel), getattr(page.photometric, 'name', str(page.photometric))
        if channels == 1 and coding.startswith('MINIS'):
            channels = _single_band_pages(tiff)
        sample = {'i': 'int', 'f': 'float', 'c': 'complex'}.get(getattr(page.dtype, 'kind', 'u'), 'uint')
        tag = page.tags.get(Base.Orientation)
        width, height = page.imagewidth, page.imagelength
    except OSError:
        raise
    except Exception as error:  # tifffile's own errors, and those of struct and numpy for damaged tags
        raise OSError(f'{type(error).__name__}: {error}') from error
    if channels > 1 and coding.startswith('MINIS'):
        coding = BANDS
    packed = sample == 'uint' and 8 < bits < 16  # OpenCV spreads them over 16
    orientation = _known_orientation(None if tag is None else tag.value)
    kind = ImageKind('TIFF', coding, channels, 16 if packed else max(bits, 8), sample, orientation)
    return Header(kind, width, height, 16 if packed else None)


def _single_band_pages(tiff: Any) -> int:
    """Count the pages with the size and type of the first, except reduced copies: bands in pages of their own."""
    first = tiff.pages[0]
    alike = [p for p in tiff.pages if (p.shape, p.dtype) == (first.shape, first.dtype) and not p.subfiletype & 1]
    return max(1, len(alike))


def _known_orientation(value: Any) -> int:
    return int(value) if value in UPRIGHT else 1


def _exif(data: bytes | None) -> Any:
    tags = Image.Exif()
    try:
        tags.load(data or b'')
        tags.get(Base.Orientation)
    except Exception:  # the bytes are not tags
        return {}
    return tags


@contextmanager
def any_size() -> Iterator[None]:
    """Temporarily lift Pillow's limit on the size of images; DOTA-v2.0 has larger ones."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def turn(image: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn a stored image upright, by EXIF's orientation, 1 to 8."""
    swap, rows, columns = UPRIGHT.get(orientation, (False, False, False))
    image = image.swapaxes(0, 1) if swap else image
    return image[:: -1 if rows else 1, :: -1 if columns else 1]


def what_to_write(image: NDArray[Any]) -> str:
    """Suggest the arguments that would read an image of more than 8 bits, judging by its values."""
    low, high = np.nanmin(image, initial=0), np.nanmax(image, initial=0)
    if image.dtype.kind == 'u' and image.dtype.itemsize == 2:
        return (
            f"write type='mmrotate_plugin.LoadImageFromFile', bit_depth={max(8, int(high).bit_length())} in the "
            f'pipelines (the bits in use; the largest value here is {high}), or white=, the value that becomes 255'
        )
    return (
        "write type='mmrotate_plugin.LoadImageFromFile', black= and white= in the pipelines, the values that become 0 "
        f'and 255 (the values here go from {low:g} to {high:g}), or convert it to 8 bits'
    )


def read_tiff(data: bytes, kind: ImageKind, name: str) -> NDArray[Any]:
    """Read a TIFF as stored, (H, W) or (H, W, C).

    Raises:
        ImageKindError: If a library for its compression is missing.
        ValueError: If it cannot be decoded.
    """
    import tifffile  # reading the header has found it installed

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            first = tiff.pages.first
            if first.samplesperpixel == 1 and kind.channels > 1:
                return np.stack([page.asarray() for page in tiff.pages[: kind.channels]], -1)
            image = first.asarray()
            planes = first.samplesperpixel > 1 and first.planarconfig == tifffile.PLANARCONFIG.SEPARATE
            return np.moveaxis(image, 0, -1) if planes else image
    except Exception as error:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)  # OpenCV has codecs of its own
        if decoded is not None and (1 if decoded.ndim == 2 else decoded.shape[2]) == kind.channels:
            stored = turn(decoded, {6: 8, 8: 6}.get(kind.orientation, kind.orientation))
            return stored if stored.ndim == 2 else stored[..., [2, 1, 0, *range(3, kind.channels)][: kind.channels]]
        if 'imagecodecs' in str(error):
            raise ImageKindError(
                f"'{name}' is compressed in a way that tifffile alone does not know ({error}): pip install "
                'imagecodecs, or write it without compression or with deflate'
            ) from error
        raise ValueError(f"'{name}' cannot be decoded ({type(error).__name__}: {error})") from error
