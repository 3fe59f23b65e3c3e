"""What configs name: backbones, necks and the layers under mmcv's builders."""

from . import layers, losses, roi_heads  # noqa: F401  registers them
from .backbones import ADFResNet, ReResNet, ResNet
from .necks import ReFPN
from .utils.complexity import mend_counters

mend_counters()

__all__ = ['ADFResNet', 'ReFPN', 'ReResNet', 'ResNet']
