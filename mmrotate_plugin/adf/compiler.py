"""What torch.compile and a tracer have to know; torch 2.0 and 2.1 lack parts of it."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch

Function = TypeVar('Function', bound=Callable[..., Any])

_compiler = getattr(torch, 'compiler', None)


def is_compiling() -> bool:
    """Whether torch.compile, or a tracer such as that of the ONNX export, follows this call."""
    return is_tracing() or (hasattr(_compiler, 'is_compiling') and _compiler.is_compiling())


def is_tracing() -> bool:
    """Whether a tracer records the operations of this call."""
    return torch.jit.is_tracing()


def apply(function: type[torch.autograd.Function], *inputs: Any) -> Any:
    """Apply a function with a backward pass of its own; a tracer sees the operations of the forward pass instead.

    It would record one operation that no other runtime knows.
    """
    return function.forward(*inputs) if is_tracing() else function.apply(*inputs)


def constant_result(function: Function) -> Function:
    """Let torch.compile call a function once, and take what it returns for a constant."""
    mark = getattr(_compiler, 'assume_constant_result', None)
    return function if mark is None else mark(function)
