"""Log the equivariance error of a network during training."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.model import BaseAveragedModel, is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from ...adf._eval_mode import eval_mode
from ...registry import HOOKS, register
from ...testing import equivariance_curve, feature_fields


@register(HOOKS)
class EquivarianceHook(Hook):
    """Log how far backbone and neck are from commuting with rotations, to the log and the visualizer's backends.

    It measures before training, then every `interval` epochs or iterations.

    The scalars are called `equivariance/stage3_90` (the relative error of the last stage at 90 degrees), with the
    number of training iterations as their step. Only maps that claim a group are measured: the stages, and the
    levels of an equivariant neck. The network is measured in eval mode and float32, on one fixed image of smooth
    noise, and left as it was; so are the states of the random number generators.

    Args:
        interval: Epochs between two measurements, or iterations.
        by_epoch: Count epochs; False for iterations.
        size: Side of the noise image, pixels, 32m + 1. Extra levels of a neck, of strides 64 and 128, are exact for
            64m + 1 and 128m + 1.
        degrees: Angles, counter-clockwise.
        in_channels: Channels of the image.

    Raises:
        ValueError: For arguments out of range; before the training, if the backbone has no group.
    """

    priority = 'LOW'

    def __init__(
        self,
        interval: int = 1,
        *,
        by_epoch: bool = True,
        size: int = 129,
        degrees: Sequence[float] = (90, 45),
        in_channels: int = 3,
    ) -> None:
        for name, value in (('interval', interval), ('in_channels', in_channels)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f'{name} must be an integer of 1 or more, but is {value!r}')
        if not isinstance(size, int) or size < 33 or size % 32 != 1:
            raise ValueError(f'size must be 32m + 1, such as 65 or 129, for quarter turns to be exact, but is {size!r}')
        if not degrees or any(not math.isfinite(angle) or angle % 360 == 0 for angle in degrees):
            raise ValueError(f'degrees must be angles between 0 and 360, such as (90, 45), but are {degrees!r}')
        self.interval = interval
        self.by_epoch = by_epoch
        self.degrees = tuple(degrees)
        self.image = smooth_noise(in_channels, size)

    def before_run(self, runner: Runner) -> None:
        backbone = getattr(unwrap(runner.model), 'backbone', unwrap(runner.model))
        if getattr(backbone, 'group', None) is None:
            raise ValueError(
                f'EquivarianceHook: the backbone {type(backbone).__name__} claims no group; use ReResNet, or leave the '
                'hook out'
            )

    def before_train(self, runner: Runner) -> None:
        self._log(runner, step=runner.iter)

    def after_train_epoch(self, runner: Runner) -> None:
        if self.by_epoch and self.every_n_epochs(runner, self.interval):
            self._log(runner, step=runner.iter)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,  # noqa: ARG002
        data_batch: dict[str, Any] | None = None,  # noqa: ARG002
        outputs: dict[str, Tensor] | None = None,  # noqa: ARG002
    ) -> None:
        if not self.by_epoch and self.every_n_train_iters(runner, self.interval):
            self._log(runner, step=runner.iter + 1)

    @master_only
    def _log(self, runner: Runner, step: int) -> None:
        scalars = self.measure(unwrap(runner.model))
        runner.visualizer.add_scalars(scalars, step=step)
        text = ', '.join(f'{key.partition("/")[2]} {value:.1e}' for key, value in scalars.items())
        runner.logger.info(f'equivariance errors (map_degrees): {text}')

    def measure(self, model: nn.Module) -> dict[str, float]:
        """The errors of a model by their names in the log."""
        parameter = next(model.parameters())
        # a model in half precision is measured in it: it has no other
        image = self.image.to(parameter.device, parameter.dtype)
        with eval_mode(model):
            curve = equivariance_curve(
                lambda x: [y for y in feature_fields(model, x) if y.group is not None], image, degrees=self.degrees
            )
        return {
            f'equivariance/{name}_{angle:g}': errors[i]
            for name, errors in curve.error.items()
            for i, angle in enumerate(self.degrees)
        }


def smooth_noise(channels: int, size: int, seed: int = 0) -> Tensor:
    """Make noise, (1, C, size, size), of unit variance or a little less, smooth over about 16 pixels.

    White noise has most of its power where interpolation fails, hence any angle but quarter turns. For maps with a
    stride, the same holds for noise that is not smooth over that stride.
    """
    generator = torch.Generator().manual_seed(seed)
    cells = (size - 1) // 16 + 1
    coarse = torch.randn(1, channels, cells, cells, generator=generator)
    return F.interpolate(coarse, size=(size, size), mode='bicubic', align_corners=True)


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside wrappers for several processes and moving averages."""
    while is_model_wrapper(model) or isinstance(model, BaseAveragedModel):
        inner: nn.Module = model.get_submodule('module')
        model = inner
    return model
