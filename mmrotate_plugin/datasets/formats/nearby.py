"""Say where the other half of a data set lies, if a folder was named that is one too low or one too high."""

import os
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from ...utils.messages import some
from ..utils.folder_files import IMAGES

GENERIC = {  # names of folders that hold one half of a data set, and say nothing about its part
    'images', 'labels', 'labeltxt', 'annfiles', 'annotations', 'img', 'imgs', 'xml', 'json', 'allimages',
    'jpegimages', 'labeltxt-v1.0', 'labeltxt-v1.5', 'labeltxt-v2.0',
}  # fmt: skip
LABELS = ('.txt', '.json', '.xml')
LEVELS = 3  # of folders above, as in images/train
MOST = 1000  # files to look at in a folder


def labels_nearby(root: Path) -> str:
    """Name the folder above that has label files too; '' if there is none, or `root` holds no images."""
    if not _holds(root, IMAGES):
        return ''
    return _told(root, LABELS, 'label files')


def images_nearby(root: Path) -> str:
    """Name the folder above that has images too; '' if there is none."""
    return _told(root, IMAGES, 'images')


def yaml_nearby(root: Path, files: Iterable[Path] = ()) -> str:
    """Name a ``data.yaml`` in the folders above or below; '' if there is none.

    Args:
        root: The folder that has none.
        files: Label files below it, beside which one may lie.
    """
    above = [folder for folder in list(root.absolute().parents)[:LEVELS] if folder != Path(folder.anchor)]
    below = dict.fromkeys(part for file in files for part in file.absolute().parents if part.is_relative_to(root))
    for folder in (*above, *below):
        found = [file for end in ('yaml', 'yml') for file in sorted(folder.glob(f'*.{end}'))]
        named = [file for file in found if _names_classes(file)]
        if len(named) == 1:
            return f"; '{named[0]}' is one: give that file or its folder"
    return ''


def _told(root: Path, suffixes: tuple[str, ...], what: str) -> str:
    place = root.absolute()
    for above in list(place.parents)[:LEVELS]:
        if above == Path(above.anchor):
            break
        for folder in sorted(path for path in _folders(above) if path.name.lower() in GENERIC):
            if folder != place and folder not in place.parents and _holds(folder, suffixes):
                return f"; '{folder}' has {what}: give '{above}', which holds both"
    return ''


def _folders(above: Path) -> list[Path]:
    try:
        return [path for path in above.iterdir() if path.is_dir()]
    except OSError:
        return []


def _holds(folder: Path, suffixes: tuple[str, ...]) -> bool:
    names = (name for _, _, names in os.walk(folder) for name in names)
    return any(name.lower().endswith(suffixes) for name in islice(names, MOST))


def _names_classes(file: Path) -> bool:
    try:
        with file.open(encoding='utf-8', errors='replace') as text:
            return any(line.startswith('names') for line in text)
    except OSError:
        return False


def folders_with_images(root: Path, suffixes: tuple[str, ...]) -> dict[Path, list[str]]:
    """Find the folders below one that hold images.

    Args:
        root: The folder.
        suffixes: Of images, in lower case.

    Returns:
        The suffixes of the images of each folder, as they are written; the first `MOST` folders are looked at.
    """
    found: dict[Path, list[str]] = {}
    for folder, folders, names in islice(os.walk(root), MOST):
        folders[:] = sorted(name for name in folders if not name.startswith('.'))
        ends = [os.path.splitext(name)[1] for name in names if not name.startswith('.')]
        if images := [end for end in ends if end.lower() in suffixes]:
            found[Path(folder)] = images
    return found


def tell_folders(root: str, found: dict[Path, list[str]]) -> str:
    """Say which folders hold images, and what to give to a command that takes folders and patterns."""
    told = some((f"'{folder}' ({len(ends)})" for folder, ends in found.items()), 3)
    if len(found) == 1:
        return f"'{root}' holds no images itself, but {told} does: give that folder"
    ends = sorted({end for each in found.values() for end in each})
    patterns = ' '.join(f"'{os.path.join(root, '**', f'*{end}')}'" for end in ends[:4])
    return f"'{root}' holds no images itself, but {told} do: give one of them, or all with {patterns}"
