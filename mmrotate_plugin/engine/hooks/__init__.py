"""Hooks for mmengine's runner: checkpoints, resuming, divergence, equivariance, pictures, limits, reports."""

from .checkpoint_hook import WholeCheckpointHook
from .detection_pictures_hook import DetectionPicturesHook
from .divergence_hook import StopAtDivergenceHook
from .equivariance_hook import EquivarianceHook
from .limits_hook import LimitsHook
from .report_hook import ReportHook
from .resume_hook import ExactResumeHook
from .schedule_hook import ConfigScheduleHook

__all__ = [
    'ConfigScheduleHook',
    'DetectionPicturesHook',
    'EquivarianceHook',
    'ExactResumeHook',
    'LimitsHook',
    'ReportHook',
    'StopAtDivergenceHook',
    'WholeCheckpointHook',
]
