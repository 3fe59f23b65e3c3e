"""What a resumed training follows, and learning rates that go with the batch."""

import warnings
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import PARAM_SCHEDULERS

from mmrotate_plugin.engine.checks.resumed_run import settle_schedule, unfit_optimizer
from mmrotate_plugin.engine.checks.schedule_change import batch_differences, run_facts, schedule_differences
from mmrotate_plugin.engine.hooks.schedule_hook import replay
from mmrotate_plugin.engine.runner.lr_scaling import scale_learning_rates

LENGTH = 5  # iterations of an epoch
SCHEDULES = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=7),
    dict(type='CosineAnnealingLR', T_max=6, eta_min=1e-4, begin=0, end=6, by_epoch=True),
    dict(type='MultiStepLR', milestones=[2, 4], gamma=0.5),
    dict(type='CosineAnnealingLR', T_max=4, end=4, by_epoch=True, convert_to_iter_based=True),
    dict(type='PolyLR', power=0.9, eta_min=1e-3, end=20, by_epoch=False),
]


def build(schedules):
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [dict(params=[weights[0]], lr=0.1), dict(params=[weights[1]], lr=0.02)]
    wrapper = OptimWrapper(torch.optim.SGD(groups, lr=0.1))
    arguments = dict(optimizer=wrapper, epoch_length=LENGTH)
    return wrapper, [PARAM_SCHEDULERS.build(dict(schedule), default_args=arguments) for schedule in schedules]


def rates(wrapper):
    return [group['lr'] for group in wrapper.optimizer.param_groups]


@pytest.mark.parametrize('done', [0, 1, LENGTH - 1, LENGTH, 3 * LENGTH + 2, 6 * LENGTH])
@pytest.mark.parametrize('chosen', [SCHEDULES[:2], SCHEDULES[:1] + SCHEDULES[2:3], SCHEDULES[3:4], SCHEDULES[4:]])
def test_steps_taken_again_end_at_the_rates_of_a_training(chosen, done):
    wrapper, schedules = build(chosen)
    for i in range(done):  # as a training takes them
        wrapper.optimizer.step()
        [schedule.step() for schedule in schedules if not schedule.by_epoch]
        if (i + 1) % LENGTH == 0:
            [schedule.step() for schedule in schedules if schedule.by_epoch]
    other, again = build(chosen)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        replay(again, done, LENGTH)
    assert rates(other) == rates(wrapper)
    assert [schedule.last_step for schedule in again] == [schedule.last_step for schedule in schedules]


def config(epochs=2, batch=2, accumulate=None, scheduler=None, **optimizer):
    cosine = dict(type='CosineAnnealingLR', T_max=epochs, by_epoch=True)
    wrapper = dict(optimizer=dict(dict(type='SGD', lr=0.1, momentum=0.9), **optimizer))
    return Config(
        dict(
            optim_wrapper=wrapper | (dict(accumulative_counts=accumulate) if accumulate else {}),
            param_scheduler=[dict(type='LinearLR', by_epoch=False, end=9), cosine] if scheduler is None else scheduler,
            train_cfg=dict(by_epoch=True, max_epochs=epochs),
            train_dataloader=dict(batch_size=batch),
        )
    )


def saved(cfg, epoch=1, **meta):
    return {'meta': {'cfg': cfg.pretty_text, 'epoch': epoch, **meta}}


def test_the_same_schedule_says_nothing():
    cfg = config()
    assert settle_schedule(cfg, saved(config()), None) == []
    inherited = config()  # from a config of another package
    inherited.param_scheduler[0].update(type='mmengine.LinearLR', _scope_='mmrotate_plugin')
    assert settle_schedule(inherited, saved(config()), None) == []
    assert 'custom_hooks' not in cfg


def test_a_longer_cosine_says_that_the_checkpoints_rules_and_does_that():
    cfg = config(6, lr=0.2)
    (said,) = settle_schedule(cfg, saved(config(2)), None)
    assert 'optim_wrapper.optimizer.lr: 0.1 -> 0.2; param_scheduler[1].T_max: 2 -> 6' in said
    assert (
        "the checkpoint's rule, and from epoch 2 on its learning rate stays as it is. --resume-schedule config" in said
    )
    assert cfg.param_scheduler[1].T_max == cfg.param_scheduler[1].end == 2 and cfg.optim_wrapper.optimizer.lr == 0.1
    assert cfg.train_cfg.max_epochs == 6
    assert '--resume-schedule' not in settle_schedule(config(6), saved(config(2)), 'checkpoint')[0]


def test_the_configs_schedule_on_request():
    cfg = config(6)
    (said,) = settle_schedule(cfg, saved(config(2)), 'config')
    assert "are the config's, as if they had been from the start (param_scheduler[1].T_max: 2 -> 6" in said
    assert cfg.param_scheduler[1].T_max == 6 and cfg.custom_hooks == [dict(type='mmrotate_plugin.ConfigScheduleHook')]
    plateau = config(scheduler=[dict(type='ReduceOnPlateauLR', monitor='dota/mAP', rule='greater')])
    with pytest.raises(ValueError, match='ReduceOnPlateauLR depends on past validations'):
        settle_schedule(plateau, saved(plateau), 'config')


def test_schedules_of_another_number_or_kind_are_those_of_the_checkpoint():
    cfg = config(scheduler=[dict(type='StepLR', step_size=1)])
    (said,) = settle_schedule(cfg, saved(config()), None)
    assert 'param_scheduler: [' in said and [s.type for s in cfg.param_scheduler] == ['LinearLR', 'CosineAnnealingLR']


def test_an_end_after_the_last_milestone_changes_nothing():
    steps = [dict(type='MultiStepLR', milestones=[1], gamma=0.1)]
    assert schedule_differences(config(2, scheduler=steps), config(6, scheduler=steps)) == []
    assert schedule_differences(config(2, scheduler=steps), config(6, scheduler=[dict(steps[0], gamma=0.5)]))


def test_another_optimizer_is_refused_and_a_finished_training_told():
    with pytest.raises(ValueError, match='SGD in the checkpoint, AdamW in the config'):
        settle_schedule(config(type='AdamW'), saved(config()), None)
    (said,) = settle_schedule(config(), saved(config(), epoch=2), None)
    assert 'nothing is left to train' in said
    (said,) = settle_schedule(config(), {'meta': {'epoch': 1}}, None)
    assert 'does not hold its config' in said


@pytest.mark.parametrize(
    'other, text',
    [
        ([2], None),
        ([1, 1], '1 groups of parameters in the checkpoint, 2 in the config'),
        ([3], '2 parameters in group 0'),
    ],
)
def test_parameters_in_other_groups_are_refused(other, text):
    def groups(sizes):
        return [dict(params=list(range(size)), lr=1, momentum=0.9) for size in sizes]

    found = unfit_optimizer(groups(other), {'param_groups': groups([2])})
    assert found is None if text is None else found.startswith(text)
    adam = [dict(params=[0, 1], lr=1, betas=(0.9, 0.999))]
    assert 'betas' in unfit_optimizer(groups([2]), {'param_groups': adam})
    assert unfit_optimizer(groups([2]), None) is None


def test_another_batch():
    before, now = config(batch=2), config(batch=4, accumulate=3)
    facts = run_facts(now, 1)
    assert batch_differences({}, before, facts) == ['batch size 2 -> 4', 'accumulated iterations 1 -> 3']
    noted = {'run': {'processes': 2, 'batch_size': 4, 'accumulative_counts': 3}}
    assert batch_differences(noted, None, facts) == ['processes 2 -> 1']
    assert batch_differences({}, None, facts) == batch_differences({'run': facts}, before, facts) == []


# ---- learning rates and the batch


def runner(cfg, base=4, enable=True):
    scale = dict(enable=enable, base_batch_size=base)
    return SimpleNamespace(
        cfg=cfg, auto_scale_lr=scale, optim_wrapper=cfg.optim_wrapper, param_schedulers=cfg.param_scheduler
    )


SCALED = [
    dict(type='CosineAnnealingLR', eta_min=0.01, T_max=2),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.1, T_max=2),
    dict(type='OneCycleLR', eta_max=0.4, total_steps=9),
    dict(type='mmengine.ReduceOnPlateauLR', min_value=[0.1, 0.2]),
    dict(type='CosineAnnealingMomentum', eta_min=0.5, T_max=2),
    dict(type='CosineAnnealingParamScheduler', param_name='momentum', eta_min=0.5),
    dict(type='CosineAnnealingParamScheduler', param_name='lr', eta_min=0.5),
]


@pytest.mark.parametrize('batch, accumulate, ratio', [(1, 4, 1), (1, None, 0.25), (8, 2, 4), (4, None, 1)])
def test_rates_go_with_the_images_of_a_step(batch, accumulate, ratio):
    run = runner(config(batch=batch, accumulate=accumulate, scheduler=[dict(s) for s in SCALED]))
    text = scale_learning_rates(run)
    assert f'scaled by {ratio:g}: a step sees {batch} images x 1 processes x {accumulate or 1} iterations' in text
    assert run.optim_wrapper.optimizer.lr == pytest.approx(0.1 * ratio)
    cosine, share, cycle, plateau, momentum, other, rate = run.param_schedulers
    assert cosine.eta_min == pytest.approx(0.01 * ratio) and share.eta_min_ratio == 0.1
    assert cycle.eta_max == pytest.approx(0.4 * ratio) and plateau.min_value == pytest.approx(
        [0.1 * ratio, 0.2 * ratio]
    )
    assert momentum.eta_min == other.eta_min == 0.5 and rate.eta_min == pytest.approx(0.5 * ratio)
    assert scale_learning_rates(run) is None  # once; mmengine does not do it again


def test_scaling_that_cannot_be_done_names_the_key():
    assert scale_learning_rates(runner(config(), enable=False)) is None
    wrong = [(runner(config(), base=0), 'base_batch_size=0'), (runner(config(), base=None), 'base_batch_size=None')]
    wrong += [(runner(config(lr=None)), 'has no lr'), (runner(config(batch=None)), 'batch_size=None')]
    for given, text in wrong:
        with pytest.raises(ValueError, match=text):
            scale_learning_rates(given)
