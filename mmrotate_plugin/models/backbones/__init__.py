from .adf_resnet import ADFResNet
from .re_resnet import ReResNet
from .resnet import ResNet

__all__ = ['ADFResNet', 'ReResNet', 'ResNet']
