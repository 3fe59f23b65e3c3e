"""Compute the variance of a linear layer through one channel: squared weights of rank 1."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, finfo


def rank1_variance(layer: Callable[..., Tensor], var: Tensor, weight: Tensor, *geometry: Any) -> Tensor:
    r"""Compute the variance of a linear layer in one output channel per group. **Approximate**.

    The squared weights of output channel o at position k in the window (input channel, row, column) are replaced by

    .. math::
        W_{ok}^2 \approx a_o b_k, \qquad a_o = \sum_k W_{ok}^2, \qquad
        b_k = \frac{\sum_o W_{ok}^2}{\sum_{o, k} W_{ok}^2}

    separately in each group of channels, so that :math:`v'_o = a_o (b * v)`. This is exact, for any weights, where the
    variance is constant over the window; the sum over the output channels is exact for any variance, and so are
    depthwise convolutions. Of all rank-1 matrices a b with a, b >= 0 this one has the least Kullback-Leibler
    divergence from the squared weights (Gaussier & Goutte, SIGIR 2005, for non-negative factorisations in general).

    Args:
        layer: `F.linear`, or a convolution or transposed convolution over one to three axes.
        var: Variance of the layer's input.
        weight: Weight of the layer, not squared.
        geometry: Arguments of the layer after the bias; none for `F.linear`, otherwise the fourth is its number of
            groups.

    Returns:
        Variance of the layer's output.
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
    """Compute a and b of `rank1_variance`, with summed dimensions of size one."""
    total = squared.sum(window, keepdim=True)
    mass = total.sum(outputs, keepdim=True)
    # 0 / 0 if all weights are zero
    return total, squared.sum(outputs, keepdim=True) / mass.clamp_min(finfo(mass.dtype).tiny)
