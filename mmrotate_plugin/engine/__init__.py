"""What runs beside the model: hooks, a metric, mixed precision on the CPU, and what the command-line tools share."""

from .amp import BFloat16OptimWrapper
from .checkpoint_hook import WholeCheckpointHook
from .divergence import StopAtDivergenceHook
from .equivariance_hook import EquivarianceHook
from .hooks import DetectionPicturesHook
from .limits import LimitsHook
from .resume_hook import ExactResumeHook
from .schedule_hook import ConfigScheduleHook
from .uncertainty_metric import UncertaintyMetric

__all__ = [
    'BFloat16OptimWrapper',
    'ConfigScheduleHook',
    'DetectionPicturesHook',
    'EquivarianceHook',
    'ExactResumeHook',
    'LimitsHook',
    'StopAtDivergenceHook',
    'UncertaintyMetric',
    'WholeCheckpointHook',
]
