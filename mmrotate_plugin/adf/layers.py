"""The layers of the ADF paper's code: torch's own, called with a mean and a variance, or with a `Gaussian`."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .gaussian import Gaussian

KeepVariance = Callable[[Tensor], Tensor]
Moments = tuple[Tensor, Tensor]


def keep_variance(keep_variance_fn: KeepVariance | None = None, min_variance: float = 0.0) -> KeepVariance | None:
    """What keeps the variance that a layer puts out from vanishing.

    Args:
        keep_variance_fn: Maps a variance to a variance of the same shape.
        min_variance: The smallest variance, by clamping. The paper's code adds it instead, in every layer, which
            accumulates to 1.4 times the standard deviation at the logits of a ResNet-18.

    Returns:
        A function, or None if there is nothing to do.

    Raises:
        ValueError: If both are given, or `min_variance` is negative or not finite.
    """
    if not (math.isfinite(min_variance) and min_variance >= 0):
        raise ValueError(f'min_variance={min_variance} must be a number from 0 on')
    if keep_variance_fn is not None and min_variance:
        raise ValueError(f'give one of keep_variance_fn and min_variance={min_variance}: both set the variance')
    return partial(torch.clamp, min=min_variance) if min_variance else keep_variance_fn


def through(function: Callable[..., Gaussian], x: Gaussian | Tensor, var: Tensor | None, **options: Any) -> Any:
    """Call a function of a Gaussian with one, or with a mean and a variance; the result is of the same kind.

    Raises:
        TypeError: For a mean without a variance, or a Gaussian with one.
    """
    if isinstance(x, Gaussian):
        if var is not None:
            raise TypeError('a Gaussian has its variance: give a Gaussian alone, or a mean and a variance')
        return function(x, **options)
    if var is None:
        raise TypeError(f'give a mean and a variance, or a Gaussian, not {type(x).__name__} alone')
    out = function(Gaussian(x, var), **options)
    return out.mean, out.var


class MomentLayer(nn.Module):
    """What the layers share: put before a layer of torch among the bases, it calls that with a `Gaussian`.

    Args:
        args, options: Those of torch's layer.
        keep_variance_fn: Applied to the variance that the layer puts out; None for nothing.
        min_variance: The smallest variance that the layer puts out, by clamping. Give this or `keep_variance_fn`.

    Shape:
        - Input: mean and variance of one shape, or a `Gaussian`.
        - Output: a tuple of mean and variance, or a `Gaussian`; sizes as those of torch's layer.
    """

    def __init__(
        self, *args: Any, keep_variance_fn: KeepVariance | None = None, min_variance: float = 0.0, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self.keep_variance_fn = keep_variance(keep_variance_fn, min_variance)

    def forward(self, x: Gaussian | Tensor, var: Tensor | None = None, **options: Any) -> Gaussian | Moments:
        """A `Gaussian` to a `Gaussian`, mean and variance to mean and variance."""
        return through(self._propagate, x, var, **options)

    def _propagate(self, x: Gaussian, **options: Any) -> Gaussian:
        return self._kept(super().forward(x, **options))

    def _kept(self, out: Gaussian) -> Gaussian:
        return out if self.keep_variance_fn is None else out.replace(out.mean, self.keep_variance_fn(out.var))


class Conv2d(MomentLayer, nn.Conv2d):
    """`functional.linear.conv2d`. Arguments of `torch.nn.Conv2d` and `MomentLayer`."""


class ConvTranspose2d(MomentLayer, nn.ConvTranspose2d):
    """`functional.linear.conv_transpose2d`. Arguments of `torch.nn.ConvTranspose2d` and `MomentLayer`.

    `output_size` goes to the call by its name.
    """


class Linear(MomentLayer, nn.Linear):
    """`functional.linear.linear`. Arguments of `torch.nn.Linear` and `MomentLayer`."""


class BatchNorm2d(MomentLayer, nn.BatchNorm2d):
    """`functional.normalization.batch_norm`. Arguments of `torch.nn.BatchNorm2d` and `MomentLayer`."""


class ReLU(MomentLayer, nn.ReLU):
    """`functional.activations.relu`. Arguments of `torch.nn.ReLU` and `MomentLayer`; nothing is changed in place."""


class LeakyReLU(MomentLayer, nn.LeakyReLU):
    """`functional.activations.leaky_relu`. Arguments of `torch.nn.LeakyReLU` and `MomentLayer`."""


class Softmax(MomentLayer, nn.Softmax):
    """`functional.activations.softmax`. Arguments of `torch.nn.Softmax` and `MomentLayer`.

    Args:
        dim: Over which probabilities sum to 1; the channels by default.
    """

    def __init__(self, dim: int = 1, **options: Any) -> None:
        super().__init__(dim, **options)


class Dropout(MomentLayer, nn.Dropout2d):
    """Dropout of whole channels with a sampled mask, as in the paper's code; `functional.normalization.dropout`.

    Arguments of `torch.nn.Dropout2d` and `MomentLayer`.
    """


class MaxPool2d(MomentLayer, nn.MaxPool2d):
    """`functional.pooling.max_pool2d`. Arguments of `torch.nn.MaxPool2d` and `MomentLayer`.

    Args:
        kernel_size: 2 by default, as in the paper's code.
    """

    def __init__(self, kernel_size: int | tuple[int, int] = 2, *args: Any, **options: Any) -> None:
        super().__init__(kernel_size, *args, **options)


class AvgPool2d(MomentLayer, nn.AvgPool2d):
    """`functional.pooling.avg_pool2d`. Arguments of `torch.nn.AvgPool2d` and `MomentLayer`.

    Args:
        kernel_size: Of the window; None if each call gives it, as in the paper's code: ``pool(mean, var, 4)``.
    """

    def __init__(self, kernel_size: int | tuple[int, int] | None = None, *args: Any, **options: Any) -> None:
        super().__init__(kernel_size, *args, **options)

    def forward(
        self, x: Gaussian | Tensor, var: Tensor | None = None, kernel_size: int | tuple[int, int] | None = None
    ) -> Gaussian | Moments:
        """Mean and variance to mean and variance, or a `Gaussian` to a `Gaussian`.

        Raises:
            ValueError: If `kernel_size` is given neither here nor before, or twice.
        """
        if (kernel_size is None) == (self.kernel_size is None):
            raise ValueError(f'give kernel_size once: it is {self.kernel_size} of the layer, {kernel_size} of the call')
        return through(self._propagate, x, var, kernel_size=self.kernel_size if kernel_size is None else kernel_size)

    def _propagate(self, x: Gaussian, kernel_size: int | tuple[int, int]) -> Gaussian:
        options = (self.stride, self.padding, self.ceil_mode, self.count_include_pad, self.divisor_override)
        return self._kept(F.avg_pool2d(x, kernel_size, *options))


class Sequential(nn.Sequential):
    """Layers in a row, these or any other that a `Gaussian` can pass. Arguments of `torch.nn.Sequential`.

    Shape:
        - Input: mean and variance of one shape, or a `Gaussian`.
        - Output: a tuple of mean and variance, or a `Gaussian`.
    """

    def forward(self, x: Gaussian | Tensor, var: Tensor | None = None) -> Gaussian | Moments:
        """A `Gaussian` to a `Gaussian`, mean and variance to mean and variance."""
        return through(super().forward, x, var)
