from types import SimpleNamespace

import pytest
import torch

from mmrotate_plugin.registry import HOOKS

NAN, FINE = torch.tensor(float('nan')), torch.tensor(1.0)


def feed(hook, losses):
    for i, loss in enumerate(losses):
        hook.after_train_iter(SimpleNamespace(iter=i), i, None, {'loss': loss, 'loss_cls': FINE})


def test_lasting_nan_ends_the_training_and_names_the_loss():
    hook = HOOKS.build(dict(type='StopAtDivergenceHook', interval=2, patience=3))
    with pytest.raises(FloatingPointError, match=r'\(loss\) since about iteration 4'):
        feed(hook, [FINE, FINE, FINE, *[NAN] * 5])


def test_a_single_overflow_does_not():
    hook = HOOKS.build(dict(type='StopAtDivergenceHook', interval=1, patience=3))
    feed(hook, [NAN, NAN, FINE, NAN, NAN, FINE])
    hook.after_train_iter(SimpleNamespace(iter=9), 9, None, None)
