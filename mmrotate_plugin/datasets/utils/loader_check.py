"""Check, before a run, what the loader of a pipeline makes of the image files."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..transforms.loading import LoadImageFromFile
from .image_headers import BANDS, SIDEWAYS, Header, ImageKind, ImageKindError, what_to_write

PLAIN = ('RGB', 'L', 'MINISBLACK')  # 8-bit codings that all loaders read in the same way
WITH_ALPHA = ('RGBA', 'LA', 'PA', 'RGBX')


@dataclass(frozen=True)
class Loaded:
    """One file of a kind, as the loader returns it."""

    path: Path
    channels: int
    turned: bool


class LoaderCheck:
    """Find out what a loader makes of each kind of image file in a data set.

    A kind is a format with its coding, depth and orientation. If header and loader might disagree, the loader decodes
    the smallest file of the kind once; the result holds for the other files.

    Args:
        loader: A transform that takes ``img_path``; None checks nothing.
    """

    def __init__(self, loader: Any | None) -> None:
        self.loader = loader
        self._smallest: dict[ImageKind, tuple[int, Path, Header]] = {}
        self._loaded: dict[ImageKind, Loaded] = {}
        self._notes: dict[str, None] = {}

    def size(self, path: Path, header: Header) -> tuple[int, int]:
        """Return the width and height of a file's image as the loader gives it.

        Raises:
            ImageKindError: If the file has to be decoded for that, and the loader cannot read it correctly.
        """
        pixels = header.width * header.height
        if header.kind not in self._smallest or pixels < self._smallest[header.kind][0]:
            self._smallest[header.kind] = pixels, path, header
        if header.kind.orientation < SIDEWAYS or header.width == header.height:
            return header.width, header.height
        turned = True if self.loader is None else self._look(self.loader, path, header).turned
        return (header.height, header.width) if turned else (header.width, header.height)

    def finish(self) -> list[str]:
        """Return what the user should know about the files seen, a sentence each.

        Raises:
            ImageKindError: If the loader cannot read a kind of file correctly, or the numbers of channels differ.
        """
        seen = dict(sorted(self._smallest.items(), key=lambda item: item[1][1]))
        if self.loader is not None and (len(seen) > 1 or not all(map(_plain, seen))):
            for _, path, header in seen.values():
                self._look(self.loader, path, header)
            first, *others = self._loaded.values()
            for other in others:
                if other.channels != first.channels:
                    raise ImageKindError(
                        f"'{first.path}' has {first.channels} channels and '{other.path}' has {other.channels}, as "
                        f"{describe(self.loader)} gives them; color_type='color' makes three of all, and "
                        'channels= of mmrotate_plugin.LoadImageFromFile takes the same ones of each'
                    )
        notes, self._notes, self._smallest = list(self._notes), {}, {}
        return notes

    def _look(self, loader: Any, path: Path, header: Header) -> Loaded:
        if header.kind not in self._loaded:
            try:
                image = loader({'img_path': str(path)})['img']
            except ImageKindError:
                raise
            except Exception as error:
                if header.kind.bits > 8 or header.kind.coding == BANDS or header.kind.format == 'TIFF':
                    raise ImageKindError(
                        f"'{path}' ({_tell(header.kind)}) cannot be read by {describe(loader)} "
                        f"({error or 'no image'}); write type='mmrotate_plugin.LoadImageFromFile' in the pipelines"
                    ) from error
                return Loaded(path, 3, header.kind.orientation >= SIDEWAYS)  # a damaged file, which the run names
            note = judge(loader, path, header, image)
            if note:
                self._notes[note] = None
            channels = 1 if image.ndim == 2 else image.shape[2]
            turned = image.shape[:2] == (header.width, header.height)  # only asked if these differ
            self._loaded[header.kind] = Loaded(path, channels, turned)
        return self._loaded[header.kind]


def judge(loader: Any, path: Path, header: Header, image: NDArray[Any]) -> str | None:
    """Compare what a loader returned with the file's header; return what the user should know, if anything.

    Raises:
        ImageKindError: If the loader dropped bits or bands in a way that falsifies the image.
    """
    kind, channels = header.kind, 1 if image.ndim == 2 else image.shape[2]
    ours = isinstance(loader, LoadImageFromFile)
    if not ours and kind.bits > 8 and image.dtype == np.uint8:
        stored = LoadImageFromFile(color_type='unchanged').stored(str(path))
        raise ImageKindError(
            f"'{path}' has samples of type {stored.dtype}, and {describe(loader)} takes their upper 8 bits, which "
            f'leaves images of 11 or 12 bits nearly black; {what_to_write(stored)}'
        )
    if image.shape[:2] not in ((header.height, header.width), (header.width, header.height)):
        raise ImageKindError(
            f"'{path}' has {header.width} x {header.height} pixels, but {describe(loader)} gives an array of "
            f"{image.shape}; write type='mmrotate_plugin.LoadImageFromFile' in the pipelines"
        )
    if not ours and kind.coding == BANDS and (channels != kind.channels or _lost(image, path)):
        raise ImageKindError(
            f"'{path}' has {kind.channels} bands, of which {describe(loader)} takes the first alone; write "
            "type='mmrotate_plugin.LoadImageFromFile' in the pipelines, with color_type='unchanged' for a network with "
            f'in_channels={kind.channels}, or channels=, such as (2, 1, 0), for some of them'
        )
    has_more = kind.coding in WITH_ALPHA or (kind.coding == 'RGB' and kind.channels == 4)
    if channels == 3 and has_more and getattr(loader, 'channels', None) is None:
        return (
            f"'{path}' has {kind.channels} channels, the last of which (alpha, or a band) is left out, as in others of "
            "its kind; color_type='unchanged' keeps it, for a network with in_channels=4"
        )
    return None


def _lost(image: NDArray[Any], path: Path) -> bool:
    """Whether an image repeats one band, while its file has different ones."""
    return _repeats(image) and not _repeats(LoadImageFromFile(color_type='unchanged').stored(str(path)))


def _repeats(image: NDArray[Any]) -> bool:
    return image.ndim == 3 and image.shape[2] > 1 and bool((image[..., 1:] == image[..., :1]).all())


def find_loader(transforms: Iterable[Any]) -> Any | None:
    """Find the transform of a pipeline that reads the image file, or None."""
    return next((transform for transform in transforms if reads_images(type(transform).__name__)), None)


def reads_images(name: str) -> bool:
    """Whether a transform of this name reads an image file."""
    name = name.rpartition('.')[2]
    other = ('Annotations', 'Proposals', 'NDArray', 'MultiChannelImageFromFiles')
    return name.startswith('Load') and not name.endswith(other)


def describe(loader: Any) -> str:
    """Describe a loader in words."""
    kind = type(loader)
    options = [
        f'{name}={getattr(loader, name)!r}' for name in ('color_type', 'imdecode_backend') if hasattr(loader, name)
    ]
    return f'{kind.__module__.partition(".")[0]}.{kind.__name__}({", ".join(options)})'


def _plain(kind: ImageKind) -> bool:
    return kind.coding in PLAIN and kind.channels in (1, 3) and (kind.bits, kind.sample) == (8, 'uint')


def _tell(kind: ImageKind) -> str:
    return f'{kind.format}, {kind.coding}, {kind.channels} x {kind.bits} bits, {kind.sample}'
