"""What passes the uncertainty of a backbone on to the detections."""

from . import deform_conv, roi_align

__all__ = ['deform_conv', 'roi_align']  # imported to register their rules
