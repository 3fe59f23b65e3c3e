"""Measure how good detections are: metrics, and the functions they are made of."""

from .errors import EvaluationError
from .metrics import DOTAMetric, UncertaintyMetric, ViewAgreementMetric

__all__ = ['DOTAMetric', 'EvaluationError', 'UncertaintyMetric', 'ViewAgreementMetric']
