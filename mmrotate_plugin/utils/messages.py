"""Write messages to the log of the run, and shorten texts for them."""

import difflib
import logging
import traceback
from collections.abc import Iterable
from pathlib import Path

from mmengine.logging import print_log


def warn(text: str) -> None:
    """Log a warning."""
    print_log(text, logger='current', level=logging.WARNING)


def tell(text: str) -> None:
    """Log a note."""
    print_log(text, logger='current', level=logging.INFO)


def some(texts: Iterable[str], number: int = 5) -> str:
    """Join the first few texts of a list, for a message."""
    texts = list(texts)
    return ', '.join(texts[:number]) + (', ...' if len(texts) > number else '')


def clip(text: str, length: int = 80) -> str:
    """Cut a text to `length` characters, for a message."""
    text = text.strip()
    return text if len(text) <= length else text[: length - 3] + '...'


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text."""
    return str(error).strip().split('\n')[0]


def reason_of(error: Exception) -> str:
    """Return an error's text, without the quotes that KeyError adds."""
    if isinstance(error, (AttributeError, AssertionError)):  # not written for those who read it
        line = ''.join(place.line or '' for place in traceback.extract_tb(error.__traceback__)[-1:])
        return f'{type(error).__name__}: {error} ({line})'
    return str(error.args[0] if isinstance(error, KeyError) and error.args else error)


def why_no_file(path: Path) -> str:
    """Say why a path is not a file."""
    return 'is a folder, not a file' if path.is_dir() else 'does not exist'


def is_hidden(file: Path, folder: Path) -> bool:
    """Tell whether a file lies in a hidden folder below `folder`, such as a virtual environment."""
    return any(part.startswith('.') for part in file.relative_to(folder).parts)


def similar_path(path: Path) -> str:
    """Suggest a file for a misspelt path, from the folder where it should be, or from configs/."""
    folder = path.parent if path.parent.is_dir() else Path('configs')
    files = [file for file in sorted(folder.rglob(f'*{path.suffix}')) if not is_hidden(file, folder)]
    names = {file.name: file for file in files[:2000] if file.is_file()}
    close = difflib.get_close_matches(path.name, names, n=1)
    return f'; did you mean {names[close[0]]}?' if close else ''
