"""Draw detections with OpenCV alone: numpy arrays in, numpy arrays out."""

from .bands import fill_bands
from .boxes import draw_boxes, to_polygons
from .crops import upright_crop
from .heat_map import heat_map
from .palette import class_colours
from .pixels import encode_image
from .sheet import legend, side_by_side

__all__ = [
    'class_colours',
    'draw_boxes',
    'encode_image',
    'fill_bands',
    'heat_map',
    'legend',
    'side_by_side',
    'to_polygons',
    'upright_crop',
]
