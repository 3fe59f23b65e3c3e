"""Losses of detectors' heads."""

from .heteroscedastic import HeteroscedasticLoss

__all__ = ['HeteroscedasticLoss']
