"""What configs name: backbones, necks and the layers under mmcv's builders."""

from . import layers  # noqa: F401  registers them
from .backbones import ReResNet, ResNet

__all__ = ['ReResNet', 'ResNet']
