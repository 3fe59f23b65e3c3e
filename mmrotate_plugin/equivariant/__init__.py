"""Equivariant layers on plain tensors. Needs torch, numpy and e2cnn, and nothing of OpenMMLab."""

from .blur import ennBlurPool, ennBlurUpsample, ennMaxBlurPool
from .conv import ennConv, ennTrivialConv
from .export import export
from .fields import (
    build_enn_divide_feature,
    build_enn_feature,
    build_enn_trivial_feature,
    count_fields,
    group_order,
    parse_group,
)
from .fourier import FourierConv2d
from .fourier_relu import ennFourierReLU
from .irrep_conv import ennIrrepConv
from .norm import FieldNorm, build_enn_norm_layer, ennBN, ennGN, ennSyncBN
from .pointwise import ennAvgPool, ennGroupPool, ennInterpolate, ennMaxPool, ennReLU
from .squeeze_excite import ennSqueezeExcite

__all__ = [
    'FieldNorm',
    'FourierConv2d',
    'build_enn_divide_feature',
    'build_enn_feature',
    'build_enn_norm_layer',
    'build_enn_trivial_feature',
    'count_fields',
    'ennAvgPool',
    'ennBN',
    'ennBlurPool',
    'ennBlurUpsample',
    'ennConv',
    'ennFourierReLU',
    'ennGN',
    'ennGroupPool',
    'ennInterpolate',
    'ennIrrepConv',
    'ennMaxBlurPool',
    'ennMaxPool',
    'ennReLU',
    'ennSqueezeExcite',
    'ennSyncBN',
    'ennTrivialConv',
    'export',
    'group_order',
    'parse_group',
]
