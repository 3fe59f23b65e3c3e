"""Operators that mmcv has for CUDA alone, and other errors from the depths: one line that names the part, or a bug."""

import pytest
import torch
from torch import nn

from mmrotate_plugin import adf
from mmrotate_plugin.apis.config import register_hosts
from mmrotate_plugin.apis.explanations import explain
from mmrotate_plugin.engine.checks import compiled_operators

ops = pytest.importorskip('mmcv.ops')
CPU = torch.device('cpu')
missing_here = pytest.mark.skipif(not compiled_operators.lacks('convex_iou', CPU), reason='this mmcv has them for CPUs')


def caught(function, *args) -> BaseException:
    try:
        function(*args)
    except Exception as error:
        return error
    raise AssertionError('nothing was raised')


def holding(**parts) -> nn.Module:
    """A model on a CPU, as mmdet's heads hold losses (modules) and assigners (which are none)."""
    model = nn.Conv2d(1, 1, 1)
    for name, part in parts.items():
        setattr(model, name, part)
    return model


@missing_here
@pytest.mark.parametrize(
    'name',
    [
        pytest.param(name, marks=pytest.mark.needs_torch('2.1', 'an mmcv that tells before it looks for a driver'))
        if name == 'points_in_polygons'
        else name
        for name in compiled_operators.PROBES
    ],
)
def test_an_operator_that_is_not_there_is_named(name):
    error = caught(compiled_operators.PROBES[name], ops, torch.zeros(1))
    text = explain(error)
    assert f'operator {name}, which is for CUDA only' in text and 'or use a GPU' in text


@missing_here
def test_losses_and_assigners_stop_a_training_before_it_begins_and_no_test():
    models = pytest.importorskip('mmrotate.models')
    loss = holding(loss_bbox=models.losses.RotatedIoULoss())
    with pytest.raises(NotImplementedError, match=r'loss_bbox \(RotatedIoULoss\).*diff_iou_rotated_2d.*GDLoss'):
        compiled_operators.check_operators(loss, training=True)
    compiled_operators.check_operators(loss, training=False)
    assigner = holding(assigner=models.task_modules.MaxConvexIoUAssigner(pos_iou_thr=0.5, neg_iou_thr=0.4))
    with pytest.raises(NotImplementedError, match=r'assigner \(MaxConvexIoUAssigner\).*convex_iou'):
        compiled_operators.check_operators(assigner, training=True)
    with pytest.raises(NotImplementedError, match=r'pool \(RoIPool\).*RoIAlign'):
        compiled_operators.check_operators(holding(pool=ops.RoIPool(2)), training=False)


def test_a_later_mmcv_is_believed(monkeypatch):
    compiled_operators.lacks.cache_clear()
    monkeypatch.setattr(ops, 'roi_pool', lambda *_: None)
    compiled_operators.check_operators(holding(pool=ops.RoIPool(2)), training=True)
    compiled_operators.lacks.cache_clear()


def test_names_are_those_of_the_hosts():
    """A class that a host has renamed would never be found."""
    pytest.importorskip('mmrotate')
    register_hosts()
    from mmdet.registry import MODELS as MMDET
    from mmrotate.registry import MODELS, TASK_UTILS

    for name in compiled_operators.NEEDS:
        assert any(r.get(name) for r in (MODELS, MMDET, TASK_UTILS)) or hasattr(ops, name), name


def test_mmcv_compiled_without_cuda():
    error = RuntimeError('nms_rotated_impl: implementation for device cuda:0 not found.\n')
    assert 'operator nms_rotated, which this mmcv lacks for cuda:0: it was compiled without CUDA' in explain(error)


def test_refusals_of_this_package_are_told_from_bugs():
    x = adf.Gaussian(torch.zeros(1, 2), torch.ones(1, 2))
    assert 'has no moment rule' in explain(caught(torch.fft.fft, x))
    assert explain(caught(lambda: [][0])) is None
    assert explain(caught(torch.zeros(2).view, 3)) is None

    def own():
        raise ValueError('of a function outside of the package')

    assert explain(caught(own)) is None


def test_refusals_in_a_worker_are_told_from_bugs():
    text = (
        'Caught {kind} in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n'
        '  File "/x/torch/worker.py", line 1, in _worker_loop\n    data = fetcher.fetch(index)\n'
        '  File "/x/{file}", line 7, in transform\n    {line}\n{kind}: the reason\n'
    )
    file, line = 'mmrotate_plugin/datasets/transforms/add_noise.py', "raise ValueError('the reason')"
    ours = text.format(kind='ValueError', file=file, line=line)
    assert explain(ValueError(ours)) == 'the reason'
    bug = text.format(kind='ValueError', file=file, line='int(value)')
    assert explain(ValueError(bug)) is None
    theirs = text.format(kind='ValueError', file='mmcv/transforms/a.py', line=line)
    assert explain(ValueError(theirs)) is None


def test_a_neck_that_doubles_says_which_sizes_it_needs():
    necks = pytest.importorskip('mmdet.models.necks')
    neck = necks.CSPNeXtPAFPN([8, 8, 8], 8, num_csp_blocks=1)
    maps = [torch.zeros(1, 8, size, size) for size in (25, 13, 7)]
    text = explain(caught(neck, maps))
    assert 'neck CSPNeXtPAFPN' in text and '25 x 25, 13 x 13, 7 x 7' in text and 'pad_size_divisor=32' in text
    assert neck([torch.zeros(1, 8, size, size) for size in (24, 12, 6)])


def test_tensors_of_e2cnn_are_explained():
    class GeometricTensor:
        pass

    class Neck(nn.Module):
        def forward(self, x):
            return len(x)

    text = explain(caught(Neck(), GeometricTensor()))
    assert "Neck cannot take e2cnn's GeometricTensor" in text and "type='mmrotate_plugin.ReResNet'" in text
