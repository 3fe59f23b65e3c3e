"""Measure how good detections are: metrics, and the functions they are made of."""

from typing import TYPE_CHECKING

from .. import _lazy
from .errors import EvaluationError
from .metrics import DOTAMetric, UncertaintyMetric, ViewAgreementMetric

if TYPE_CHECKING:
    from .merged_predictions import Merged, merge_predictions

# functions, which no config names
__getattr__ = _lazy.lazy_names(__name__, {'merged_predictions': ('Merged', 'merge_predictions')})

__all__ = ['DOTAMetric', 'EvaluationError', 'Merged', 'UncertaintyMetric', 'ViewAgreementMetric', 'merge_predictions']
