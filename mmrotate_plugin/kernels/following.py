"""Ask who follows a call: torch.compile, a tracer, a transform. torch 2.0 and 2.1 lack parts of it."""

from typing import Any

import torch
from torch import Tensor, nn

_compiler: Any = getattr(torch, 'compiler', None)


def is_compiling() -> bool:
    """Tell whether torch.compile or torch.export follows this call."""
    return hasattr(_compiler, 'is_compiling') and _compiler.is_compiling()


def is_dynamo_compiling() -> bool:
    """Tell whether torch.compile reads the code of this call; torch.export does so with ``strict=True`` only."""
    if hasattr(_compiler, 'is_dynamo_compiling'):
        return _compiler.is_dynamo_compiling()
    return is_compiling()


def is_tracing() -> bool:
    """Tell whether `torch.jit.trace`, or the ONNX export by it, records the operations of this call."""
    return torch.jit.is_tracing()  # type: ignore[attr-defined]  # documented, but not in the stub


def is_transformed(x: Tensor) -> bool:
    """Tell whether a transform of `torch.func` (grad, vmap, jvp, functionalize) follows this tensor."""
    return torch._C._functorch.is_functorch_wrapped_tensor(x)


def is_plain(x: Tensor) -> bool:
    """Tell whether a tensor may outlive the modes and transforms that are active now.

    It may not if it is of a subclass (such as fake and functional tensors) or wrapped by `torch.func`.
    """
    return type(x) in (Tensor, nn.Parameter) and not is_transformed(x)
