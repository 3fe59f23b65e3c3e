"""Read label files as bytes, text, JSON or XML; what cannot be read is a `BrokenFileError` that names the file."""

import json
import unicodedata
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, ParseError

from .broken_files import BrokenFileError

LARGEST = 64 * 2**20  # bytes of the label file of one image; DOTA's largest has 2 MB
_WIDE = (b'\xff\xfe', b'\xfe\xff')


def read_bytes(path: Path, largest: int | None = LARGEST) -> bytes:
    """Read a whole label file.

    Args:
        path: The file.
        largest: Largest number of bytes; None for any.

    Raises:
        BrokenFileError: If it cannot be read, or is larger.
    """
    try:
        size = path.stat().st_size
        if largest is not None and size > largest:
            raise BrokenFileError(f'{path} has {size} bytes; a label file has at most {largest}. Is it one?')
        return path.read_bytes()
    except OSError as error:
        raise BrokenFileError(f'{path} cannot be read ({error.strerror})') from error


def read_text(path: Path, largest: int | None = LARGEST) -> str:
    """Read a text in UTF-8, with or without a BOM; accented letters get one spelling.

    Raises:
        BrokenFileError: If it cannot be read, is larger than `largest` bytes, or is no text.
    """
    data = read_bytes(path, largest)
    if b'\0' in data:
        wide = '; it is UTF-16: save it as UTF-8' if data[:2] in _WIDE else ''
        raise BrokenFileError(f'{path} is no text: it has zero bytes{wide}')
    return unicodedata.normalize('NFC', data.decode('utf-8-sig', errors='replace'))


def read_json(path: Path, largest: int | None = LARGEST) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        BrokenFileError: If it cannot be read, is no JSON, or holds something else.
    """
    try:
        found = json.loads(read_text(path, largest))
    except (ValueError, RecursionError) as error:
        if isinstance(error, BrokenFileError):
            raise
        raise BrokenFileError(f'{path} cannot be used (no JSON: {error})') from error
    if not isinstance(found, dict):
        raise BrokenFileError(f'{path} cannot be used: its JSON is a {type(found).__name__}, and must be an object')
    return found


def parse_xml(path: Path | str, data: bytes) -> Element:
    """Parse an XML file, and take the namespaces away, which would hide every field.

    Raises:
        BrokenFileError: If it is no XML.
    """
    try:
        root = ElementTree.fromstring(data)
    except (ParseError, ValueError) as error:
        raise BrokenFileError(f'{path} cannot be used ({type(error).__name__}: {error})') from error
    for element in root.iter():
        element.tag = element.tag.rpartition('}')[2]
    return root


def plain_name(text: Any) -> str:
    """Return a class name with single blanks, none at its ends, and one spelling of accented letters."""
    return ' '.join(unicodedata.normalize('NFC', text).split()) if isinstance(text, str) else ''
