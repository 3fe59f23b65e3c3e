"""What is compared between the building of a training and its first iteration."""

from collections.abc import Mapping
from typing import Any

from mmengine.runner import Runner

from . import cli
from .class_check import classes_of
from .lr_scaling import scale_learning_rates
from .metric_keys import unknown_metric
from .resume_check import tell_batch


def before_training(runner: Runner, checkpoint: Mapping[str, Any] | None, schedule: str | None) -> None:
    """Compare classes, metrics and batches, and scale learning rates, before anything is trained.

    Args:
        runner: Its loops are built.
        checkpoint: What a resumed training goes on from.
        schedule: Whose schedule was chosen for that; see `settle_schedule`.

    Raises:
        UsageError: If the training would learn or measure something else than it seems to, or end in an error later.
    """
    train = runner.train_loop.dataloader.dataset
    if runner.val_loop is not None:
        cli.check_same_classes(train, runner.val_loop.dataloader.dataset, 'val_dataloader')
    if checkpoint is not None:
        cli.check_classes(runner.cfg, checkpoint, runner.cfg.load_from, classes_of(train))
        if (text := tell_batch(runner, checkpoint['meta'], schedule)) is not None:
            cli.warn(f'--resume: {text}')
    wrong, doubtful = unknown_metric(runner)
    if wrong is not None:
        raise cli.UsageError(wrong)
    for text in doubtful:
        cli.warn(text)
    try:
        scaled = scale_learning_rates(runner)
    except ValueError as error:
        raise cli.UsageError(f'--auto-scale-lr: {error}') from error
    if scaled is not None:
        runner.logger.info(scaled)
