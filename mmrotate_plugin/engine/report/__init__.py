"""Write the report of a training or a test: one page, its figures and its numbers."""

from .detections_file import load_detections, save_detections
from .scalars import read_scalars
from .write import Evaluation, write_report

__all__ = ['Evaluation', 'load_detections', 'read_scalars', 'save_detections', 'write_report']
