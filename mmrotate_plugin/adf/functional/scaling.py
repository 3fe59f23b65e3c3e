"""Division by a norm of the values themselves, which counts as a constant, as the statistics of norms do."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..gaussian import Gaussian, NoMomentRule, moment_rule
from ._normal import wide
from .linear import constants_only


@moment_rule(F.normalize)
def normalize(x: Gaussian, p: float = 2.0, dim: int | Sequence[int] = 1, eps: float = 1e-12, **_: Any) -> Gaussian:
    r"""Unit vectors along `dim`: :math:`\mu' = \mu / n`, :math:`v' = v / n^2`, :math:`n^2 = \sum \mu^2 + v`.

    **Approximate**: that the noise moves the length is neglected, an error of order 1 / (number of values).

    Raises:
        NoMomentRule: For another norm than p = 2.
    """
    if p != 2:
        raise NoMomentRule(f"'normalize' has a moment rule for p=2 only, not for p={p}")
    mean, var = x.mu.to(wide(x.dtype)), x.v.to(wide(x.dtype))
    square = (mean.square() + var).sum(dim, keepdim=True).clamp_min(eps**2)
    return Gaussian((mean * square.rsqrt()).to(x.dtype), (var / square).to(x.dtype))


def rms_norm(
    x: Gaussian, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Gaussian:
    r"""Division by the root of the mean square over the last dimensions, :math:`\mathrm{mean}(\mu^2 + v) + \epsilon`.

    **Approximate**, as `normalize`. Zhang & Sennrich, Root Mean Square Layer Normalization, NeurIPS 2019.
    """
    constants_only('rms_norm', weight=weight)
    mean, var = x.mu.to(wide(x.dtype)), x.v.to(wide(x.dtype))
    dims = list(range(-len(normalized_shape), 0))
    square = (mean.square() + var).mean(dims, keepdim=True) + (torch.finfo(x.dtype).eps if eps is None else eps)
    scale = square.rsqrt() if weight is None else square.rsqrt() * weight
    return Gaussian((mean * scale).to(x.dtype), (var * scale.square()).to(x.dtype))


if hasattr(F, 'rms_norm'):  # torch 2.4
    moment_rule(F.rms_norm)(rms_norm)
