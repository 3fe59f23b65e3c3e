"""Metrics of OpenMMLab's evaluator."""

from .dota_metric import DOTAMetric

__all__ = ['DOTAMetric']
