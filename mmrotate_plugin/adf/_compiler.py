"""What torch.compile and a tracer have to know; torch 2.0 and 2.1 lack parts of it."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch

Function = TypeVar('Function', bound=Callable[..., Any])

_compiler = getattr(torch, 'compiler', None)


def is_compiling() -> bool:
    """Whether torch.compile, or a tracer such as that of the ONNX export, follows this call."""
    return is_tracing() or (hasattr(_compiler, 'is_compiling') and _compiler.is_compiling())


def is_dynamo_compiling() -> bool:
    """Whether torch.compile reads the code of this call; torch.export only does so with ``strict=True``."""
    if hasattr(_compiler, 'is_dynamo_compiling'):
        return _compiler.is_dynamo_compiling()
    return hasattr(_compiler, 'is_compiling') and _compiler.is_compiling()


def is_tracing() -> bool:
    """Whether a tracer records the operations of this call."""
    return torch.jit.is_tracing()


def is_transformed(x: torch.Tensor) -> bool:
    """Whether a transform of `torch.func` (grad, vmap, jvp, functionalize) follows this tensor."""
    return torch._C._functorch.is_functorch_wrapped_tensor(x)


class Elementwise(torch.autograd.Function):
    """A function of tensors of one shape, value by value, which `torch.vmap` may call with a batch of each."""

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Any, Any]:
        """The batch is one more dimension, the first, of all tensors."""
        batched = list(inputs)
        for i, (x, dim) in enumerate(zip(inputs, in_dims, strict=True)):
            if isinstance(x, torch.Tensor):
                batched[i] = x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
        out = cls.apply(*batched)
        return out, (0,) * len(out) if isinstance(out, tuple) else 0


def apply(function: type[torch.autograd.Function], *inputs: Any) -> Any:
    """Apply a function with a backward pass of its own; a tracer sees the operations of the forward pass instead.

    It would record one operation that no other runtime knows.
    """
    return function.forward(*inputs) if is_tracing() else function.apply(*inputs)


def constant_result(function: Function) -> Function:
    """Let torch.compile call a function once, and take what it returns for a constant."""
    mark = getattr(_compiler, 'assume_constant_result', None)
    return function if mark is None else mark(function)
