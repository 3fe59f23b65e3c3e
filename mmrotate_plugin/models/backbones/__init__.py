from .re_resnet import ReResNet
from .resnet import ResNet

__all__ = ['ReResNet', 'ResNet']
