"""Map boxes along when an image is resized, and map detections back."""

from .box_tensor import tensor_of
from .centred_scale import CentredScale, bring_back, content_slices, offset_of, whole_input
from .stretch import stretch_rotated

__all__ = ['CentredScale', 'bring_back', 'content_slices', 'offset_of', 'stretch_rotated', 'tensor_of', 'whole_input']
