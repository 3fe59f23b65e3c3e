"""Look at a data set before training: counts, measures, findings, and samples before and after the pipeline."""

from .browse import Browsed, browse_dataset

__all__ = ['Browsed', 'browse_dataset']
