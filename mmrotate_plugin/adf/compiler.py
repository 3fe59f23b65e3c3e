"""What torch.compile has to know; torch 2.0 and 2.1 lack parts of it."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch

Function = TypeVar('Function', bound=Callable[..., Any])

_compiler = getattr(torch, 'compiler', None)


def is_compiling() -> bool:
    """Whether torch.compile follows this call."""
    return hasattr(_compiler, 'is_compiling') and _compiler.is_compiling()


def constant_result(function: Function) -> Function:
    """Let torch.compile call a function once, and take what it returns for a constant."""
    mark = getattr(_compiler, 'assume_constant_result', None)
    return function if mark is None else mark(function)
