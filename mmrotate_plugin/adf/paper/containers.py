"""What the ADF paper's code puts layers together with: `Sequential` and `concatenate_as`."""

import inspect
from collections.abc import Sequence as Items
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .._compiler import constant_result
from ..gaussian import Gaussian
from .layers import MomentLayer, Moments, through


class Sequential(nn.Sequential):
    """Layers in a row, these or any other that a `Gaussian` can pass. Arguments of `torch.nn.Sequential`.

    Modules written as the paper's, ``forward(self, mean, var)`` or ``forward(self, *moments)``, are called with mean
    and variance and return both.

    Shape:
        - Input: mean and variance of one shape, or a `Gaussian`.
        - Output: a tuple of mean and variance, or a `Gaussian`.

    Raises:
        TypeError: If such a module returns something else.
    """

    def forward(self, x: Gaussian | Tensor, var: Tensor | None = None) -> Gaussian | Moments:
        """A `Gaussian` to a `Gaussian`, mean and variance to mean and variance."""
        return through(self._propagate, x, var)

    def _propagate(self, x: Gaussian) -> Gaussian:
        for name, module in self._modules.items():
            if isinstance(module, (MomentLayer, Sequential)) or not _takes_pairs(type(module)):
                x = module(x)
                continue
            out = module(x.mu, x.v)
            if isinstance(out, Gaussian):
                x = out
                continue
            if not (isinstance(out, (tuple, list)) and len(out) == 2 and all(isinstance(part, Tensor) for part in out)):
                what = f'{type(out).__name__} of {len(out)}' if isinstance(out, (tuple, list)) else type(out).__name__
                raise TypeError(f'module {name} ({type(module).__name__}) must return mean and variance, not a {what}')
            x = x.replace(*out)
        return x


@constant_result
def _takes_pairs(kind: type[nn.Module]) -> bool:
    """Whether a module is called with a mean and a variance: its `forward` needs two arguments, or takes any number."""
    if kind.__module__.startswith('torch.'):
        return False
    try:
        given = list(inspect.signature(kind.forward).parameters.values())[1:]  # without self
    except (TypeError, ValueError):  # of a function that is not Python's
        return False
    if any(p.kind is p.VAR_POSITIONAL for p in given[:1]):
        return True
    needed = [p for p in given if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return len(needed) == 2


def concatenate_as(
    tensor_list: Items[Gaussian | Moments], tensor_as: Gaussian | Moments, dim: int, mode: str = 'bilinear'
) -> Gaussian | Moments:
    """Resize maps to the size of another one and join them.

    Larger maps are averaged (`torch.nn.functional.adaptive_avg_pool2d`), smaller ones interpolated. Variances get the
    squares of the weights, where the paper's code interpolates them like means.

    Args:
        tensor_list: Pairs of mean and variance, or Gaussians, (B, C, H, W).
        tensor_as: Of the height and width to reach.
        dim: To join along.
        mode: As of `torch.nn.functional.interpolate`.

    Returns:
        A pair, or a `Gaussian` if `tensor_list` holds one.
    """
    maps = [x if isinstance(x, Gaussian) else Gaussian(*x) for x in tensor_list]
    size = (tensor_as if isinstance(tensor_as, Gaussian) else tensor_as[0]).shape[-2:]
    resized = [_resize(x, size, mode) for x in maps]
    out = torch.cat(resized, dim)  # type: ignore[call-overload]
    return out if any(isinstance(x, Gaussian) for x in tensor_list) else (out.mu, out.v)


def _resize(x: Gaussian, size: Items[int], mode: str) -> Any:
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    if any(target < here for target, here in zip(size, x.shape[-2:], strict=True)):
        return F.adaptive_avg_pool2d(x, tuple(size))  # type: ignore[arg-type]
    return F.interpolate(x, tuple(size), mode=mode)  # type: ignore[arg-type]
