"""Run models: hooks, optimizer wrappers, the state of a run, and checks before it starts."""

from .hooks import (
    ConfigScheduleHook,
    DetectionPicturesHook,
    EquivarianceHook,
    ExactResumeHook,
    LimitsHook,
    ReportHook,
    StopAtDivergenceHook,
    WholeCheckpointHook,
)
from .optimizers import BFloat16OptimWrapper

__all__ = [
    'BFloat16OptimWrapper',
    'ConfigScheduleHook',
    'DetectionPicturesHook',
    'EquivarianceHook',
    'ExactResumeHook',
    'LimitsHook',
    'ReportHook',
    'StopAtDivergenceHook',
    'WholeCheckpointHook',
]
