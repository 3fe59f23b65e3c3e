"""Layers and classifiers of the ADF paper's code, as thin front ends to the moment rules.

Loquercio, Segu & Scaramuzza, A General Framework for Uncertainty Estimation in Deep Learning, RA-L 2020
(arXiv:1907.06890).
"""

from .containers import Sequential, concatenate_as
from .layers import (
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    ConvTranspose2d,
    Dropout,
    LeakyReLU,
    Linear,
    MaxPool2d,
    ReLU,
    Softmax,
)
from .resnet import (
    BasicBlock,
    Bottleneck,
    ResNet18ADF,
    ResNet34ADF,
    ResNet50ADF,
    ResNet101ADF,
    ResNet152ADF,
    ResNetADF,
)

__all__ = [
    'AvgPool2d',
    'BasicBlock',
    'BatchNorm2d',
    'Bottleneck',
    'Conv2d',
    'ConvTranspose2d',
    'Dropout',
    'LeakyReLU',
    'Linear',
    'MaxPool2d',
    'ReLU',
    'ResNet18ADF',
    'ResNet34ADF',
    'ResNet50ADF',
    'ResNet101ADF',
    'ResNet152ADF',
    'ResNetADF',
    'Sequential',
    'Softmax',
    'concatenate_as',
]
