"""Find broken image files (empty, cut off, undecodable) and decide what a data set does about them."""

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dataset import BaseDataset
from PIL import Image, UnidentifiedImageError

from ...utils.errors import ImageError, InputError
from ...utils.messages import warn
from ..transforms.loading import LoadImageFromFile
from .image_headers import SIDEWAYS, TIFF_MAGIC, Header, ImageKindError, any_size, read_header
from .loader_check import LoaderCheck, find_loader

_TAIL = 1024  # bytes; programs may append something after the end marker
_ENDS = ((b'\x89PNG', b'IEND'), (b'\xff\xd8\xff', b'\xff\xd9'))


class BrokenFileError(InputError, ValueError):
    """A file of a data set cannot be used; the message names it and says why."""


def lacks_end(head: bytes, tail: bytes) -> bool:
    """Whether a PNG or JPEG was cut off, from its first bytes and its last `_TAIL` ones.

    Decoders return grey, or nothing, for missing data, and only some of them say so.
    """
    return any(head.startswith(start) and end not in tail[-_TAIL:] for start, end in _ENDS)


def checked_header(path: Path) -> Header:
    """Read the header of an image file, and check that the file has its end.

    Raises:
        BrokenFileError: If the file is empty, has no header of an image, or was cut off.
    """
    head = b''
    try:
        with path.open('rb') as file:
            head = file.read(16)
            file.seek(0, 2)
            size = file.tell()
            file.seek(max(0, size - _TAIL))
            tail = file.read()
            if not size:
                raise BrokenFileError(f'{path} is an empty file')
            file.seek(0)
            header = read_header(file)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        hint = ''
        if head.startswith(TIFF_MAGIC) and isinstance(error, UnidentifiedImageError):
            hint = '; is it one of several bands, which needs tifffile (pip install tifffile)?'
        raise BrokenFileError(f'{path} cannot be read as an image ({error}{hint})') from error
    if lacks_end(head, tail):
        raise BrokenFileError(f'{path} is broken: its end is missing after {size} bytes')
    return header


def image_size(path: Path) -> tuple[int, int]:
    """Read the width and height of the upright image from the file's header.

    Raises:
        BrokenFileError: If the file is empty, has no header of an image, or was cut off.
    """
    header = checked_header(path)
    turned = header.kind.orientation >= SIDEWAYS
    return (header.height, header.width) if turned else (header.width, header.height)


def check_pixels(path: Path) -> None:
    """Decode a whole image; JPEG, TIFF and BMP have no checksum, so wrong bytes inside may pass.

    Raises:
        BrokenFileError: If decoding fails.
    """
    tiff = checked_header(path).kind.format == 'TIFF'
    try:
        if tiff:  # Pillow cannot open those of several bands
            LoadImageFromFile(color_type='unchanged').stored(str(path))
        else:
            with any_size(), Image.open(path) as image:
                image.load()
    except ImageKindError:
        pass  # the file is whole, but no installed library decompresses it
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
        raise BrokenFileError(f'{path} cannot be decoded ({error})') from error


class SkipsBrokenFiles(BaseDataset):
    """A dataset that leaves broken files out, or refuses them.

    Args:
        strict: Raise at the first broken file.
        check_pixels: Decode every image at the start.
        kwargs: Arguments of mmengine's BaseDataset.
    """

    def __init__(self, *, strict: bool = False, check_pixels: bool = False, **kwargs: Any) -> None:
        self.strict = strict
        self.check_pixels = check_pixels
        self._left_out: list[BrokenFileError] = []
        self.broken: list[str] = []  # what is wrong with each file that is left out
        self._loads: LoaderCheck | None = None
        self._damaged = torch.zeros(0, dtype=torch.bool)
        super().__init__(**kwargs)

    def full_init(self) -> None:
        """Read the data set, once."""
        if self._fully_initialized:
            return
        super().full_init()
        # shared by the worker processes, so that each damaged image is named and counted once
        self._damaged = torch.zeros(len(self), dtype=torch.bool).share_memory_()

    def prepare_data(self, idx: int) -> Any:
        """Pass a sample through the pipeline; return None for a damaged image, so that a training run takes another.

        Raises:
            BrokenFileError: For a damaged image in test mode, or with `strict`.
        """
        try:
            return super().prepare_data(idx)
        except Exception as error:
            try:
                check_pixels(Path(self.get_data_info(idx)['img_path']))
            except BrokenFileError as reason:
                if self.strict or self.test_mode:
                    hint = '' if self.strict else '; check_pixels=True leaves such images out from the start'
                    raise BrokenFileError(f'{reason}{hint}') from error
                if not self._damaged[idx]:
                    self._damaged[idx] = True
                    warn(f'{reason}; another image takes its place ({int(self._damaged.sum())} such images so far)')
                return None
            raise  # the image is not to blame

    def _check_image(self, path: Path) -> tuple[int, int]:
        """Return width and height as the pipeline's loader gives them; decode the pixels with `check_pixels`.

        Raises:
            BrokenFileError: If the file is broken.
            ImageKindError: If the loader cannot read it correctly.
        """
        if self._loads is None:
            self._loads = LoaderCheck(find_loader(self.pipeline.transforms))
        header = checked_header(path)
        if self.check_pixels:
            check_pixels(path)
        return self._loads.size(path, header)

    def _or_none(self, read: Callable[..., dict], *args: Any) -> dict | None:
        """Return what `read` returns, or None for a broken file, after a warning that names it."""
        try:
            return read(*args)
        except BrokenFileError as error:
            if self.strict:
                raise
            self._left_out.append(error)
            warn(f'{error}; the image is left out')
            return None

    def _keep_usable(self, found: Sequence[dict | None]) -> list[dict]:
        """Keep the images that are not broken; warn how many are, and what the loader leaves out of the others.

        Raises:
            ImageKindError: If the pipeline's loader cannot read them correctly.
            ValueError: If all images are broken.
        """
        broken, self._left_out = self._left_out, []
        self.broken = [str(error) for error in broken]
        if broken and len(broken) == len(found):
            raise ValueError(f'none of {len(found)} images can be used; the first one: {broken[0]}')
        if broken:
            warn(f'{len(broken)} of {len(found)} images are left out, because they or their label files are broken')
        for note in self._loads.finish() if self._loads is not None else ():
            warn(note)
        return [info for info in found if info is not None]


def read_whole_header(path: Path) -> Header | None:
    """Read the header of an image file; None for kinds that only OpenCV knows.

    Raises:
        ImageError: If the file cannot be read, is empty, or was cut off.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise ImageError(f"'{path}' is not a file")  # reading a pipe would wait
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"'{path}' cannot be read: {error.strerror}") from error
    if not data:
        raise ImageError(f"'{path}' is an empty file")
    if lacks_end(data, data):
        raise ImageError(f"'{path}' is broken: its end is missing after {len(data)} bytes")
    try:
        return read_header(io.BytesIO(data))
    except (OSError, SyntaxError, ValueError):
        return None
