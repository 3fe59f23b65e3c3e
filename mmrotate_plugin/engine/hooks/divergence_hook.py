"""End training when loss or weights become infinite or NaN, before a checkpoint is written."""

from collections.abc import Iterable
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.runner import Runner
from torch import Tensor

from ...registry import HOOKS, register


@register(HOOKS)
class StopAtDivergenceHook(Hook):
    """End training when the loss becomes infinite or NaN, and name the images of that iteration.

    Such a loss makes all weights NaN at once, so training ends in the iteration where it appears, before a
    checkpoint is written. With a scaled loss (float16) it may be an overflow, whose step the scaler leaves out: there
    only several in a row count. Weights that are not finite are never saved, so that the last checkpoint is a good one.

    mmengine reads every loss from the device in every iteration anyway; looking at them costs nothing further.

    Args:
        patience: Iterations in a row that end the training. By default 1, and 20 with a scaled loss.

    Raises:
        FloatingPointError: During training; names the iteration, the terms of the loss and the images. Before a
            checkpoint: names the weights.
        ValueError: If `patience` is not a positive integer.
    """

    priority = 'ABOVE_NORMAL'  # before checkpoints and validation

    def __init__(self, patience: int | None = None) -> None:
        if patience is not None and (not isinstance(patience, int) or patience < 1):
            raise ValueError(f'patience={patience!r} must be a positive integer, or None')
        self.patience = patience
        self.failed = 0
        self.first = ''

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,  # noqa: ARG002
        data_batch: dict[str, Any] | None = None,
        outputs: dict[str, Tensor] | None = None,
    ) -> None:
        wrong = {key: value for key, value in (outputs or {}).items() if not _is_finite(value)}
        if not wrong:
            self.failed = 0
            return
        self.failed += 1
        terms = [key for key in wrong if key != 'loss'] or list(wrong)
        text = f'{", ".join(f"{key} = {_number(wrong[key])}" for key in terms)}, images {", ".join(_names(data_batch))}'
        if self.failed == 1:
            self.first = f'iteration {runner.iter + 1}: {text}'
        if self.failed >= (self.patience or self._default_patience(runner.optim_wrapper)):
            again = f', and in {self.failed - 1} further iterations in a row' if self.failed > 1 else ''
            raise FloatingPointError(f'the loss is infinite or not a number in {self.first}{again}')

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:  # noqa: ARG002
        """Refuse to save weights that are not finite."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        wrong = [name for name, weight in model.named_parameters() if not _is_finite(weight)]
        if wrong:
            more = f' and {len(wrong) - 3} more' if len(wrong) > 3 else ''
            raise FloatingPointError(
                f'after iteration {runner.iter} weights are infinite or not a number ({", ".join(wrong[:3])}{more}); '
                'they are not saved'
            )

    @staticmethod
    def _default_patience(wrapper: OptimWrapper) -> int:
        wrappers = wrapper.values() if hasattr(wrapper, 'values') else [wrapper]
        return 20 if any(isinstance(part, AmpOptimWrapper) for part in wrappers) else 1


def _is_finite(value: Any) -> bool:
    return not isinstance(value, Tensor) or bool(torch.isfinite(value.detach()).all())


def _number(value: Tensor) -> str:
    return f'{value.detach().float().mean().item():g}'


def _names(batch: Any) -> Iterable[str]:
    """List files, or else ids, of the images in a batch."""
    samples = batch.get('data_samples', ()) if isinstance(batch, dict) else ()
    metas = [getattr(sample, 'metainfo', {}) for sample in samples]
    return [str(meta.get('img_path') or meta.get('img_id') or '?') for meta in metas] or ['unknown']
