"""Image files that are broken: empty, cut off, or not to be decoded."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

_TAIL = 1024  # bytes; programs may append something behind the end marker
_ENDS = ((b'\x89PNG', b'IEND'), (b'\xff\xd8\xff', b'\xff\xd9'))


class BrokenFileError(ValueError):
    """A file of a data set that cannot be used; the message names it and says why."""


def lacks_end(head: bytes, tail: bytes) -> bool:
    """Whether a PNG or JPEG was cut off, from its first bytes and its last `_TAIL` ones.

    Decoders return grey, or nothing, for what is missing, and only some of them say so.
    """
    return any(head.startswith(start) and end not in tail[-_TAIL:] for start, end in _ENDS)


def image_size(path: Path) -> tuple[int, int]:
    """Width and height as they are after decoding, from the file's header.

    Raises:
        BrokenFileError: If the file is empty, has no header of an image, or was cut off.
    """
    try:
        with path.open('rb') as file:
            head = file.read(16)
            file.seek(0, 2)
            size = file.tell()
            file.seek(max(0, size - _TAIL))
            tail = file.read()
        if not size:
            raise BrokenFileError(f'{path} is an empty file')
        with _any_size(), Image.open(path) as image:
            width, height = image.size
            # a JPEG may be stored lying on its side
            turned = image.format == 'JPEG' and image.getexif().get(0x0112, 1) >= 5
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise BrokenFileError(f'{path} cannot be read as an image ({error})') from error
    if lacks_end(head, tail):
        raise BrokenFileError(f'{path} is broken: its end is missing after {size} bytes')
    return (height, width) if turned else (width, height)


def check_pixels(path: Path) -> None:
    """Decode a whole image. A JPEG, TIFF or BMP with wrong bytes amid it has no checksum, and may pass.

    Raises:
        BrokenFileError: If that fails.
    """
    image_size(path)
    try:
        with _any_size(), Image.open(path) as image:
            image.load()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
        raise BrokenFileError(f'{path} cannot be decoded ({error})') from error


@contextmanager
def _any_size() -> Iterator[None]:
    """DOTA-v2.0 has images beyond PIL's limit."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit
