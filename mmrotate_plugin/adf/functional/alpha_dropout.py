"""Dropout that keeps the mean and variance of self-normalising networks: an affine map, given its mask."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..gaussian import Gaussian
from ..moment_rules import moment_rule

SATURATION = 1.7580993408473766  # minus SELU's limit at minus infinity, which replaces dropped values


@moment_rule(F.alpha_dropout, torch.alpha_dropout, torch.alpha_dropout_)
def alpha_dropout(x: Gaussian, p: float = 0.5, training: bool = False, inplace: bool = False) -> Gaussian:  # noqa: ARG001
    r"""Alpha dropout with a sampled mask k: :math:`\mu' = a (k \mu - (1 - k) s) + b`, :math:`v' = a^2 k v`.

    **Exact** for that mask. With :math:`s = 1.758`, a and b restore mean 0 and variance 1 of values that had them
    (Klambauer et al., Self-Normalizing Neural Networks, NeurIPS 2017, arXiv:1706.02515). The same seed drops the same
    values of a plain tensor. It is the identity outside of training.

    Raises:
        ValueError: If `p` is not a probability.
    """
    return _dropped(x, p, x.shape) if training else x


@moment_rule(F.feature_alpha_dropout, torch.feature_alpha_dropout, torch.feature_alpha_dropout_)
def feature_alpha_dropout(x: Gaussian, p: float = 0.5, training: bool = False, inplace: bool = False) -> Gaussian:  # noqa: ARG001
    """Alpha dropout of whole channels, of the first two dimensions (B, C, ...), by the formula of `alpha_dropout`.

    Raises:
        ValueError: If `p` is not a probability.
    """
    return _dropped(x, p, [*x.shape[:2], *[1] * (x.dim() - 2)]) if training else x


def _dropped(x: Gaussian, p: float, shape: Sequence[int]) -> Gaussian:
    if not 0 <= p <= 1:
        raise ValueError(f'p={p} must be a probability, from 0 to 1')
    if p in (0, 1):  # as torch: at 1 all is 0
        return Gaussian(x.mu * (1 - p), x.v * (1 - p))
    kept: Tensor = x.mu.new_empty(shape).bernoulli_(1 - p)
    a = ((SATURATION**2 * p + 1) * (1 - p)) ** -0.5
    mean = a * (kept * x.mu + (kept - 1) * SATURATION) + a * p * SATURATION
    return Gaussian(mean, x.v * kept * a**2)
