"""One moment rule per operation, by kind of operation; importing this registers all of them."""

from . import (
    activations,
    alpha_dropout,
    arithmetic,
    delta,
    interpolation,
    linear,
    maxima,
    normalization,
    plain,
    pooling,
    shaping,
    smooth,
    spread,
)

__all__ = [
    'activations',
    'alpha_dropout',
    'arithmetic',
    'delta',
    'interpolation',
    'linear',
    'maxima',
    'normalization',
    'plain',
    'pooling',
    'shaping',
    'smooth',
    'spread',
]
