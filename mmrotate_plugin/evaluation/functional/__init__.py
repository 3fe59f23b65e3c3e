"""Functions of arrays that metrics are made of: overlaps, matching, suppression, average precision and its curves."""

from ...structures.rotated_iou import rotated_iou
from ...structures.rotated_nms import rotated_nms
from .box_matching import match_boxes
from .confusion import confusion_matrix
from .mean_ap import average_precision, class_ap, mean_ap, parts_of_class, rank_detections
from .score_curve import score_curve

__all__ = [
    'average_precision',
    'class_ap',
    'confusion_matrix',
    'match_boxes',
    'mean_ap',
    'parts_of_class',
    'rank_detections',
    'rotated_iou',
    'rotated_nms',
    'score_curve',
]
