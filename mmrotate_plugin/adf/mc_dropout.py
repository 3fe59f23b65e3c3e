"""Data and model uncertainty together: Monte Carlo dropout over passes that propagate the noise of the input."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .dropout_sampling import Layers, sampled_dropout
from .gaussian import Gaussian
from .progress import track


class Prediction(NamedTuple):
    """What a network knows of one output.

    Attributes:
        mean: Mean over the passes.
        data_variance: Mean of the variances: what the noise of the input does (aleatoric).
        model_variance: Variance of the means, unbiased: what the dropped weights do (epistemic).
    """

    mean: Tensor
    data_variance: Tensor
    model_variance: Tensor

    @property
    def total_variance(self) -> Tensor:
        """Data and model variance together."""
        return self.data_variance + self.model_variance

    @property
    def std(self) -> Tensor:
        """Total standard deviation."""
        return self.total_variance.sqrt()


@torch.no_grad()
def predict(
    model: nn.Module,
    x: Any,
    num_samples: int,
    *,
    layers: Layers | None = None,
    pairs: bool = False,
    seed: int | None = None,
    progress: bool | None = None,
) -> Any:
    r"""Mean and total variance by Monte Carlo dropout over passes of assumed density filtering.

    With the moments :math:`(\mu_t, v_t)` of pass t of T:

    .. math::
        \sigma^2 = \frac1T \sum_t v_t + \frac1{T-1} \sum_t (\mu_t - \bar\mu)^2

    Loquercio, Segu & Scaramuzza, A General Framework for Uncertainty Estimation in Deep Learning, RA-L 2020
    (there with 1 / T throughout, which is too small for the second sum), after Gal & Ghahramani, Dropout
    as a Bayesian Approximation, ICML 2016.

    Only dropout is active; norms and all else are in eval mode, and every module gets its mode back. Memory
    does not grow with the number of passes: three tensors per output are kept.

    Args:
        model: Any module that drops: by torch's layers or mmcv's, DropPath, StochasticDepth, DropBlock, the dropout of
            attention and recurrent layers, or ``F.dropout(x, p, self.training)``. See `dropout.sampling_layers`.
        x: What the model is called with; a tuple is unpacked into its arguments, so that (mean, variance) works.
        num_samples: Passes, T. The relative error of the model's standard deviation is about 1 / sqrt(2 T).
        layers: Classes of the modules that sample, alone; everything that drops unless told.
        pairs: A tuple of two tensors in the output is a mean and its variance, as the ADF paper's modules return;
            False takes it for two outputs.
        seed: Makes the result repeatable; the global random state is then left as it was. None draws from it.
        progress: None shows a bar where stderr is a terminal, True always, False never.

    Returns:
        The model's output with a `Prediction` in place of each tensor (data variance 0), `Gaussian` or pair. Tuples,
        lists and dicts are kept. Tensors of half type are averaged in float32.

    Raises:
        ValueError: If there are fewer than two passes, or an output changes its shape.
        NoDropout: If there is nothing to sample. It is a `ValueError`, too.
        TypeError: If the model returns something else than tensors and Gaussians.
    """
    if num_samples < 2:
        raise ValueError(f'num_samples={num_samples} must be 2 or more: one pass has no variance of means')
    running: list[Running] | None = None
    with sampled_dropout(model, layers) as check, _seeded(seed, model, x):
        for _ in track(num_samples, 'Monte Carlo dropout', progress):
            out = model(*x) if isinstance(x, tuple) else model(x)
            check()
            moments: list[tuple[Tensor, Tensor | None]] = []
            _replace(out, pairs, lambda *leaf, to=moments: to.append(leaf))
            running = [Running() for _ in moments] if running is None else running
            if len(moments) != len(running):
                raise ValueError(f'the model has {len(running)} outputs in one pass and {len(moments)} in another')
            for state, (mean, var) in zip(running, moments, strict=True):
                state.add(mean, var)
    results = iter(running or ())
    return _replace(out, pairs, lambda *_: next(results).result())


class Running:
    """Mean, sum of squared deviations (Welford, Technometrics 1962) and mean variance of the passes so far."""

    def __init__(self) -> None:
        self.passes = 0

    def add(self, mean: Tensor, var: Tensor | None) -> None:
        wide = mean.dtype if mean.dtype in (torch.float32, torch.float64) else torch.float32
        mean = mean.to(wide)
        if self.passes == 0:
            self.mean, self.squares, self.var = (torch.zeros_like(mean) for _ in range(3))
        elif mean.shape != self.mean.shape:
            raise ValueError(
                f'an output has shape {tuple(self.mean.shape)} in one pass and {tuple(mean.shape)} in another: only '
                'outputs of one shape have a mean, so predict before boxes are selected'
            )
        self.passes += 1
        step = mean - self.mean
        self.mean += step / self.passes
        self.squares += step * (mean - self.mean)
        if var is not None:
            self.var += (var.to(wide) - self.var) / self.passes

    def result(self) -> Prediction:
        return Prediction(self.mean, self.var, self.squares / (self.passes - 1))


def _replace(out: Any, pairs: bool, function: Callable[[Tensor, Tensor | None], Any]) -> Any:
    """`out` with `function(mean, variance)` in place of each Gaussian, pair and tensor; for these there is none."""
    if isinstance(out, Gaussian):
        return function(out.mu, out.v)
    if isinstance(out, Tensor):
        if not out.is_floating_point():
            raise TypeError(f'the model returns a tensor of {out.dtype}, which has no mean: choose its other outputs')
        return function(out, None)
    if pairs and isinstance(out, tuple) and len(out) == 2 and all(isinstance(part, Tensor) for part in out):
        return function(*out)
    if isinstance(out, Mapping):
        return {key: _replace(part, pairs, function) for key, part in out.items()}
    if isinstance(out, (list, tuple)):
        parts = [_replace(part, pairs, function) for part in out]
        return type(out)(*parts) if hasattr(out, '_fields') else type(out)(parts)
    raise TypeError(f'the model returns a {type(out).__name__}; it must return tensors, Gaussians, or nested tuples')


@contextmanager
def _seeded(seed: int | None, model: nn.Module, x: Any) -> Iterator[None]:
    """A random state of its own, on the CPU and on the devices of model and input."""
    if seed is None:
        yield
        return
    tensors = [*model.parameters(), *model.buffers(), *(x if isinstance(x, tuple) else (x,))]
    devices = [t.device for t in tensors if isinstance(t, (Tensor, Gaussian)) and t.device.type != 'cpu']
    kind = devices[0].type if devices else 'cuda'
    other = {} if kind == 'cuda' else {'device_type': kind}  # which torch 2.0 does not know
    with torch.random.fork_rng({d for d in devices if d.type == kind}, **other):
        torch.manual_seed(seed)
        yield
