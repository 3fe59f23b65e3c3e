"""Write files whole or not at all: under a temporary name first, which is then renamed."""

import json
import math
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_whole(path: str | os.PathLike[str], data: bytes | str, *, sync: bool = False) -> Path:
    """Write `data` to `path` in one step; make the folders above it.

    A reader, or a crash half way, never sees a part of the file.

    Args:
        path: File to write.
        data: Content; a text is encoded as UTF-8.
        sync: Wait until the disk has it, so that even a power failure leaves no partial file.

    Raises:
        OSError: If the folder or the file cannot be written; nothing is left behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}.{secrets.token_urlsafe(6)}')
    try:
        with open(temporary, 'xb') as file:
            file.write(data.encode() if isinstance(data, str) else data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


def copy_whole(source: Path, target: Path) -> None:
    """Copy a file in one step; make the folders above it.

    Raises:
        OSError: If it cannot be read or written; nothing is left behind.
    """
    _in_one_step(target, lambda temporary: shutil.copyfile(source, temporary))


def link_whole(source: Path, target: Path) -> None:
    """Make a symbolic link in one step, in place of whatever file has the name; make the folders above it.

    Raises:
        OSError: If it cannot be made; nothing is left behind.
    """
    _in_one_step(target, lambda temporary: temporary.symlink_to(source))


def _in_one_step(target: Path, make: Callable[[Path], object]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f'.{secrets.token_urlsafe(9)}')  # short: the name itself may have the longest length
    try:
        make(temporary)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path of the same suffix to write to, and rename it afterwards; make the folders above it.

    Raises:
        OSError: If the folder or the file cannot be written; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{secrets.token_urlsafe(9)}{path.suffix}')
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Mapping[str, Any]) -> Path:
    """Write numbers and texts as JSON, whole; NaN and infinities become null, as JSON has neither."""

    def plain(item: Any) -> Any:
        if isinstance(item, Mapping):
            return {str(key): plain(part) for key, part in item.items()}
        if isinstance(item, (list, tuple)):
            return [plain(part) for part in item]
        if hasattr(item, 'tolist'):  # numpy, torch
            return plain(item.tolist())
        if isinstance(item, float):
            return item if math.isfinite(item) else None
        return item if isinstance(item, (str, int, bool)) or item is None else str(item)

    return write_whole(path, json.dumps(plain(value), indent=2, allow_nan=False) + '\n')
