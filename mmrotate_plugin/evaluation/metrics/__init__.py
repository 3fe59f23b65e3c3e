"""Metrics for OpenMMLab's evaluator."""

from .dota_metric import DOTAMetric
from .uncertainty_metric import UncertaintyMetric

__all__ = ['DOTAMetric', 'UncertaintyMetric']
