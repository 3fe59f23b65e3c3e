"""Fit variance gains by Monte Carlo: what the moment rules miss by treating values as independent.

A convolution or a pooling sums values that noise moves together, and its rule neglects that. The missing part is
nearly constant within a channel of a trained network, so one factor per channel repairs most of it. `adf.gains` keeps
these factors.
"""

from .comparison import percentiles
from .fit import calibrate
from .report import Calibration, LayerReport, Ratio

__all__ = ['Calibration', 'LayerReport', 'Ratio', 'calibrate', 'percentiles']
