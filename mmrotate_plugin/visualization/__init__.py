"""Pictures of detections: numpy arrays in, numpy arrays out, drawn with OpenCV alone."""

from .bands import fill_bands
from .boxes import class_colours, draw_boxes, encode_image, legend, side_by_side, to_polygons
from .heat_map import heat_map

__all__ = [
    'class_colours',
    'draw_boxes',
    'encode_image',
    'fill_bands',
    'heat_map',
    'legend',
    'side_by_side',
    'to_polygons',
]
