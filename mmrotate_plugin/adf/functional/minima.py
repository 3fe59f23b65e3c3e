"""Take minima: maxima with the signs exchanged."""

from typing import Any

import torch
from torch import Tensor

from ..gaussian import Gaussian
from ..moment_rules import moment_rule
from .maxima import Size, amax, in_three_forms, maximum


@moment_rule(torch.amin, Tensor.amin)
def amin(x: Gaussian, dim: Size = (), keepdim: bool = False) -> Gaussian:
    """Take the minimum over dimensions, by the rule of `maxima.amax`. **Exact if independent** for two values.

    Args:
        x: Any shape.
        dim: One dimension or several; none means all.
        keepdim: Whether to keep them with size one.
    """
    out = amax(Gaussian(-x.mu, x.v), dim, keepdim)
    return Gaussian(-out.mu, out.v)


@moment_rule(torch.minimum, Tensor.minimum)
def minimum(x: Gaussian | Tensor, other: Gaussian | Tensor) -> Gaussian:
    """Take the elementwise minimum of two independent Gaussians, or of one and a constant. **Exact if independent**.

    Args:
        x, other: Shapes that broadcast; a plain tensor has variance zero.
    """
    out = maximum(*(Gaussian(-g.mu, g.v) if isinstance(g, Gaussian) else -g for g in (x, other)))
    return Gaussian(-out.mu, out.v)


@moment_rule(torch.min, Tensor.min)
def minimum_of(x: Any, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """Replace `torch.min` in its three forms, as `maxima.maximum_of` does `torch.max`.

    Over a dimension it returns values and indices as torch does; the indices are those of the smallest means.

    Args:
        x: Any shape.
        dim: Dimension, or the second tensor.
        keepdim: Whether to keep the dimension with size one.
        other: The second tensor.
    """
    return in_three_forms(minimum, amin, Tensor.argmin, torch.return_types.min, x, dim, keepdim, other)
