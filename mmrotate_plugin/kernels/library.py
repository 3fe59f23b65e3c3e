"""Find the compiled loops, and decide which tensors they take."""

import ctypes
import os
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch
from torch import Tensor

from .following import is_compiling, is_plain, is_tracing

SWITCH = 'MMROTATE_PLUGIN_COMPILED'
OFF = ('0', 'off', 'false', 'no')
INTERFACE = 2  # of library.c
POINTER, SIZE, NUMBER = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int


def _load() -> ctypes.CDLL | None:
    """Load the library that the installation built; None where there is none, or one of other sources."""
    for suffix in EXTENSION_SUFFIXES:
        file = Path(__file__).with_name(f'_loops{suffix}')
        if not file.is_file():
            continue
        try:
            library = ctypes.CDLL(str(file))
            if library.loops_interface() != INTERFACE:
                continue
            library.relu_moments.argtypes = [*[POINTER] * 7, *[SIZE] * 3, NUMBER, NUMBER]
            library.relu_moments.restype = None
            library.max_moments.argtypes = [*[POINTER] * 4, *[SIZE] * 10, POINTER, POINTER, SIZE, NUMBER]
            library.max_moments.restype = NUMBER
            library.angular_relu.argtypes = [POINTER, POINTER, SIZE, SIZE, NUMBER, POINTER, POINTER, POINTER, NUMBER]
            library.angular_relu.restype = NUMBER
        except (OSError, AttributeError):
            continue
        return library
    return None


def wanted(value: str | None) -> bool:
    """Tell whether the variable of the environment, None if it is not set, leaves the compiled loops on."""
    return (value or '').strip().lower() not in OFF


class _State:
    library = _load()
    enabled = library is not None and wanted(os.environ.get(SWITCH))


def available() -> bool:
    """Tell whether the compiled loops were built for this Python and can be loaded."""
    return _State.library is not None


def use_compiled_loops(enabled: bool) -> bool:
    """Switch the compiled loops on or off; without them, operations of torch compute the same to 1e-6.

    They are on where the installation found a C compiler, unless the environment has `MMROTATE_PLUGIN_COMPILED=0`.

    Args:
        enabled: Whether to use them. True has no effect where they were not built.

    Returns:
        Whether they were in use before, to switch back.

    Example:
        >>> from mmrotate_plugin.kernels import use_compiled_loops
        >>> before = use_compiled_loops(False)
        >>> use_compiled_loops(before)
        False
    """
    before, _State.enabled = _State.enabled, bool(enabled) and available()
    return before


def library() -> ctypes.CDLL:
    """Return the library, which must be available."""
    assert _State.library is not None
    return _State.library


def takes(*maps: Tensor) -> bool:
    """Tell whether the compiled loops are in use and take these tensors: float32 of one dense layout on the CPU.

    Compilers and tracers of torch follow the operations of torch instead, and fuse them by themselves.
    """
    if is_compiling() or is_tracing() or not _State.enabled:
        return False
    layout = maps[0].stride()
    return all(
        x.dtype == torch.float32 and x.device.type == 'cpu' and x.stride() == layout and is_plain(x) for x in maps
    ) and (maps[0].is_contiguous() or maps[0].is_contiguous(memory_format=torch.channels_last))
