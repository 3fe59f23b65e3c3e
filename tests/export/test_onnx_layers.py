"""ONNX of single layers, for any batch and size, by operators that every runtime has."""

import pytest
import torch
from torch import nn

pytest.importorskip('onnxruntime')

from mmrotate_plugin.adf import Gaussian
from mmrotate_plugin.equivariant import (
    ennBlurPool,
    ennBlurUpsample,
    ennFourierReLU,
    ennIrrepConv,
    ennMaxBlurPool,
    ennSqueezeExcite,
    export,
)
from mmrotate_plugin.export.onnx_export import MAP, _run, _write
from mmrotate_plugin.testing import relative_error

LAYERS = [
    ennFourierReLU(group='C8'),
    ennFourierReLU(group='D4', function='elu', oversampling=3),
    ennBlurPool(),
    ennBlurPool(1.0, 2, 5, count_include_pad=True),
    ennMaxBlurPool(3, 2, 1),
    ennBlurUpsample(),
    ennIrrepConv(16, (0, 1, 2), 3, padding=1),
    ennSqueezeExcite(16, ratio=1),
]


class Moments(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        out = self.layer(Gaussian(x, x.square()))
        return out.mean, out.var


@pytest.mark.parametrize('layer', LAYERS, ids=lambda layer: type(layer).__name__)
@pytest.mark.parametrize('opset', [11, 17])
def test_a_layer_runs_elsewhere(layer, opset):
    net = export(layer.eval())
    images = [torch.randn(1, 16, 9, 9), torch.randn(2, 16, 13, 17)]
    written = _write(net, images[0], {'out': MAP}, True, opset)
    for image, (found,) in zip(images, _run(written, images), strict=True):
        with torch.no_grad():
            assert relative_error(found, layer(image)) < 1e-5
    assert relative_error(found, layer(images[1] + 1)) > 0.01


@pytest.mark.parametrize('layer', [LAYERS[0], LAYERS[2], LAYERS[5]], ids=lambda layer: type(layer).__name__)
def test_moments_run_elsewhere(layer):
    net, images = Moments(layer), [torch.randn(1, 16, 9, 9), torch.randn(2, 16, 13, 17)]
    written = _write(net, images[0], {'mean': MAP, 'var': MAP}, True, 17)
    for image, found in zip(images, _run(written, images), strict=True):
        with torch.no_grad():
            for actual, expected in zip(found, net(image), strict=True):
                assert relative_error(actual, expected) < 1e-4
