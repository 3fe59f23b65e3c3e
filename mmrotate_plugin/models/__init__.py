"""Backbones, necks, losses and layers that configs name."""

from . import layers, losses, roi_heads  # noqa: F401  registers them
from .backbones import ADFResNet, ReResNet, ResNet
from .necks import ReFPN
from .utils.counter_mends import mend_counters

mend_counters()

__all__ = ['ADFResNet', 'ReFPN', 'ReResNet', 'ResNet']
