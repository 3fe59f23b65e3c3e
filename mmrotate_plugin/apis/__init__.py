"""Use a detector from Python: read a config, load a checkpoint, detect on images, train or test."""

from .inference import Detections, Detector
from .prediction import load_detector, predict
from .prediction_result import Prediction
from .prediction_saving import Saved, save_predictions

__all__ = ['Detections', 'Detector', 'Prediction', 'Saved', 'load_detector', 'predict', 'save_predictions']
