"""Let a resumed run take the learning rates of its config instead of those of its checkpoint."""

import warnings
from collections.abc import Iterator
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from ...registry import HOOKS, register

SCHEDULES = 'param_schedulers'


@register(HOOKS)
class ConfigScheduleHook(Hook):
    """Give a resumed run the learning rates that it would have if the config had ruled from the first iteration.

    mmengine restores schedules and the optimizer's options from the checkpoint. With this hook the optimizer keeps its
    state (momenta), but its options (learning rate, weight decay, ...) are the config's, and the config's schedules go
    through all steps that were taken, so that schedules that depend on the value before them come out right too. If
    the number of iterations per epoch has changed, that of the config counts.

    `tools/train.py --resume-schedule config` adds it. It has no effect on a run that is not resumed.

    Raises:
        ValueError: If a schedule depends on the results of validations (`ReduceOnPlateauLR`), which are not kept.
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self.options: dict[str, list[dict[str, Any]]] | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Note the options as the config has built them; leave the checkpoint's schedules out."""
        if not getattr(runner, '_resume', False):
            return
        checkpoint.pop(SCHEDULES, None)
        self.options = {
            name: [{key: value for key, value in group.items() if key != 'params'} for group in groups(wrapper)]
            for name, wrapper in wrappers(runner)
        }

    def before_train(self, runner: Runner) -> None:
        """Go through the steps that were taken."""
        options, self.options = self.options, None
        if options is None:
            return
        for name, wrapper in wrappers(runner):
            for group, kept in zip(groups(wrapper), options[name], strict=True):
                group.update(kept)
        epochs, left, length = runner.epoch, 0, len(runner.train_dataloader)
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            left = next((hook.batch for hook in runner.hooks if type(hook).__name__ == 'ExactResumeHook'), 0)
            done = epochs * length + left
        else:
            done = runner.iter
        schedules = runner.param_schedulers or []
        parts = schedules.values() if isinstance(schedules, dict) else [schedules]
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of steps without the optimizer's
            for part in parts:
                replay(part, done, length if isinstance(runner.train_loop, EpochBasedTrainLoop) else None)
        rates = ', '.join(f'{rate:.4g}' for rate in sorted({g['lr'] for _, w in wrappers(runner) for g in groups(w)}))
        runner.logger.info(f"the config's schedule after {epochs} epochs and {left} batches: learning rate {rates}")


def replay(schedules: list[Any], iterations: int, length: int | None) -> None:
    """Repeat the steps of a run so far, in the order of mmengine's `ParamSchedulerHook`.

    Args:
        schedules: Built, and not stepped yet.
        iterations: Number of iterations so far.
        length: Iterations of an epoch; None for a loop without epochs.
    """
    if plateaus := [type(s).__name__ for s in schedules if getattr(s, 'need_val_args', False)]:
        raise ValueError(
            f'{plateaus[0]} depends on past validations, so that its steps cannot be taken again: resume with the '
            "checkpoint's schedule (--resume-schedule checkpoint)"
        )
    by_iteration = [schedule for schedule in schedules if not schedule.by_epoch]
    by_epoch = [schedule for schedule in schedules if schedule.by_epoch]
    for done in range(1, iterations + 1):
        for schedule in by_iteration:
            schedule.step()
        if length is not None and done % length == 0:
            for schedule in by_epoch:
                schedule.step()


def wrappers(runner: Runner) -> Iterator[tuple[str, Any]]:
    """Return the optimizer wrappers, by name if there are several."""
    wrapper = runner.optim_wrapper
    yield from wrapper.items() if hasattr(wrapper, 'items') else [('', wrapper)]


def groups(wrapper: Any) -> list[dict[str, Any]]:
    """Return the parameter groups of an optimizer wrapper, and the base options that it keeps with them."""
    return wrapper.param_groups
