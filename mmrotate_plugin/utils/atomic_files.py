"""Files that are whole or absent: written under a temporary name, then renamed."""

import json
import math
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_whole(path: str | os.PathLike[str], data: bytes | str, *, sync: bool = False) -> Path:
    """Write `data` to `path` in one step; folders above it are made.

    A reader, or a crash half way, never sees a part of the file.

    Args:
        path: File to write.
        data: What it will hold; a text is encoded as UTF-8.
        sync: Wait until the disk has it, so that not even a power failure leaves a part of it.

    Raises:
        OSError: If the folder or the file cannot be written; nothing is left behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    try:
        with os.fdopen(handle, 'wb') as file:
            file.write(data.encode() if isinstance(data, str) else data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        # mkstemp makes files that only their owner reads; outputs follow the user's umask
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def write_json(path: Path, value: Mapping[str, Any]) -> Path:
    """Write a dict of numbers and texts, whole; what is not a finite number becomes null, as JSON has no NaN."""

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
