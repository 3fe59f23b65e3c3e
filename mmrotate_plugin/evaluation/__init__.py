"""How good detections are: metrics, and what they are made of."""

from .errors import EvaluationError
from .metrics import DOTAMetric

__all__ = ['DOTAMetric', 'EvaluationError']
