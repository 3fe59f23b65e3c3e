"""Pass the uncertainty of a backbone on to the detections."""

from . import rules_deform_conv, rules_fourier_relu, rules_roi_align

__all__ = ['rules_deform_conv', 'rules_fourier_relu', 'rules_roi_align']  # imported to register their rules
