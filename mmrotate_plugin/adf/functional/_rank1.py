"""Variance of a linear layer by one output channel: squared weights of rank 1."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, finfo


def rank1_variance(layer: Callable[..., Tensor], var: Tensor, weight: Tensor, *geometry: Any) -> Tensor:
    r"""Variance of a convolution, a transposed one or a fully connected layer, in one output channel. **Approximate**.

    The squared weights of output channel o and position k in the window (input channel, row, column) are taken for

    .. math::
        W_{ok}^2 \approx a_o b_k, \qquad a_o = \sum_k W_{ok}^2, \qquad
        b_k = \frac{\sum_o W_{ok}^2}{\sum_{o, k} W_{ok}^2}

    in each group of channels by itself, so that :math:`v'_o = a_o (b * v)`. Where the variance is the same all over the
    window this is exact, for any weights, and so is the sum over the output channels, for any variance; a depthwise
    convolution is exact too. Of all rank-1 matrices a b with a, b >= 0 this one has the least Kullback-Leibler
    divergence from the squared weights (Gaussier & Goutte, SIGIR 2005, for non-negative factorisations in general).

    Args:
        layer: `F.linear`, `F.conv2d`, `F.conv_transpose2d` or those of one or three axes.
        var: As the layer's input.
        weight: The layer's, not squared.
        geometry: The layer's arguments after the bias; none for `F.linear`, else the fourth is its number of groups.

    Returns:
        As the layer's output.
    """
    if not geometry:
        total, shared = _factors(weight.square(), (1,), 0)
        return layer(var, shared, None) * total.squeeze(-1)  # (..., 1) * (O,)
    groups, axes = geometry[3], weight.dim() - 2
    # (G, O / G, I / G, k...), transposed (G, I / G, O / G, k...)
    squared = weight.square().reshape(groups, -1, *weight.shape[1:])
    out_dim = 2 if 'transpose' in layer.__name__ else 1
    total, shared = _factors(squared, tuple(d for d in range(1, axes + 3) if d != out_dim), out_dim)
    out = layer(var, shared.flatten(0, 1), None, *geometry).unsqueeze(-axes - 1)  # (B, G, 1, H', W')
    scale = total.reshape(groups, -1, *[1] * axes)
    return (out * scale).flatten(-axes - 2, -axes - 1)


def _factors(squared: Tensor, window: tuple[int, ...], outputs: int) -> tuple[Tensor, Tensor]:
    """a and b of `rank1_variance`, summed dimensions kept with size one."""
    total = squared.sum(window, keepdim=True)
    mass = total.sum(outputs, keepdim=True)
    # weights that all are zero: 0 / 0
    return total, squared.sum(outputs, keepdim=True) / mass.clamp_min(finfo(mass.dtype).tiny)
