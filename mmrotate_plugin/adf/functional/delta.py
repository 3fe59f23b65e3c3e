r"""Rules of first order, for Gaussians with ``rule='delta'``: :math:`\mu' = f(\mu)`, :math:`v' = f'(\mu)^2 v`.

The delta method (Benaroya, Han & Nagurka, Probability Models in Engineering and Science, CRC 2005) for what bends
where the moments take many passes over a map: ReLU and max pooling. A ReLU passes all of the variance or nothing,
whereas the moments have a third of it at the kink; a maximum passes that of the largest mean, although the noise
chooses among those that are close. Calibration makes up for it on average. Linear layers have the rank-1 rule, all
other operations their moments.
"""

from typing import Any

import torch.nn.functional as F

from ..gaussian import DELTA, RULES, Gaussian
from . import activations, pooling
from .maxima import NO_INDICES
from .plain_mean import channels_last


def relu(x: Gaussian, inplace: bool = False) -> Gaussian:  # noqa: ARG001  a Gaussian is never changed in place
    """ReLU to first order: the variance where the mean is positive, else 0. **Approximate**.

    Shape:
        - Input, output: mean and variance of one shape, any.
    """
    mean = F.relu(x.mu)
    return Gaussian(mean, x.v * mean.detach().sign())


def leaky_relu(x: Gaussian, negative_slope: float = 0.01, inplace: bool = False) -> Gaussian:  # noqa: ARG001
    """LeakyReLU to first order: the variance times 1 or the slope's square. **Approximate**.

    Shape:
        - Input, output: mean and variance of one shape, any.
    """
    above = (x.mu.detach() > 0).to(x.dtype)
    return Gaussian(F.leaky_relu(x.mu, negative_slope), x.v * (above + (1 - above) * negative_slope**2))


def max_pool2d(x: Gaussian, *args: Any, **kwargs: Any) -> Gaussian:
    """Max pooling to first order: the variance of the largest mean of each window. **Approximate**.

    Args:
        x: (B, C, H, W) or (C, H, W).
        args, kwargs: As of `torch.nn.functional.max_pool2d`; `return_indices` must be False.

    Raises:
        ValueError: If `return_indices` is set.
    """
    if kwargs.pop('return_indices', False) or any(args[5:]):
        raise ValueError(NO_INDICES)
    mean, indices = F.max_pool2d(channels_last(x.mu), *args[:5], return_indices=True, **kwargs)
    var = x.v.flatten(-2).gather(-1, indices.flatten(-2)).reshape(mean.shape)
    return Gaussian(mean.contiguous(), var)


for _rule, _first_order in (
    (activations.relu, relu),
    (activations.leaky_relu, leaky_relu),
    (pooling.max_pool2d, max_pool2d),
):
    DELTA.update({function: _first_order for function, rule in RULES.items() if rule is _rule})
