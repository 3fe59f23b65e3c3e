"""Where an epoch goes on; whole trainings are in tests/tools/test_faults.py."""

from types import SimpleNamespace

import pytest
from mmengine.runner import EpochBasedTrainLoop
from torch import nn

from mmrotate_plugin.engine.runner.seeded_loader import numbered_loader
from mmrotate_plugin.registry import HOOKS


class Loop(EpochBasedTrainLoop):
    def __init__(self, length):
        from torch.utils.data import DataLoader

        self.dataloader = numbered_loader(DataLoader(list(range(length))), 0, 0, 1)


def resumed(length, meta, resume=True):
    """A hook after a checkpoint was loaded, the runner and its warnings."""
    warnings = []
    runner = SimpleNamespace(
        train_loop=Loop(length), _train_loop=None, _resume=resume, iter=8, model=nn.Linear(1, 1),
        logger=SimpleNamespace(warning=warnings.append), optim_wrapper=None,
    )  # fmt: skip
    hook = HOOKS.build(dict(type='ExactResumeHook'))
    hook.numbered = True
    hook.after_load_checkpoint(runner, {'meta': meta})
    hook.before_train(runner)
    hook.before_train_epoch(runner)
    return hook, runner, warnings


def test_an_epoch_goes_on_where_it_was_left():
    hook, runner, warnings = resumed(5, {'batch_of_epoch': 3, 'batches_per_epoch': 5})
    batches = runner.train_loop.dataloader.batch_sampler
    assert [[int(i) for i in batch] for batch in batches] == [[3], [4]]
    assert batches.number == 10 and not warnings  # iterations 8 and 9
    hook.after_train_epoch(runner)
    hook.before_train_epoch(runner)
    assert len(list(batches)) == 5


@pytest.mark.parametrize(
    'length, meta, resume, warns',
    [
        (4, {'batch_of_epoch': 3, 'batches_per_epoch': 5}, True, True),  # other processes or another batch size
        (5, {'batch_of_epoch': 0, 'batches_per_epoch': 4}, True, False),
        (5, {}, True, False),  # a checkpoint of mmengine alone
        (5, {'batch_of_epoch': 3, 'batches_per_epoch': 5}, False, False),  # weights for a new training
    ],
)
def test_it_begins_anew_where_it_has_to(length, meta, resume, warns):
    _, runner, warnings = resumed(length, meta, resume)
    assert len(list(runner.train_loop.dataloader.batch_sampler)) == length
    assert len(warnings) == warns
    assert not warns or 'batch 3 of 5 of an epoch; as an epoch has 4 now, it begins anew' in warnings[0]
