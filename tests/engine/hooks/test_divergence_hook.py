from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import nn

from mmrotate_plugin.registry import HOOKS

NAN, FINE = torch.tensor(float('nan')), torch.tensor(1.0)
PLAIN = OptimWrapper(torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1))


def batch(*names):
    return {'data_samples': [SimpleNamespace(metainfo={'img_path': name}) for name in names]}


def feed(hook, losses, wrapper=PLAIN):
    for i, loss in enumerate(losses):
        runner = SimpleNamespace(iter=i, optim_wrapper=wrapper)
        outputs = {'loss': loss, 'loss_cls': FINE, 'loss_bbox': loss}
        hook.after_train_iter(runner, i, batch(f'{i}a.png', f'{i}b.png'), outputs)


def test_it_names_iteration_term_and_images():
    hook = HOOKS.build(dict(type='StopAtDivergenceHook'))
    with pytest.raises(FloatingPointError) as caught:
        feed(hook, [FINE, FINE, NAN])
    assert 'iteration 3: loss_bbox = nan, images 2a.png, 2b.png' in str(caught.value)
    assert 'loss_cls' not in str(caught.value)


def test_overflows_of_a_scaled_loss_have_to_last():
    scaled = AmpOptimWrapper.__new__(AmpOptimWrapper)  # the constructor wants a GPU
    hook = HOOKS.build(dict(type='StopAtDivergenceHook'))
    feed(hook, [NAN] * 19 + [FINE] + [NAN] * 19, scaled)
    with pytest.raises(FloatingPointError, match=r'iteration 1: .*0a\.png.* and in 19 further iterations'):
        feed(HOOKS.build(dict(type='StopAtDivergenceHook')), [NAN] * 20, scaled)


def test_patience_is_what_was_asked_for():
    hook = HOOKS.build(dict(type='StopAtDivergenceHook', patience=2))
    feed(hook, [NAN, FINE, NAN, FINE])
    with pytest.raises(FloatingPointError, match='iteration 1'):
        feed(hook, [NAN, NAN])
    with pytest.raises(ValueError, match='patience=0'):
        HOOKS.build(dict(type='StopAtDivergenceHook', patience=0))


def test_ids_stand_for_images_without_files():
    hook = HOOKS.build(dict(type='StopAtDivergenceHook'))
    runner = SimpleNamespace(iter=0, optim_wrapper=PLAIN)
    samples = {'data_samples': [SimpleNamespace(metainfo={'img_id': 'scene-7'})]}
    with pytest.raises(FloatingPointError, match=r'loss = inf, images scene-7'):
        hook.after_train_iter(runner, 0, samples, {'loss': torch.tensor(float('inf'))})
    hook.after_train_iter(runner, 0, None, None)


def test_weights_that_are_no_numbers_are_not_saved():
    hook, model = HOOKS.build(dict(type='StopAtDivergenceHook')), nn.Linear(2, 2)
    hook.before_save_checkpoint(SimpleNamespace(iter=3, model=model), {})
    model.bias.data[0] = float('nan')
    with pytest.raises(FloatingPointError, match=r'after iteration 3 weights .*\(bias\)'):
        hook.before_save_checkpoint(SimpleNamespace(iter=3, model=model), {})
