"""Pictures of detections: numpy arrays in, numpy arrays out, drawn with OpenCV alone."""

from .draw import class_colours, draw_boxes, encode_image, legend, side_by_side, to_polygons

__all__ = ['class_colours', 'draw_boxes', 'encode_image', 'legend', 'side_by_side', 'to_polygons']
