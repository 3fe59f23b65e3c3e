"""Make tensors callable: ``x.mean`` of a Gaussian is its tensor, ``x.mean(dim)`` its average."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..kernels.following import is_dynamo_compiling

EMPTY = torch.empty(0, device='cpu')


class Moment(Tensor):
    """The mean or variance of a `Gaussian`: its tensor, which networks may also call like the method of that name.

    For every function and attribute of torch it stands for the tensor that the Gaussian was made of: results are plain
    tensors, gradients and hooks belong to that tensor, copies and files hold it. The Gaussian keeps no reference to
    it.
    """

    tensor: Tensor
    method: Callable[..., Any]

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return function(*plain(list(args)), **plain(dict(kwargs or {})))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.method(*args, **kwargs)


def callable_moment(tensor: Tensor, method: Callable[..., Any]) -> Tensor:
    """Wrap a tensor in a `Moment` whose call is `method`; not under torch.compile, which cannot follow one."""
    if is_dynamo_compiling():
        return tensor
    # fake and functional tensors cannot change their class; nothing reads the numbers of a `Moment` itself
    moment = tensor.as_subclass(Moment) if type(tensor) is Tensor else Tensor._make_subclass(Moment, EMPTY)
    moment.tensor, moment.method = tensor, method
    return moment


def plain(values: Any) -> Any:
    """Replace each `Moment` in nested values by its tensor."""
    if type(values) is Moment:
        return values.tensor
    if type(values) in (list, tuple):
        return type(values)(map(plain, values))
    if type(values) is dict:
        return {key: plain(value) for key, value in values.items()}
    return values
