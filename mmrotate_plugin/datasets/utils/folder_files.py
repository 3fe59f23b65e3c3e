"""Find the images and label files of a folder: by suffix, ignoring case, one file per name."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...utils.messages import some
from .foreign_formats import describe, guess_file

IMAGES = ('.bmp', '.gif', '.jp2', '.jpe', '.jpeg', '.jpg', '.pgm', '.png', '.pnm', '.ppm', '.tif', '.tiff', '.webp')


@dataclass
class Folder:
    """The files of one folder.

    Args:
        path: Path of the folder, with data_root.
        suffixes: Wanted suffixes, such as ('.png',).
        files: Files with such a suffix, by their names without it.
        others: Names of image files with another suffix.
    """

    path: str
    suffixes: tuple[str, ...]
    files: dict[str, Path] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)

    def without(self, stem: str) -> list[str]:
        """Find image files of that name with another suffix."""
        return [name for name in self.others if os.path.splitext(name)[0] == stem]


def suffixes_of(value: str | Sequence[str], argument: str = 'img_suffix') -> tuple[str, ...]:
    """Normalise suffixes: 'png' to ('.png',), and ('.jpg', 'PNG') to ('.jpg', '.png').

    Raises:
        ValueError: If a suffix is empty, or there is none.
    """
    texts = [value] if isinstance(value, str) else list(value)
    plain = tuple(dict.fromkeys('.' + text.strip().lstrip('*').lstrip('.').lower() for text in texts))
    if not plain or '.' in plain:
        raise ValueError(f"{argument}={value!r} must be an ending such as 'png', or several: ('png', 'jpg')")
    return plain


def list_folder(path: str, suffixes: tuple[str, ...], argument: str, data_root: str | None) -> Folder:
    """List the files of a folder in order of their names, without hidden files and subfolders.

    Args:
        path: The folder.
        suffixes: Suffixes with their dot, in lower case.
        argument: Key of the folder in the config, for messages.
        data_root: Beginning of `path`, for messages.

    Raises:
        FileNotFoundError: If there is no such folder, or no such file in it.
        ValueError: If two files share a name.
    """
    endings = ' or '.join(f'*{suffix}' for suffix in suffixes)
    if not os.path.isdir(path):
        raise FileNotFoundError(_why_no_folder(path, endings, argument, data_root))
    names = sorted(name for name in os.listdir(path) if not name.startswith('.'))
    folder = Folder(path, suffixes)
    for name in names:
        stem, suffix = _split(name, suffixes)
        if suffix is None:
            if os.path.splitext(name)[1].lower() in IMAGES:
                folder.others.append(name)
            continue
        file = Path(path, name)
        if not file.is_file():  # opening a pipe would wait forever
            raise FileNotFoundError(f'{argument}: {str(file)!r} is no file (a folder, a pipe or a broken link).')
        if stem in folder.files:
            raise ValueError(
                f'{argument}: {folder.files[stem].name} and {name} in {path!r} have one name; which is meant? '
                'Remove or rename one of them.'
            )
        folder.files[stem] = file
    if not folder.files:
        raise FileNotFoundError(f'{argument}: no {endings} in {path!r}; {_what_is_there(path, names, argument)}.')
    return folder


def _split(name: str, suffixes: tuple[str, ...]) -> tuple[str, str | None]:
    lower = name.lower()
    for suffix in suffixes:
        if lower.endswith(suffix) and len(lower) > len(suffix):
            return name[: -len(suffix)], suffix
    return name, None


def _why_no_folder(path: str, endings: str, argument: str, data_root: str | None) -> str:
    looks = None
    if os.path.exists(path):
        what = 'is a file, not a folder'
        looks = guess_file(Path(path)) if os.path.isfile(path) else None
    else:
        what = 'does not exist'
        if '\\' in path and os.sep == '/':
            what += ' (folders are parted by / here)'
    text = f'{argument}: {path!r} {what}. It must be a folder with {endings} files '
    text += f'(data_root={data_root!r} is put in front of it).'
    return text if looks is None else f'{text} The file looks like {describe(looks)}.'


def _what_is_there(path: str, names: list[str], argument: str) -> str:
    """Say in half a sentence what a folder without wanted files holds."""
    files = [name for name in names if not os.path.isdir(os.path.join(path, name))]
    others = sorted({os.path.splitext(name)[1] for name in files} - {''})
    if not others:
        folders = [name for name in names if name not in files]
        return f'it holds folders ({some(folders)}): name one of them' if folders else 'it holds no files'
    there = f'it holds files ending in {", ".join(others)}'
    if argument != 'ann_file':
        return f"{there}; set img_suffix to the images' ending"
    looks = next((found for found in (guess_file(Path(path, name)) for name in files[:5]) if found), None)
    return there if looks is None else f'{there}, which look like {describe(looks)}'
