"""Find the compiled moments, and decide which tensors they take."""

import ctypes
import os
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch
from torch import Tensor

from .._compiler import is_compiling, is_transformed

SWITCH = 'MMROTATE_PLUGIN_COMPILED'
OFF = ('0', 'off', 'false', 'no')
INTERFACE = 1  # of moments.c
POINTER, SIZE, NUMBER = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int


def _load() -> ctypes.CDLL | None:
    """Load the library that the installation built; None where there is none, or one of other sources."""
    for suffix in EXTENSION_SUFFIXES:
        file = Path(__file__).with_name(f'_moments{suffix}')
        if not file.is_file():
            continue
        try:
            library = ctypes.CDLL(str(file))
            if library.moments_interface() != INTERFACE:
                continue
            library.relu_moments.argtypes = [*[POINTER] * 7, *[SIZE] * 3, NUMBER, NUMBER]
            library.relu_moments.restype = None
            library.max_moments.argtypes = [*[POINTER] * 4, *[SIZE] * 10, POINTER, POINTER, SIZE, NUMBER]
            library.max_moments.restype = NUMBER
        except (OSError, AttributeError):
            continue
        return library
    return None


def wanted(value: str | None) -> bool:
    """Tell whether the variable of the environment, None if it is not set, leaves the compiled moments on."""
    return (value or '').strip().lower() not in OFF


class _State:
    library = _load()
    enabled = library is not None and wanted(os.environ.get(SWITCH))


def available() -> bool:
    """Tell whether the compiled moments were built for this Python and can be loaded."""
    return _State.library is not None


def use_compiled_moments(enabled: bool) -> bool:
    """Switch the compiled moments on or off; without them, the rules in Python compute the same to 1e-6.

    They are on where the installation found a C compiler, unless the environment has `MMROTATE_PLUGIN_COMPILED=0`.

    Args:
        enabled: Whether to use them. True has no effect where they were not built.

    Returns:
        Whether they were in use before, to switch back.

    Example:
        >>> from mmrotate_plugin.adf import use_compiled_moments
        >>> before = use_compiled_moments(False)
        >>> use_compiled_moments(before)
        False
    """
    before, _State.enabled = _State.enabled, bool(enabled) and available()
    return before


def library() -> ctypes.CDLL:
    """Return the library, which must be available."""
    assert _State.library is not None
    return _State.library


def takes(*maps: Tensor) -> bool:
    """Tell whether the compiled moments are in use and take these tensors: float32 of one dense layout on the CPU.

    Compilers and tracers of torch follow the rules in Python instead, and fuse their operations by themselves.
    """
    if is_compiling() or not _State.enabled:
        return False
    layout = maps[0].stride()
    return all(
        type(x) in (Tensor, torch.nn.Parameter)
        and x.dtype == torch.float32
        and x.device.type == 'cpu'
        and x.stride() == layout
        and not is_transformed(x)
        for x in maps
    ) and (maps[0].is_contiguous() or maps[0].is_contiguous(memory_format=torch.channels_last))
