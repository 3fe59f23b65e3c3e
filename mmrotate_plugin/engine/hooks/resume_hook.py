"""Resume interrupted training so that the result is that of an uninterrupted run."""

from typing import Any

import torch
from mmengine.dist import all_reduce, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch import Tensor

from ...registry import HOOKS, register
from ...utils.errors import UsageError
from ..checks.checkpoint_classes import checkpoint_classes, difference
from ..checks.head_classes import classes_of
from ..checks.resumed_run import unfit_optimizer
from ..checks.schedule_change import run_facts
from ..runner.seeded_loader import Stream, numbered_loader, seed_generators

_BATCH, _BATCHES, _GRADIENTS = 'batch_of_epoch', 'batches_per_epoch', 'pending_gradients'


@register(HOOKS)
class ExactResumeHook(Hook):
    """Make every random number depend on the seed and the iteration, and save what mmengine does not.

    mmengine restores weights, optimizer, schedules, logs and averaged weights. Beyond that:

    - Generators (dropout, augmentation in the data workers) are seeded for each iteration and each sample from
      the seed of the run. There is no state to save, and the number of workers does not matter.
    - After a checkpoint in the middle of an epoch (``CheckpointHook(by_epoch=False)``) the epoch continues with the
      remaining batches, which progress lines then count; mmengine repeats the whole epoch.
    - Gradients that were accumulated, but not yet applied, are saved.

    The samplers take the seed that the runner is built with, so it must be that of the first run.
    `tools/train.py` uses this hook and takes the seed from the checkpoint. A loop of another class keeps its own order
    of data.
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self.numbered = False
        self.batch = 0  # of the epoch, done
        self.gradients: dict[str, Tensor] | None = None  # of a checkpoint that was loaded
        self.waiting: dict[str, Tensor] | None = None  # for one that will be saved

    def before_run(self, runner: Runner) -> None:
        """Number the batches of the train loop."""
        loop = runner.train_loop
        self.numbered = isinstance(loop, (EpochBasedTrainLoop, IterBasedTrainLoop))
        try:
            if self.numbered:
                loop.dataloader = numbered_loader(loop.dataloader, runner.seed, get_rank(), get_world_size())
        except TypeError:
            self.numbered = False
        if not self.numbered:
            runner.logger.warning(f'{type(loop).__name__} keeps its own order of data; a resumed training may differ')

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Note where the epoch stopped; weights that a new run starts from have no such place."""
        if not getattr(runner, '_resume', False):
            _tell_classes(runner, checkpoint)
            return
        _check_optimizer(runner, checkpoint)
        self.gradients = checkpoint.pop(_GRADIENTS, None)
        self.batch = checkpoint['meta'].get(_BATCH, 0)
        before, now = checkpoint['meta'].get(_BATCHES), len(runner.train_loop.dataloader)
        if self.batch and before != now and isinstance(runner.train_loop, EpochBasedTrainLoop):
            runner.logger.warning(
                f'the checkpoint is from batch {self.batch} of {before} of an epoch; as an epoch has {now} now, it '
                'begins anew'
            )
            self.batch = 0
        epoch = checkpoint['meta'].get('epoch')
        if isinstance(runner.train_loop, EpochBasedTrainLoop) and before != now and epoch is not None:
            # iterations of epochs of another length would end beyond the last, which mmengine's accumulation asserts
            checkpoint['meta']['iter'] = epoch * now + self.batch

    def before_train(self, runner: Runner) -> None:
        """Put saved gradients back."""
        parameters = dict(_model(runner).named_parameters())
        for name, gradient in (self.gradients or {}).items():
            if name in parameters:
                parameters[name].grad = gradient.to(parameters[name])
        self.gradients = None

    def before_train_epoch(self, runner: Runner) -> None:
        """Begin the epoch with the batch that is next."""
        loop = runner.train_loop
        if not self.numbered:
            return
        if isinstance(loop, EpochBasedTrainLoop):
            loop.dataloader.batch_sampler.number = runner.iter
            loop.dataloader.batch_sampler.skip = self.batch
        else:
            forward = not getattr(loop, 'fast_forward_on_resume', False)  # that is: leave nothing out
            loop.dataloader_iterator = Stream(loop.dataloader, runner.iter if forward else 0)
            loop.dataloader.batch_sampler.number = runner.iter

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:  # noqa: ARG002
        """Seed the generators that the model uses."""
        seed_generators(runner.seed, 1, runner.iter, get_rank(), devices=True)

    def after_train_iter(self, *_: Any, **__: Any) -> None:
        """Count the batches of the epoch."""
        self.batch += 1

    def after_train_epoch(self, runner: Runner) -> None:  # noqa: ARG002
        """Reset the count at the end of an epoch."""
        self.batch = 0

    def before_checkpoint(self, runner: Runner) -> None:
        """Share gradients that wait for a step among all processes; mmengine saves in the first only.

        `WholeCheckpointHook` calls this.
        """
        self.waiting = _gradients(_model(runner)) if _is_waiting(runner.optim_wrapper) else None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the place in the epoch, and gradients that wait for a step."""
        checkpoint['meta'].update({_BATCH: self.batch, _BATCHES: len(runner.train_loop.dataloader)})
        checkpoint['meta']['run'] = run_facts(runner.cfg, get_world_size())
        if get_world_size() == 1:
            self.before_checkpoint(runner)
        gradients, self.waiting = self.waiting, None
        if 'optimizer' not in checkpoint:
            return
        if gradients is not None:
            checkpoint[_GRADIENTS] = gradients
        elif _is_waiting(runner.optim_wrapper):
            runner.logger.warning('gradients that wait for a step are not saved: that needs WholeCheckpointHook')


def _model(runner: Runner) -> torch.nn.Module:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def _check_optimizer(runner: Runner, checkpoint: dict) -> None:
    """Compare the optimizer with the state that it is about to take.

    Raises:
        UsageError: If another optimizer saved it; torch would fail, or train on without momenta.
    """
    optimizer = getattr(runner.optim_wrapper, 'optimizer', None)
    text = unfit_optimizer(optimizer.param_groups, checkpoint.get('optimizer')) if optimizer is not None else None
    if text is not None:
        raise UsageError(
            f"--resume '{runner._load_from}': the state of the optimizer does not fit: {text}. Train with the same, or "
            'begin anew from the weights: --cfg-options load_from=CHECKPOINT, without --resume'
        )


def _tell_classes(runner: Runner, checkpoint: dict) -> None:
    """Log it if training starts from weights that were learned for other classes."""
    if runner._train_loop is None:  # a test
        return
    names = classes_of(runner.train_loop.dataloader.dataset)
    found = difference(checkpoint_classes(checkpoint), names, runner.cfg.get('class_renames'))
    if found is None:
        return
    text = f"load_from '{runner._load_from}': {found.text}"
    if found.kind == 'number':
        runner.logger.info(f'{text}; layers whose shapes differ begin anew')
    else:
        runner.logger.warning(f'{text}; the heads begin with weights that were learned for those')


def _is_waiting(wrapper: Any) -> bool:
    """Tell whether an optimizer wrapper has accumulated gradients that it has not applied."""
    parts = wrapper.values() if hasattr(wrapper, 'values') else [wrapper]
    return any(not part.should_update() for part in parts if part._inner_count > 0)


def _gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    """Return gradients by name, on the CPU: the mean over the processes, which have not shared them yet."""
    found = {}
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        if gradient is None and get_world_size() > 1 and parameter.requires_grad:  # another process may have one
            gradient = torch.zeros_like(parameter)
        if gradient is not None:
            gradient = gradient.detach().clone()
            all_reduce(gradient, op='mean')
            found[name] = gradient.cpu()
    return found
