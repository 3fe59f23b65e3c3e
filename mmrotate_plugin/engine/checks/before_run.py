"""Compare what was built for training or testing before the first iteration; errors are one line.

The comparisons themselves are in the modules that this one imports.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import nn

from ...utils.errors import UsageError
from ...utils.messages import warn
from ..runner.lr_scaling import scale_learning_rates
from .checkpoint_classes import KEY as RENAMES
from .checkpoint_classes import checkpoint_classes, difference
from .head_classes import classes_of, labels_by_number, unlike_parts, wrong_heads
from .metric_keys import unknown_metric
from .resumed_run import tell_batch


def before_training(runner: Runner, checkpoint: Mapping[str, Any] | None, schedule: str | None) -> None:
    """Compare classes, metrics and batches, and scale learning rates, before anything is trained.

    Args:
        runner: Its loops are built.
        checkpoint: What a resumed run starts from.
        schedule: Whose schedule a resumed run follows; see `settle_schedule`.

    Raises:
        UsageError: If the run would learn or measure something other than it seems to, or fail later.
    """
    train = runner.train_loop.dataloader.dataset
    if runner.val_loop is not None:
        check_same_classes(train, runner.val_loop.dataloader.dataset, 'val_dataloader')
    if checkpoint is not None:
        check_classes(runner.cfg, checkpoint, runner.cfg.load_from, classes_of(train))
        if (text := tell_batch(runner, checkpoint['meta'], schedule)) is not None:
            warn(f'--resume: {text}')
    wrong, doubtful = unknown_metric(runner)
    if wrong is not None:
        raise UsageError(wrong)
    for text in doubtful:
        warn(text)
    try:
        scaled = scale_learning_rates(runner)
    except ValueError as error:
        raise UsageError(f'--auto-scale-lr: {error}') from error
    if scaled is not None and (checkpoint is None or schedule == 'config'):  # else mmengine restores the checkpoint's
        runner.logger.info(scaled)


def check_data(runner: Runner, dataset: Any, part: str) -> None:
    """Compare a data set with the model's heads and its own pipeline.

    Raises:
        UsageError: If numbers of classes, or labels by number, do not fit.
    """
    check_heads(runner.model, dataset, f'{part}_dataloader')
    check_labels(runner.cfg[f'{part}_dataloader'], dataset, f'{part}_dataloader')


def check_heads(model: nn.Module, dataset: Any, where: str) -> None:
    """Compare the numbers of classes in a detector with its data, and the parts of joined data with each other.

    Raises:
        UsageError: If they differ; names each head, both numbers and what to write.
    """
    for compare in (wrong_heads, unlike_parts):
        if (text := compare(model, dataset, where)) is not None:
            raise UsageError(text)


def check_labels(config: Mapping[str, Any], dataset: Any, where: str) -> None:
    """Compare labels that a pipeline writes as numbers with the classes of its data set.

    Raises:
        UsageError: If there is no class of such a number.
    """
    wrong, doubtful, known = labels_by_number(config, classes_of(dataset) or (), where)
    if wrong and classes_of(dataset):
        raise UsageError(wrong[0])
    for text in doubtful:
        warn(text)
    for text in known:
        print_log(text, logger='current')


def check_classes(
    cfg: Mapping[str, Any],
    checkpoint: Mapping[str, Any],
    path: str,
    given: Sequence[str] | None,
    *,
    whose: str = 'the data set',
    result: str | None = None,
) -> None:
    """Compare the classes that a checkpoint was trained for with those that it is used for.

    A checkpoint without names says nothing. `class_renames` in the config tells of classes that were renamed.

    Args:
        cfg: The whole config.
        checkpoint: As `read_checkpoint` returns it.
        path: Its file.
        given: The names of the data set or the config; None if it has none.
        whose: How messages call the owner of these names.
        result: If nothing that is computed depends on it: what follows, for a warning in place of the error.

    Raises:
        UsageError: If they differ, without `result`.
    """
    renames, trained = cfg.get(RENAMES), checkpoint_classes(checkpoint)
    if renames is not None and renames is not True and not isinstance(renames, Mapping):
        raise UsageError(f"{RENAMES}={renames!r} must be a dict {{checkpoint's name: new name}}, or True for all")
    if isinstance(renames, Mapping) and trained and (unknown := [n for n in renames if str(n) not in trained]):
        raise UsageError(f"{RENAMES}: the checkpoint '{path}' has no class '{unknown[0]}' ({', '.join(trained)})")
    found = difference(trained, given, renames, whose)
    if found is None:
        return
    if result is None:
        raise UsageError(f"checkpoint '{path}': {found.text}. {found.cure}")
    warn(f"checkpoint '{path}': {found.text}; {result}")


def check_same_classes(train: Any, other: Any, where: str) -> None:
    """Compare the classes of the data that a detector learns from with those that it is evaluated on.

    Raises:
        UsageError: If they differ.
    """
    found = difference(classes_of(train), classes_of(other), whose=f'that of {where}')
    if found is not None:
        text = found.text.replace('it was trained for', 'the data set of train_dataloader has', 1)
        text = text.replace('the checkpoint', 'that of train_dataloader')
        raise UsageError(f'{text}. Give both the same metainfo.classes')
