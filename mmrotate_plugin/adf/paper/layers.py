"""The layers of the ADF paper's code: torch's own, called with a mean and a variance, or with a `Gaussian`."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..gaussian import Gaussian

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

    A tuple of a mean and a variance counts as both, so that `torch.nn.Sequential` can hand one on.

    Raises:
        TypeError: For a mean without a variance, or a Gaussian with one.
    """
    if var is None and isinstance(x, (tuple, list)) and len(x) == 2 and all(isinstance(part, Tensor) for part in x):
        x, var = x
    if isinstance(x, Gaussian):
        if var is not None:
            raise TypeError('a Gaussian has its variance: give a Gaussian alone, or a mean and a variance')
        return function(x, **options)
    if var is None:
        raise TypeError(f'give a mean and a variance, or a Gaussian, not {type(x).__name__} alone')
    out = function(Gaussian(x, var), **options)
    return out.mu, out.v


class MomentLayer(nn.Module):
    """What the layers share: put before a layer of torch among the bases, it calls that with a `Gaussian`.

    Args:
        args, options: Those of torch's layer.
        keep_variance_fn: Applied to the variance that the layer puts out; None for nothing. A function among `args`
            is taken for it at the place that it has in the paper's code: ``ReLU(f)``, ``LeakyReLU(0.1, f)``.
        min_variance: The smallest variance that the layer puts out, by clamping. Give this or `keep_variance_fn`.

    Shape:
        - Input: mean and variance of one shape, or a `Gaussian`.
        - Output: a tuple of mean and variance, or a `Gaussian`; sizes as those of torch's layer.

    Raises:
        TypeError: If `keep_variance_fn` is given twice, or a function at another place.
    """

    place: ClassVar[int]  # of keep_variance_fn among the positional arguments in the paper's code
    defaults: ClassVar[Mapping[str, Any]] = {}  # of the first argument, where torch's layer has none

    def __init__(
        self, *args: Any, keep_variance_fn: KeepVariance | None = None, min_variance: float = 0.0, **options: Any
    ) -> None:
        args, positional = self._split(args)
        if positional is not None:
            if keep_variance_fn is not None:
                raise TypeError(
                    f'{type(self).__name__} got keep_variance_fn twice: at place {self.place + 1} and by name'
                )
            keep_variance_fn = positional
        super().__init__(*args, **({} if args else self.defaults) | options)
        self.keep_variance_fn = keep_variance(keep_variance_fn, min_variance)

    @classmethod
    def _split(cls, args: Sequence[Any]) -> tuple[tuple[Any, ...], KeepVariance | None]:
        """Arguments of torch's layer, and the positional `keep_variance_fn` of the paper's code."""
        functions = [i for i, value in enumerate(args) if _is_function(value)]
        if functions and functions != [cls.place]:
            raise TypeError(
                f'{cls.__name__} got a function at place {functions[-1] + 1}: the one that keeps the variance is at '
                f'place {cls.place + 1}, or give it by its name, keep_variance_fn=...'
            )
        # None there is the paper's default; torch has a device at that place where a dtype follows
        none = len(args) > cls.place and args[cls.place] is None and not isinstance(args[-1], torch.dtype)
        if not functions and not none:
            return tuple(args), None
        return (*args[: cls.place], *args[cls.place + 1 :]), args[cls.place]

    def forward(self, x: Gaussian | Tensor, var: Tensor | None = None, **options: Any) -> Gaussian | Moments:
        """A `Gaussian` to a `Gaussian`, mean and variance to mean and variance."""
        return through(self._propagate, x, var, **options)

    def _propagate(self, x: Gaussian, **options: Any) -> Gaussian:
        return self._kept(super().forward(x, **options))

    def _kept(self, out: Gaussian) -> Gaussian:
        return out if self.keep_variance_fn is None else out.replace(out.mu, self.keep_variance_fn(out.v))


class Conv2d(MomentLayer, nn.Conv2d):
    """`functional.linear.conv2d`. Arguments of `torch.nn.Conv2d` and `MomentLayer`."""

    place = 8


class ConvTranspose2d(MomentLayer, nn.ConvTranspose2d):
    """`functional.linear.conv_transpose2d`. Arguments of `torch.nn.ConvTranspose2d` and `MomentLayer`.

    `output_size` goes to the call, as the third argument or by its name.
    """

    place = 9

    def forward(
        self, x: Gaussian | Tensor, var: Tensor | None = None, output_size: Sequence[int] | None = None
    ) -> Gaussian | Moments:
        """A `Gaussian` to a `Gaussian`, mean and variance to mean and variance."""
        return super().forward(x, var, output_size=output_size)


class Linear(MomentLayer, nn.Linear):
    """`functional.linear.linear`. Arguments of `torch.nn.Linear` and `MomentLayer`."""

    place = 3


class BatchNorm2d(MomentLayer, nn.BatchNorm2d):
    """`functional.normalization.batch_norm`. Arguments of `torch.nn.BatchNorm2d` and `MomentLayer`."""

    place = 5


class ReLU(MomentLayer, nn.ReLU):
    """`functional.activations.relu`. Arguments of `torch.nn.ReLU` and `MomentLayer`; nothing is changed in place."""

    place = 0


class LeakyReLU(MomentLayer, nn.LeakyReLU):
    """`functional.activations.leaky_relu`. Arguments of `torch.nn.LeakyReLU` and `MomentLayer`."""

    place = 1


class Softmax(MomentLayer, nn.Softmax):
    """`functional.activations.softmax`. Arguments of `torch.nn.Softmax` and `MomentLayer`.

    Args:
        dim: Over which probabilities sum to 1; the channels by default.
    """

    place, defaults = 1, {'dim': 1}

    def forward(self, x: Gaussian | Tensor, var: Tensor | None = None, eps: float | None = None) -> Gaussian | Moments:
        """A `Gaussian` to a `Gaussian`, mean and variance to mean and variance.

        Raises:
            TypeError: If `eps` is given, which the paper's code adds to a denominator.
        """
        if eps is not None:
            raise TypeError(f'eps={eps} has no effect here, as no denominator of this softmax vanishes: leave it away')
        return super().forward(x, var)


class Dropout(MomentLayer, nn.Dropout2d):
    """Dropout of whole channels with a sampled mask, as in the paper's code; `functional.normalization.dropout`.

    Arguments of `torch.nn.Dropout2d` and `MomentLayer`.
    """

    place = 1


class MaxPool2d(MomentLayer, nn.MaxPool2d):
    """`functional.pooling.max_pool2d`. Arguments of `torch.nn.MaxPool2d` and `MomentLayer`.

    Args:
        kernel_size: 2 by default, as in the paper's code.
    """

    place, defaults = 0, {'kernel_size': 2}


class AvgPool2d(MomentLayer, nn.AvgPool2d):
    """`functional.pooling.avg_pool2d`. Arguments of `torch.nn.AvgPool2d` and `MomentLayer`.

    Args:
        kernel_size: Of the window; None if each call gives it, as in the paper's code: ``pool(mean, var, 4)``.
    """

    place, defaults = 0, {'kernel_size': None}

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


def _is_function(value: Any) -> bool:
    """Whether it can be a `keep_variance_fn`: types and numbers of numpy can be called, too."""
    return callable(value) and not isinstance(value, (type, Tensor))
