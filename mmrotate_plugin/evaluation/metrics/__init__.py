"""Metrics for OpenMMLab's evaluator."""

from .dota_metric import DOTAMetric
from .uncertainty_metric import UncertaintyMetric
from .view_agreement_metric import ViewAgreementMetric

__all__ = ['DOTAMetric', 'UncertaintyMetric', 'ViewAgreementMetric']
