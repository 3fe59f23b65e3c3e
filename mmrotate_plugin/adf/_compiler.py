"""Make functions that torch.compile, tracers and transforms can follow."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.autograd import forward_ad

from ..kernels import following
from ..kernels.following import is_plain, is_tracing, is_transformed

Function = TypeVar('Function', bound=Callable[..., Any])


def is_compiling() -> bool:
    """Tell whether torch.compile, or a tracer such as the one of the ONNX export, follows this call."""
    return is_tracing() or following.is_compiling()


def may_read(x: torch.Tensor) -> bool:
    """Tell whether a rule may choose by the values of a tensor: they are at hand, and nobody follows the call."""
    return x.device.type == 'cpu' and is_plain(x) and not is_compiling()


class Elementwise(torch.autograd.Function):
    """An elementwise function of tensors of one shape, which `torch.vmap` may call with a batch of each."""

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Any, Any]:
        """Apply the function to all samples at once: the batch becomes the first dimension of all tensors."""
        batched = list(inputs)
        for i, (x, dim) in enumerate(zip(inputs, in_dims, strict=True)):
            if isinstance(x, torch.Tensor):
                batched[i] = x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
        out = cls.apply(*batched)
        return out, (0,) * len(out) if isinstance(out, tuple) else 0


def apply(function: type[torch.autograd.Function], *inputs: Any) -> Any:
    """Apply a function that has its own backward pass; show a tracer the operations of its forward pass instead.

    The tracer would otherwise record a single operation that no other runtime knows. Where nothing is differentiated,
    the forward pass is called by itself: torch reads the function's signature anew in each call, for 50 microseconds.
    """
    return function.forward(*inputs) if is_tracing() or not _followed(inputs) else function.apply(*inputs)


def _followed(inputs: tuple[Any, ...]) -> bool:
    """Tell whether anything that needs the backward pass or the batching rule of a function may follow its inputs."""
    tensors = [x for x in inputs if isinstance(x, torch.Tensor)]
    return is_compiling() or follows_gradient(*tensors) or any(map(is_transformed, tensors))


def follows_gradient(*tensors: torch.Tensor) -> bool:
    """Tell whether operations on these tensors are differentiated, backward or forward."""
    learns = torch.is_grad_enabled()
    return forward_ad._current_level >= 0 or any(learns and x.requires_grad for x in tensors)


def constant_result(function: Function) -> Function:
    """Let torch.compile call a function once and treat its result as a constant.

    This is `torch.compiler.assume_constant_result`, which imports the compiler to set one attribute: 250 modules,
    Triton's among them, and 90 MB in each program, also in those that never compile.
    """
    vars(function)['_dynamo_marked_constant'] = True
    return function
