"""ONNX of backbone, neck and head: names, the check against torch, and errors that it notices."""

import math
import sys

import pytest
import torch
from mmengine.registry import init_default_scope
from torch import nn

pytest.importorskip('mmdet')
pytest.importorskip('onnxruntime')

from mmdet.registry import MODELS

from mmrotate_plugin.adf import Gaussian
from mmrotate_plugin.export import Unsupported, export_onnx, onnx_symbolics
from mmrotate_plugin.export.onnx_export import _run, _write
from mmrotate_plugin.export.onnx_network import Network
from mmrotate_plugin.testing import randomize_norms_, relative_error

LEVELS = [16, 32]
STAGES = dict(depth=18, base_channels=16, num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(0, 1))
RE = dict(type='mmrotate_plugin.ReResNet', **STAGES)
ADF = dict(type='mmrotate_plugin.ADFResNet', **STAGES, noise_variance=0.02)
SHORT = dict(ADF, num_stages=1, strides=(1,), dilations=(1,), out_indices=(0,))
NECKS = {
    'FPN': dict(type='mmdet.FPN', in_channels=LEVELS, out_channels=16, num_outs=3),
    'ReFPN': dict(type='mmrotate_plugin.ReFPN', in_channels=LEVELS, out_channels=16, num_outs=3),
    'pooled': dict(type='mmrotate_plugin.ReFPN', in_channels=LEVELS, out_channels=16, num_outs=3, group_pool='max'),
}
IMAGE = (1, 3, 65, 33)


class Detector(nn.Module):
    def __init__(self, backbone, neck=None, head=None):
        super().__init__()
        init_default_scope('mmdet')
        self.backbone = MODELS.build(dict(backbone))
        if neck is not None:
            self.neck = MODELS.build(dict(NECKS[neck]))
        if head is not None:
            self.bbox_head = head
        randomize_norms_(self)


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.score, self.box = nn.Conv2d(16, 2, 1), nn.Conv2d(16, 5, 1)

    def forward(self, maps):
        return [self.score(m) for m in maps], [self.box(m).exp() for m in maps]


def test_equivariant_pyramid_for_any_batch_and_size():
    made = export_onnx(Detector(RE, 'ReFPN'), torch.randn(IMAGE), dynamic=True)
    assert made.names == ['level0', 'level1', 'level2']
    assert made.shapes == [(1, 16, 17, 9), (1, 16, 9, 5), (1, 16, 5, 3)]
    assert made.sizes == [(1, 65, 33), (2, 129, 33)]
    assert 0 < made.difference < 1e-5
    fixed = export_onnx(Detector(RE, 'pooled'), torch.randn(IMAGE), opset=16)
    assert fixed.shapes[0] == (1, 2, 17, 9) and fixed.difference < 1e-5 and fixed.sizes == [(1, 65, 33)]


def test_mean_and_variance_through_backbone_neck_and_head():
    detector = Detector(ADF, 'FPN')
    image = torch.randn(IMAGE)
    made = export_onnx(detector, image, dynamic=True)
    assert made.names == [f'level{i}_{moment}' for i in range(3) for moment in ('mean', 'var')]
    assert made.difference < 1e-4
    with torch.no_grad():
        moments = detector.neck(detector.backbone(image))
        assert isinstance(moments[0], torch.Tensor), 'the detector is left as it was'
        detector.backbone.output = 'gaussian'
        expected = detector.neck(detector.backbone(image))
    found = run(made, image)
    for i, value in enumerate(expected):
        assert relative_error(found[2 * i], value.mean) < 1e-4 and relative_error(found[2 * i + 1], value.var) < 1e-4


def test_mean_and_variance_of_a_head():
    heads = export_onnx(Detector(SHORT, None, Head()), torch.randn(IMAGE), heads=True)
    assert heads.names == [f'bbox_head_out{i}_level0_{moment}' for i in range(2) for moment in ('mean', 'var')]
    assert heads.difference < 1e-4


def run(made, image):
    return _run(made.data, [image])[0]


@pytest.mark.parametrize('rule', ['bfloat16', 'rank1', 'delta'])
def test_gains_and_the_cheaper_rules_are_in_the_file(rule):
    image = torch.randn(IMAGE)
    detector = Detector(SHORT)
    mean, var = Network(detector, plain=False)(image)
    state = detector.state_dict()
    state['backbone.layer1.variance_gain'] = torch.full((16, 1, 1), 3.0)
    detector.load_state_dict(state)
    found = run(export_onnx(detector, image), image)
    assert relative_error(found[0], mean) < 1e-5 and relative_error(found[1], 3 * var) < 1e-4
    detector.backbone.variance = rule
    made = export_onnx(detector, image)
    assert made.difference < 1e-4
    # bfloat16 is the diagonal rule there
    assert (relative_error(run(made, image)[1], 3 * var) > 1e-3) == (rule != 'bfloat16')


def test_erfc_keeps_its_digits_where_one_minus_erf_has_none():
    class Erfc(nn.Module):
        def forward(self, x):
            return torch.erfc(x), torch.expm1(-x), torch.exp2(x)

    x = torch.linspace(-3, 8, 200)
    data = _write(Erfc(), x, ['erfc', 'expm1', 'exp2'], False, 17)
    erfc, expm1, exp2 = _run(data, [x])[0]
    exact = torch.tensor([math.erfc(v) for v in x.tolist()], dtype=torch.float64)
    # the exponent, up to 64 there, is rounded to 2^-18 of its value at best
    assert ((erfc - exact) / exact).abs().max() < 64 * 2**-18
    assert torch.allclose(expm1, torch.expm1(-x), rtol=1e-6, atol=1e-7)
    assert torch.allclose(exp2, torch.exp2(x), rtol=1e-6)
    lost = 1 - torch.erf(x)
    assert ((lost - exact) / exact).abs().max() > 0.5, 'the usual way loses them'


def test_a_wrong_operator_is_noticed(monkeypatch):
    monkeypatch.setattr(onnx_symbolics, '_exp2', lambda g, x: g.op('Exp', x))
    assert export_onnx(Detector(SHORT), torch.randn(IMAGE)).difference > 1e-3


def test_a_branch_on_the_size_is_noticed():
    class Branch(nn.Module):
        def forward(self, maps):
            return [m * 2 if m.shape[2] > 20 else m for m in maps]

    detector = Detector(RE)
    detector.neck = Branch()
    assert export_onnx(detector, torch.randn(IMAGE)).difference < 1e-4
    assert export_onnx(detector, torch.randn(IMAGE), dynamic=True).difference > 0.1


def test_what_cannot_be_written_is_refused(monkeypatch):
    class Odd(nn.Module):
        def forward(self, maps):
            return [torch.special.bessel_j0(m) for m in maps]

    class NoRule(nn.Module):
        def forward(self, maps):
            return [torch.special.bessel_j0(m) if isinstance(m, Gaussian) else m for m in maps]

    image = torch.randn(IMAGE)
    detector = Detector(RE)
    with pytest.raises(Unsupported, match='neither bbox_head nor rpn_head'):
        export_onnx(detector, image, heads=True)
    with pytest.raises(Unsupported, match='Linear has no backbone'):
        Network(nn.Linear(1, 1))
    with pytest.raises(ValueError, match='opset=9 is out of range: use 16 to 20'):
        export_onnx(detector, image, opset=9)
    detector.neck = Odd()
    with pytest.raises(Unsupported, match='cannot write ONNX of it: .*bessel_j0'):
        export_onnx(detector, image)
    detector = Detector(SHORT)
    detector.neck = NoRule()
    with pytest.raises(Unsupported, match="the variance cannot pass: .*bessel_j0' has no moment rule"):
        export_onnx(detector, image)

    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(Unsupported, match='onnxruntime cannot be imported: pip install onnxruntime'):
        export_onnx(detector, image)
