"""Map boxes along when an image is resized, and map detections back."""

from .centred_scale import CentredScale, bring_back, content_slices, offset_of, whole_input
from .stretch import stretch_rotated

__all__ = ['CentredScale', 'bring_back', 'content_slices', 'offset_of', 'stretch_rotated', 'whole_input']
