"""Losses of detectors' heads."""

from .heteroscedastic_loss import HeteroscedasticLoss

__all__ = ['HeteroscedasticLoss']
