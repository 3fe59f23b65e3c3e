"""Find the checkpoints of a work directory that are whole, and the last of them."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from re import fullmatch

from ...utils.errors import InputError
from ...utils.safe_load import CheckpointError, check_whole

POINTER = 'last_checkpoint'
_NAME = r'(.*_)(\d+)\.pth'
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DiskFullError(InputError):
    """A file could not be written because the disk is full."""


def damage(path: Path) -> str | None:
    """Say what is wrong with a checkpoint file, or return None; see `utils.safe_load.check_whole`.

    Raises:
        OSError: If it cannot be read.
    """
    try:
        check_whole(path)
    except CheckpointError as error:
        return str(error)
    return None


def training_checkpoints(folder: Path) -> list[Path]:
    """List the checkpoints of the run in `folder`, the last one first.

    The file `last_checkpoint` says which that was, unless the run was killed before it could write that. Higher
    numbers in older files belong to another run in the same folder.
    """
    pointer = folder / POINTER
    text = pointer.read_text(errors='replace').strip() if pointer.is_file() else ''
    last = Path(text) if text else None
    if last is not None:
        if not last.is_file() and not last.parent.is_dir():  # the work directory was moved
            last = folder / last.name
        folder = last.parent
    found = {path: match for path in folder.glob('*.pth') if (match := fullmatch(_NAME, path.name))}
    found = {path: match for path, match in found.items() if not path.name.startswith('best_')}
    number = {path: int(match[2]) for path, match in found.items()}
    age = {path: path.stat().st_mtime_ns for path in found}
    match = fullmatch(_NAME, last.name) if last is not None else None
    prefix = match[1] if match else found[max(found, key=age.__getitem__)][1] if found else ''
    series = [path for path in found if found[path][1] == prefix]
    if match:
        written = pointer.stat().st_mtime_ns
        series = [path for path in series if number[path] <= int(match[2]) or age[path] >= written]
    return sorted(series, key=number.__getitem__, reverse=True)


@contextmanager
def explain_full_disk() -> Iterator[None]:
    """Turn the errors of a full disk, a quota or a limit on file sizes into one that says so.

    Raises:
        DiskFullError: Names the file, if the system did.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        where = f" '{error.filename}'" if error.filename else ''
        raise DiskFullError(f'a file{where} could not be written: {error.strerror}') from error
