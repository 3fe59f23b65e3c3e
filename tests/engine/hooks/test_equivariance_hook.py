"""The hook logs true errors at the right steps and leaves no trace in the training."""

import json
from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.model import BaseModel, ExponentialMovingAverage
from mmengine.runner import Runner
from torch import nn

from mmrotate_plugin.engine import EquivarianceHook
from mmrotate_plugin.engine.hooks.equivariance_hook import smooth_noise
from mmrotate_plugin.models import ReFPN, ReResNet, ResNet
from mmrotate_plugin.registry import HOOKS
from mmrotate_plugin.testing import randomize_norms_


class Model(BaseModel):
    """A backbone with a loss."""

    def __init__(self, backbone=None, neck=None):
        super().__init__()
        self.backbone = ReResNet(18, base_channels=16, num_stages=2, strides=(1, 2), dilations=(1, 1),
                                 out_indices=(0, 1), frozen_stages=1) if backbone is None else backbone  # fmt: skip
        self.neck = neck

    def forward(self, x, mode='loss'):
        assert mode == 'loss'
        return {'loss': self.backbone(x)[-1].square().mean()}


def train(tmp_path, hook, model=None, train_cfg=None, **options):
    """Two epochs of three iterations; returns the runner and the scalars that the local backend wrote."""
    torch.manual_seed(0)
    runner = Runner(
        Model() if model is None else model,
        str(tmp_path),
        train_dataloader=dict(
            dataset=[torch.randn(3, 33, 33) for _ in range(3)],
            sampler=dict(type='DefaultSampler', shuffle=True),
            batch_size=1,
            collate_fn=lambda batch: dict(x=torch.stack(batch)),
        ),
        train_cfg=train_cfg or dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1e-3)),
        default_hooks=dict(checkpoint=None, logger=dict(type='LoggerHook', interval=1)),
        custom_hooks=[] if hook is None else [hook],
        visualizer=dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]),
        experiment_name=f'{tmp_path.name}_{id(hook)}',
        log_level='ERROR',
        randomness=dict(seed=0),
        **options,
    )
    runner.train()
    lines = [
        json.loads(line) for path in tmp_path.rglob('scalars.json') for line in path.read_text().split('\n') if line
    ]
    return runner, lines


def measured(lines):
    return [line for line in lines if any(key.startswith('equivariance/') for key in line)]


def test_errors_are_logged_before_and_after_each_epoch(tmp_path):
    hook = dict(type='EquivarianceHook', size=33)
    assert isinstance(HOOKS.build(dict(hook)), EquivarianceHook)
    _, lines = train(tmp_path, hook)
    found = measured(lines)
    assert [line['step'] for line in found] == [0, 3, 6]
    for line in found:
        assert set(line) == {'step', *[f'equivariance/stage{i}_{angle}' for i in (0, 1) for angle in (90, 45)]}
        assert line['equivariance/stage1_90'] < 1e-5 < 0.01 < line['equivariance/stage1_45']
    assert len({line['equivariance/stage1_45'] for line in found}) == 3, 'the network changes'


def test_iterations(tmp_path):
    hook = EquivarianceHook(2, by_epoch=False, size=33, degrees=[180])
    _, lines = train(tmp_path, hook, train_cfg=dict(by_epoch=False, max_iters=5))
    assert [line['step'] for line in measured(lines)] == [0, 2, 4]
    assert set(measured(lines)[0]) == {'step', 'equivariance/stage0_180', 'equivariance/stage1_180'}


def test_the_training_is_the_same_with_and_without(tmp_path):
    model = Model()
    runners = []
    for name, hook in (('with', EquivarianceHook(1, by_epoch=False, size=33)), ('without', None)):
        runner, _ = train(tmp_path / name, hook, model=deepcopy(model))
        runners.append(runner)
    first, second = (runner.model.state_dict() for runner in runners)
    assert all(torch.equal(first[key], second[key]) for key in second)
    assert [m.training for m in runners[0].model.modules()] == [m.training for m in runners[1].model.modules()]


def test_modes_and_random_numbers_are_kept():
    model = Model().train()
    assert not model.backbone.layer1.training, 'frozen'
    modes, state = [m.training for m in model.modules()], torch.get_rng_state()
    EquivarianceHook(size=33).measure(model)
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)


def test_an_equivariant_neck_is_measured_and_another_one_is_not():
    backbone = ReResNet(18, 'C4', base_channels=16)
    widths = [16, 32, 64, 128]
    neck = ReFPN(widths, 16, 5, group='C4')
    model = randomize_norms_(Model(backbone, neck))
    errors = EquivarianceHook(size=65, degrees=(90,)).measure(model)
    names = [*(f'stage{i}' for i in range(4)), *(f'level{i}' for i in range(5))]
    assert list(errors) == [f'equivariance/{name}_90' for name in names]
    assert max(errors.values()) < 1e-5
    neck.group = None
    assert len(EquivarianceHook(size=65).measure(model)) == 8


def test_a_network_that_lies_is_found_out():
    backbone = randomize_norms_(ResNet(18, base_channels=16))
    backbone.group = 'C8'
    assert min(EquivarianceHook(size=33).measure(Model(backbone)).values()) > 0.1


def run_before(model):
    EquivarianceHook(size=33).before_run(SimpleNamespace(model=model, logger=MMLogger.get_instance('hook')))


def test_models_in_wrappers_are_found():
    run_before(Model())
    run_before(ExponentialMovingAverage(Model()))
    with pytest.raises(ValueError, match='the backbone ResNet claims no group'):
        run_before(ExponentialMovingAverage(Model(ResNet(18, base_channels=16))))
    with pytest.raises(ValueError, match='the backbone Linear claims no group'):
        run_before(nn.Linear(1, 1))


@pytest.mark.parametrize(
    ('arguments', 'text'),
    [
        (dict(interval=0), 'interval must be an integer of 1 or more, but is 0'),
        (dict(size=64), 'size must be 32m'),
        (dict(degrees=()), 'degrees must be angles'),
        (dict(degrees=(90, 360)), r'degrees must be angles .* but are \(90, 360\)'),
        (dict(in_channels=0), 'in_channels must be an integer'),
    ],
)
def test_wrong_arguments_are_named(arguments, text):
    with pytest.raises(ValueError, match=text):
        EquivarianceHook(**arguments)


def test_noise_is_smooth_and_always_the_same():
    x = smooth_noise(3, 65)
    assert x.shape == (1, 3, 65, 65) and torch.equal(x, smooth_noise(3, 65))
    assert 0.3 < x.std() < 1.2
    assert (x[..., 1:] - x[..., :-1]).std() < 0.3 * x.std()
