import subprocess
import sys

import pytest
import torch
from mmcv.cnn import build_activation_layer, build_upsample_layer
from mmengine.registry import MODELS as ROOT

import mmrotate_plugin
from mmrotate_plugin.equivariant import (
    build_enn_divide_feature,
    build_enn_feature,
    build_enn_trivial_feature,
    ennAvgPool,
    ennInterpolate,
    ennMaxPool,
    ennReLU,
)
from mmrotate_plugin.testing import act_on_regular, relative_error


def test_field_types():
    assert (len(build_enn_divide_feature(64)), build_enn_divide_feature(64).size) == (8, 64)
    assert (len(build_enn_feature(8, 'C4')), build_enn_feature(8, 'C4').size) == (8, 32)
    assert build_enn_trivial_feature(3, 'D4').size == 3
    assert build_enn_divide_feature(32, 'D8').representations[0].size == 16
    with pytest.raises(ValueError, match='planes=20.*order 8.*16 or 24'):
        build_enn_divide_feature(20)


@pytest.mark.parametrize(
    'layer',
    [ennReLU(), ennMaxPool(3, 2, 1), ennAvgPool(3, 2, 1), ennInterpolate(2), ennInterpolate(size=9, mode='bilinear'),
     ennInterpolate(2, mode='nearest'), ennInterpolate(size=17, align_corners=True)],
    ids=str,
)  # fmt: skip
def test_pointwise_layers_commute_with_the_group(layer):
    x = torch.randn(1, 16, 9, 9)
    expected = act_on_regular(layer(x), 'C8', 1)
    assert relative_error(layer(act_on_regular(x, 'C8', 1)), expected) < 1e-6
    assert relative_error(layer(x), expected) > 0.1


def test_corner_based_resampling_fails_that_check():
    for layer in (ennInterpolate(size=13, mode='nearest'), ennAvgPool(2, 2, ceil_mode=True)):
        x = torch.randn(1, 16, 9, 9)
        assert relative_error(layer(act_on_regular(x, 'C8', 1)), act_on_regular(layer(x), 'C8', 1)) > 0.1


def test_mmcv_builds_them():
    assert build_activation_layer(dict(type='ennReLU', inplace=True)).inplace
    up = build_upsample_layer(dict(type='ennInterpolate', scale_factor=2, mode='nearest'))
    assert isinstance(up, ennInterpolate) and up(torch.zeros(1, 8, 3, 3)).shape[-1] == 6
    assert isinstance(ROOT.build(dict(type='ennMaxPool', kernel_size=3, stride=2)), ennMaxPool)
    assert isinstance(ROOT.build(dict(type='mmrotate_plugin.ennAvgPool', kernel_size=3)), ennAvgPool)


def test_interpolate_refuses_what_it_cannot_do():
    for bad, message in [
        (dict(), 'one of scale_factor and size'),
        (dict(scale_factor=2, size=3), 'one of scale_factor and size'),
        (dict(scale_factor=2, mode='cubic'), "mode='cubic'.*bicubic"),
        (dict(scale_factor=2, mode='nearest', align_corners=False), 'align_corners=False has no meaning'),
    ]:
        with pytest.raises(ValueError, match=message):
            ennInterpolate(**bad)


def test_layers_import_nothing_of_openmmlab():
    code = (
        'import sys, types; p = types.ModuleType("mmrotate_plugin"); p.__path__ = [sys.argv[1]];'
        'sys.modules["mmrotate_plugin"] = p; import mmrotate_plugin.equivariant;'
        'bad = [m for m in sys.modules if m.split(".")[0] in ("mmcv", "mmengine", "mmdet", "mmrotate")];'
        'assert not bad, bad'
    )
    subprocess.run([sys.executable, '-c', code, mmrotate_plugin.__path__[0]], check=True)
