"""Measure how good detections are: metrics, and the functions they are made of."""

from .errors import EvaluationError
from .merged_predictions import Merged, merge_predictions
from .metrics import DOTAMetric, UncertaintyMetric, ViewAgreementMetric

__all__ = ['DOTAMetric', 'EvaluationError', 'Merged', 'UncertaintyMetric', 'ViewAgreementMetric', 'merge_predictions']
