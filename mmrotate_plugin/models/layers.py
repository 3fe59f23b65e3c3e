"""Makes the equivariant layers known to mmcv's builders."""

from ..equivariant import (
    ennAvgPool,
    ennBN,
    ennConv,
    ennGN,
    ennInterpolate,
    ennMaxPool,
    ennReLU,
    ennSyncBN,
    ennTrivialConv,
)
from ..registry import MODELS, register

for layer in (
    ennConv,
    ennTrivialConv,
    ennBN,
    ennSyncBN,
    ennGN,
    ennReLU,
    ennMaxPool,
    ennAvgPool,
    ennInterpolate,
):
    register(MODELS)(layer)
