"""Minima: maxima with the signs exchanged."""

from typing import Any

import torch
from torch import Tensor

from ..gaussian import Gaussian, moment_rule
from .maxima import Size, amax, maximum


@moment_rule(torch.amin, Tensor.amin)
def amin(x: Gaussian, dim: Size = (), keepdim: bool = False) -> Gaussian:
    """Minimum over dimensions, by the rule of `maxima.amax`. **Exact if independent** for two values, else approximate.

    Args:
        x: Any shape.
        dim: One or several; none means all.
        keepdim: Keep them with size one.
    """
    out = amax(Gaussian(-x.mu, x.v), dim, keepdim)
    return Gaussian(-out.mu, out.v)


@moment_rule(torch.minimum, Tensor.minimum)
def minimum(x: Gaussian | Tensor, other: Gaussian | Tensor) -> Gaussian:
    """Elementwise minimum of two independent Gaussians, or of one and a constant. **Exact if independent**.

    Args:
        x, other: Shapes that broadcast; a plain tensor has variance zero.
    """
    out = maximum(*(Gaussian(-g.mu, g.v) if isinstance(g, Gaussian) else -g for g in (x, other)))
    return Gaussian(-out.mu, out.v)


@moment_rule(torch.min, Tensor.min)
def minimum_of(x: Any, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """`torch.min` in its three forms: over all values, over one dimension, or of two tensors; as `maxima.maximum_of`.

    Over a dimension it returns values and indices as torch does; the indices are those of the smallest means.

    Args:
        x: Any shape.
        dim: Dimension, or the second tensor.
        keepdim: Keep the dimension with size one.
        other: The second tensor.
    """
    second = other if other is not None else dim
    if isinstance(second, (Gaussian, Tensor)):
        return minimum(x, second)
    if dim is None:
        return amin(x)
    return torch.return_types.min((amin(x, dim, keepdim), x.mu.argmin(dim, keepdim)))
