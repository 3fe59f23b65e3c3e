"""Propagate values with a mean and a variance through any network (assumed density filtering). Needs torch alone."""

from . import functional  # registers the rules
from .calibration import Calibration, calibrate
from .dropout_sampling import NoDropout
from .gains import accept_gains, gain_noise, gain_rule, remove_gains
from .gaussian import Gaussian
from .jacobian import jacobian_variance
from .mc_dropout import Prediction, predict
from .moment_rules import NoMomentRule, moment_rule
from .noise_estimation import estimate_noise
from .paper import (
    AvgPool2d,
    BasicBlock,
    BatchNorm2d,
    Bottleneck,
    Conv2d,
    ConvTranspose2d,
    Dropout,
    LeakyReLU,
    Linear,
    MaxPool2d,
    ReLU,
    ResNet18ADF,
    ResNet34ADF,
    ResNet50ADF,
    ResNet101ADF,
    ResNet152ADF,
    ResNetADF,
    Sequential,
    Softmax,
    concatenate_as,
)

__all__ = [
    'AvgPool2d',
    'BasicBlock',
    'BatchNorm2d',
    'Bottleneck',
    'Calibration',
    'Conv2d',
    'ConvTranspose2d',
    'Dropout',
    'Gaussian',
    'LeakyReLU',
    'Linear',
    'MaxPool2d',
    'NoDropout',
    'NoMomentRule',
    'Prediction',
    'ReLU',
    'ResNet18ADF',
    'ResNet34ADF',
    'ResNet50ADF',
    'ResNet101ADF',
    'ResNet152ADF',
    'ResNetADF',
    'Sequential',
    'Softmax',
    'accept_gains',
    'calibrate',
    'concatenate_as',
    'estimate_noise',
    'functional',
    'gain_noise',
    'gain_rule',
    'jacobian_variance',
    'moment_rule',
    'predict',
    'remove_gains',
]
