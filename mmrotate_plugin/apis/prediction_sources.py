"""Find what to detect on: images, folders, patterns, lists and videos, each with a name for what is written."""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..datasets.formats.nearby import folders_with_images, tell_folders
from ..datasets.utils.image_headers import read_header
from ..datasets.utils.label_files import read_text
from ..utils.errors import UsageError
from .image_drawing import READS

VIDEOS = ('.avi', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.webm', '.wmv')
LISTS = ('.txt',)
LOOKED_AT = 100  # files of a folder without known suffixes, to find out whether they are images

Given = str | os.PathLike[str] | NDArray[Any] | Iterable['str | os.PathLike[str] | NDArray[Any]']


@dataclass(frozen=True)
class Source:
    """One image or video.

    Args:
        path: Its file; for an array, its name.
        name: Its path from the folder that all have in common, parted by '/'.
        kind: 'image' or 'video'.
        asked: Whether the file is meant to be one: by its suffix, or as the user named it.
        key: Name for the files that are written about it: `name` without the suffix, unless two would share that.
        pixels: The image, if there is no file.
    """

    path: Path
    name: str
    kind: Literal['image', 'video']
    asked: bool
    key: str = ''
    pixels: NDArray[Any] | None = None


def find_sources(given: Given) -> list[Source]:
    """Find all images and videos, each once, in the order given; those of a folder or pattern by name.

    Args:
        given: An image, a video, a folder (without its subfolders), a pattern such as ``'scenes/**/*.tif'``, a text
            file with a path in each line, an array (H, W) or (H, W, C), or several of these.

    Raises:
        UsageError: If there is nothing.
    """
    if isinstance(given, (str, os.PathLike, np.ndarray)):
        given = [given]
    files: list[tuple[Path, bool, NDArray[Any] | None]] = []
    for part in given:
        if isinstance(part, np.ndarray):
            files.append((Path(f'array{len(files) + 1}.png'), True, part))
        else:
            files += [(path, asked, None) for path, asked in _expand(str(os.fspath(part)))]
    once: dict[str, tuple[Path, bool, NDArray[Any] | None]] = {}
    for path, asked, pixels in files:
        once.setdefault(os.path.abspath(path), (path, asked, pixels))
    if not once:
        raise UsageError('image: nothing was given to detect on')
    common = os.path.commonpath([os.path.dirname(place) for place in once])
    found = [
        Source(path, Path(os.path.relpath(place, common)).as_posix(), _kind(path), asked, pixels=pixels)
        for place, (path, asked, pixels) in once.items()
    ]
    return _with_keys(found)


def _expand(text: str) -> list[tuple[Path, bool]]:
    """List the files that one path, folder, list or pattern stands for, and whether each is meant."""
    path = Path(text)
    if os.path.isdir(path):  # unlike Path, False for names that are too long
        files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith('.'))
        if not any(map(_is_known, files)) and not any(map(_is_image, files[:LOOKED_AT])):
            found = folders_with_images(path, (*READS, *VIDEOS))
            if found:
                raise UsageError(f'the folder {tell_folders(text, found)}')
        if not files:
            raise UsageError(f"the folder '{text}' is empty: no images")
        return [(file, _is_known(file)) for file in files]
    if os.path.lexists(path):
        return _listed(path) if path.suffix.lower() in LISTS and path.is_file() else [(path, True)]
    if glob.has_magic(text):
        files = [Path(name) for name in sorted(glob.glob(os.path.expanduser(text), recursive=True))]
        files = [file for file in files if os.path.isfile(file)]
        if not files:
            raise UsageError(f"no file matches the pattern '{text}'")
        return [(file, _is_known(file)) for file in files]
    raise UsageError(f"image '{text[:300]}' does not exist")


def _listed(path: Path) -> list[tuple[Path, bool]]:
    """Read a list of paths, relative to its folder or, if there is no such file, to the current one."""
    try:
        lines = [line.strip() for line in read_text(path).splitlines()]
    except ValueError as error:
        raise UsageError(str(error)) from error
    names = [line for line in lines if line]
    if not names:
        raise UsageError(f"the list '{path}' is empty: it must have the path of an image in each line")
    found = []
    for name in names:
        beside = path.parent / name
        found.append((beside if os.path.exists(beside) or not os.path.exists(name) else Path(name), True))
    if not any(os.path.exists(file) for file, _ in found):
        raise UsageError(
            f"none of the {len(names)} paths in the list '{path}' exists; the first is '{names[0][:200]}'. It must "
            'have the path of an image in each line, from its own folder or from the current one'
        )
    return found


def _is_known(file: Path) -> bool:
    return file.suffix.lower() in (*READS, *VIDEOS)


def _is_image(file: Path) -> bool:
    """Tell whether a file of any name is an image by its content."""
    try:
        with file.open('rb') as data:
            read_header(data)
    except (OSError, SyntaxError, ValueError):
        return False
    return True


def _kind(path: Path) -> Literal['image', 'video']:
    return 'video' if path.suffix.lower() in VIDEOS else 'image'


def _with_keys(found: Sequence[Source]) -> list[Source]:
    """Give images that share a name their suffix back: a.png and a.tif would have one text file."""
    stems = Counter(_stem(source.name) for source in found)
    keyed = []
    for source in found:
        stem = _stem(source.name)
        key = stem if source.kind == 'image' and stems[stem] == 1 else source.name
        keyed.append(Source(source.path, source.name, source.kind, source.asked, key, source.pixels))
    return keyed


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(''))
