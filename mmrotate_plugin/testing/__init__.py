"""Check the laws that the layers promise. The checks raise nothing: they measure."""

from .actions import act, act_on_irreps, act_on_regular, exact_elements, rotate, turn
from .equivariance import (
    EquivarianceCurve,
    EquivarianceError,
    Fields,
    compare_fields,
    disc,
    equivariance_curve,
    equivariance_error,
    fade_to_disc,
    full_precision,
    relative_error,
)
from .modules import feature_fields, randomize_norms_

__all__ = [
    'EquivarianceCurve',
    'EquivarianceError',
    'Fields',
    'act',
    'act_on_irreps',
    'act_on_regular',
    'compare_fields',
    'disc',
    'equivariance_curve',
    'equivariance_error',
    'exact_elements',
    'fade_to_disc',
    'feature_fields',
    'full_precision',
    'randomize_norms_',
    'relative_error',
    'rotate',
    'turn',
]
