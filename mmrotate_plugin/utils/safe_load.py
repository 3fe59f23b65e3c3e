"""Checkpoint files, read without running what they bring along.

A checkpoint is a pickle, and a pickle is a program: ``torch.load(file, weights_only=False)`` runs any function that the
file names. `load` takes tensors, plain containers, and the few classes in the checkpoints of mmengine's Runner: its log
histories, numpy's arrays and numbers, its dicts. Anything else is refused by name before any of it is called.

From torch 2.6 on that is ``weights_only=True`` with `allowed_globals`. Before, torch's own unpickler cannot be told of
further classes by name (and up to 2.5.1 it could be made to run code, CVE-2025-32434); there a `pickle.Unpickler` that
finds nothing but the same names takes its place.

mmengine's loaders take neither way: they load with ``weights_only=False``, some of them after a first try without.
Within `loading` they go through `load`.
"""

import _codecs
import os
import pickle
import re
import tarfile
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.utils import digit_version

ZIP, LEGACY = b'PK\x03\x04', b'\x80'  # what the two formats of torch.save begin with
CHECKED_BY_TORCH = digit_version(torch.__version__) >= digit_version('2.6.0')
NUMBERS = '?bhilqBHILQefd'  # numpy's codes of booleans, integers and real numbers
STATISTICS = ('min', 'max', 'current', 'mean')

File = str | os.PathLike[str] | IO[bytes]

_torch_load = torch.load
_trusted: ContextVar[bool] = ContextVar('trusted', default=False)


class CheckpointError(ValueError):
    """A file that is no checkpoint, or only a part of one; the message names it and says why."""


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint that holds more than weights; the message names what it would call or make."""


def load(file: File, map_location: Any = 'cpu', *, name: str | None = None, mmap: bool | None = None) -> Any:
    """Read what torch.save wrote; call nothing that is not known to be harmless.

    Args:
        file: A path, or a stream that can seek.
        map_location: As in `torch.load`.
        name: The file's name in messages; its path if not given.
        mmap: As in `torch.load`.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is no checkpoint, or not whole.
        UnsafeCheckpointError: If it holds other things than weights and a training's state. Within
            ``loading(unsafe=True)`` they are loaded, which runs what the file says.
    """
    options = {'map_location': map_location, **({} if mmap is None else {'mmap': mmap})}
    if isinstance(file, (str, os.PathLike)):
        name = name or os.fspath(file)
        _check_container(Path(file), name)
    name = name or str(getattr(file, 'name', 'a stream'))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of other protocols and of TorchScript: errors follow
        try:
            if _trusted.get():
                return _torch_load(file, **options, weights_only=False)
            if CHECKED_BY_TORCH:
                with torch.serialization.safe_globals([(value, key) for key, value in allowed_globals().items()]):
                    return _torch_load(file, **options, weights_only=True)
            return _torch_load(file, **options, weights_only=False, pickle_module=_Restricted)
        except pickle.UnpicklingError as error:
            raise _explain(error, name) from None
        except OSError:
            raise
        except Exception as error:  # a damaged pickle fails in any way
            reason = str(error).split('\n')[0]
            raise CheckpointError(f"'{name}' is not a checkpoint: {type(error).__name__}: {reason}") from error


def check_whole(path: str | os.PathLike[str]) -> None:
    """Read a checkpoint to its end: every byte of the zip format against its checksum, other files by loading them.

    A file that passes was written to its end and not damaged since; `torch.load` alone does not look at checksums.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is no checkpoint, was cut off, or is damaged; says which.
    """
    load(path, name=str(path))


def allowed_globals() -> dict[str, Any]:
    """What a checkpoint may name beyond torch's own, by the name in the pickle.

    mmengine's message hub holds `HistoryBuffer`, which holds numpy arrays and, by `getattr`, four of its own methods;
    numbers may be numpy's. numpy 1 and 2 call the module of the same two functions by different names.
    """
    multiarray = import_module('numpy._core.multiarray' if hasattr(np, '_core') else 'numpy.core.multiarray')
    found: dict[str, Any] = {
        'builtins.getattr': _statistic,
        'builtins.set': set,
        'collections.Counter': Counter,
        'collections.OrderedDict': OrderedDict,
        'mmengine.config.config.ConfigDict': ConfigDict,
        'mmengine.logging.history_buffer.HistoryBuffer': HistoryBuffer,
        'numpy.dtype': np.dtype,
        'numpy.ndarray': np.ndarray,
        '_codecs.encode': _codecs.encode,  # bytes, in the protocol that torch.save writes
    }
    for module in ('numpy.core', 'numpy._core'):
        found[f'{module}.multiarray._reconstruct'] = multiarray._reconstruct
        found[f'{module}.multiarray.scalar'] = multiarray.scalar
    kinds = {type(np.dtype(code)) for code in NUMBERS}
    return {**found, **{f'{kind.__module__}.{kind.__qualname__}': kind for kind in kinds}}


@contextmanager
def loading(*, unsafe: bool | None = None) -> Iterator[None]:
    """Let everybody who calls `torch.load` meanwhile, mmengine's loaders above all, read by `load`.

    Args:
        unsafe: True takes any pickle, and runs what it says; only for files of those whom you would let run a program.
            None leaves it as it is around this context: False, where nobody has said otherwise.
    """
    before = torch.load
    token = _trusted.set(_trusted.get() if unsafe is None else unsafe)
    torch.load = _in_place_of_torch_load
    try:
        yield
    finally:
        torch.load = before
        _trusted.reset(token)


def _in_place_of_torch_load(
    f: File,
    map_location: Any = None,
    pickle_module: Any = None,
    *,
    weights_only: bool | None = None,  # noqa: ARG001  decided by `loading`
    mmap: bool | None = None,
    **options: Any,
) -> Any:
    if pickle_module is not None or options:
        given = sorted({'pickle_module': pickle_module, **options})
        raise UnsafeCheckpointError(f"'{f}' is to be read with {given}, which only torch.load itself can do")
    return load(f, map_location, mmap=mmap)


def _check_container(path: Path, name: str) -> None:
    """Refuse what is no file of torch.save, or is damaged, before torch looks at it."""
    if not path.is_file():
        raise FileNotFoundError(f"'{name}' {'is a folder, not a file' if path.is_dir() else 'does not exist'}")
    size = path.stat().st_size
    with path.open('rb') as stream:
        begin = stream.read(4)
    if not begin.startswith((ZIP, LEGACY)):
        raise CheckpointError(f"'{name}' is not a checkpoint: {size} bytes that torch.save did not write")
    if begin != ZIP:
        if tarfile.is_tarfile(path):
            raise UnsafeCheckpointError(f"'{name}' is a tar archive, torch's format before 0.4; it cannot be checked")
        return
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            unpacked = sum(member.file_size for member in members)
            if unpacked > size:
                raise CheckpointError(
                    f"'{name}' of {size} bytes would unpack to {unpacked}; torch.save does not compress"
                )
            records = [member.filename.partition('/')[2] for member in members]
            if 'constants.pkl' in records:
                raise UnsafeCheckpointError(f"'{name}' is a TorchScript program, not a checkpoint")
            if 'data.pkl' not in records:
                raise CheckpointError(f"'{name}' is not a checkpoint: a zip archive that torch.save did not write")
            damaged = archive.testzip() if any(member.CRC for member in members) else None  # torch can leave them out
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"'{name}' is not a whole checkpoint: {size} bytes, of which the end is missing or damaged ({error})"
        ) from error
    if damaged is not None:
        raise CheckpointError(f"'{name}' is damaged: the checksum of its record '{damaged}' is wrong")


def _explain(error: pickle.UnpicklingError, name: str) -> CheckpointError:
    text = str(error)
    found = re.search(r'GLOBAL (\S+)', text)
    advice = (
        'Loading it could run any code in it, so it is refused. If you trust where it comes from: --unsafe-checkpoint, '
        'or mmrotate_plugin.utils.safe_load.loading(unsafe=True)'
    )
    if found:
        return UnsafeCheckpointError(
            f"'{name}' holds more than weights: its pickle names {found[1]}, which no checkpoint of weights or of "
            f"mmengine's Runner needs. {advice}"
        )
    # the first line of torch's text is advice to load it anyway
    reason = re.sub(r'(?s).*WeightsUnpickler error:', '', text).strip().split('\n')[0]
    return UnsafeCheckpointError(f"'{name}' cannot be read as weights ({reason}). {advice}")


def _statistic(owner: Any, name: str) -> Callable[..., Any]:
    """In place of `getattr`, by which pickles reach everything: the methods that HistoryBuffer saves with itself."""
    if owner is HistoryBuffer and name in STATISTICS:
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(f'GLOBAL builtins.getattr of {name!r} from {owner!r:.80}')


class _RestrictedUnpickler(pickle.Unpickler):
    """Finds by name, in a table, never by import."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in NAME_MAPPING:  # of Python 2, which protocol 2 speaks
            module, name = NAME_MAPPING[module, name]
        module = IMPORT_MAPPING.get(module, module)
        table = {**torch._weights_only_unpickler._get_allowed_globals(), **allowed_globals()}
        if f'{module}.{name}' not in table:
            raise pickle.UnpicklingError(f'GLOBAL {module}.{name}')
        return table[f'{module}.{name}']


class _Restricted:
    """What torch.load wants of a pickle module."""

    Unpickler = _RestrictedUnpickler

    @staticmethod
    def load(file: IO[bytes], **options: Any) -> Any:
        return _RestrictedUnpickler(file, **options).load()
