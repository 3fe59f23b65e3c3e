"""Functions of arrays that metrics are made of: overlaps, matching, suppression and average precision."""

from ...structures.rotated_iou import rotated_iou
from ...structures.rotated_nms import rotated_nms
from .box_matching import match_boxes
from .mean_ap import average_precision, class_ap, mean_ap, parts_of_class

__all__ = ['average_precision', 'class_ap', 'match_boxes', 'mean_ap', 'parts_of_class', 'rotated_iou', 'rotated_nms']
