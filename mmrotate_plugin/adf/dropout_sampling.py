"""Which parts of a network drop at random, and how to have them do so in eval mode: Monte Carlo dropout."""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.dropout import _DropoutNd
from torch.overrides import TorchFunctionMode

from ._eval_mode import eval_mode

DROPOUTS = (_DropoutNd,)  # all of torch's, and mmcv's
Layers = type[nn.Module] | tuple[type[nn.Module], ...]


class _Flag(int):
    """False to all that asks; in the arguments of a call it tells `self.training` from a literal False."""


EVAL = _Flag(0)
NAMES = re.compile(r'drop|stochastic_?depth', re.IGNORECASE)  # DropPath, DropBlock, StochasticDepth, ...
PROBABILITIES = ('p', 'drop_prob', 'dropout', 'drop_rate', 'dropout_p', 'prob', 'attn_drop', 'drop')
PLACES = {  # of `training` among the arguments
    F.dropout: 2, F.dropout1d: 2, F.dropout2d: 2, F.dropout3d: 2, F.alpha_dropout: 2, F.feature_alpha_dropout: 2,
    torch.dropout: 2, torch.dropout_: 2, torch.feature_dropout: 2, torch.feature_dropout_: 2,
    torch.alpha_dropout: 2, torch.alpha_dropout_: 2, torch.feature_alpha_dropout: 2, torch.feature_alpha_dropout_: 2,
}  # fmt: skip
STRICT = [function for function in PLACES if not inspect.isfunction(function)]  # take no flag but a bool
STRICT += [torch.batch_norm, torch.instance_norm, torch.rrelu]


class NoDropout(ValueError):
    """Monte Carlo dropout is asked of a network that drops nothing."""


def sampling_layers(model: nn.Module, layers: Layers | None = None) -> list[nn.Module]:
    """The modules that drop at random in training mode, with a probability above 0.

    Args:
        model: Any module.
        layers: Classes to choose; None for all that are known: torch's dropouts and their subclasses, attention and
            recurrent layers with dropout, modules named after it (DropPath, StochasticDepth, DropBlock), and those that
            hold a probability of dropping and ask in `forward` whether they train.
    """
    if layers is not None:
        return [m for m in model.modules() if isinstance(m, layers) and _probability(m) != 0]
    return [m for m in model.modules() if _drops(m)]


def may_drop(model: nn.Module) -> bool:
    """Whether there are such modules, or a `forward` that names something after dropout."""
    return bool(sampling_layers(model)) or any(
        any(NAMES.search(name) for name in _names(type(m))) for m in model.modules() if not _of_torch(type(m))
    )


@contextmanager
def sampled_dropout(model: nn.Module, layers: Layers | None = None) -> Iterator[Callable[[], None]]:
    """Let everything that drops do so, while all else is in eval mode; afterwards each module has its mode again.

    Only the flag of the modules of `sampling_layers` changes, not that of modules inside them. Unless `layers` are
    chosen, functional dropout that is told ``training=self.training`` drops, too. A literal ``training=False`` stays.

    Returns:
        A function to call after a pass, which raises `NoDropout` if there was nothing to drop.
    """
    chosen = sampling_layers(model, layers)
    mode = _Forced(layers is None)

    def check() -> None:
        if not chosen and not mode.calls:
            raise NoDropout(_nothing(model, layers))

    if layers is not None:
        check()
    with eval_mode(model):
        for module in model.modules():
            # torch's own hand the flag to functions that take no other than a bool
            if layers is None and not (_of_torch(type(module)) or isinstance(module, nn.RNNBase)):
                module.training = EVAL
        for module in chosen:
            module.training = True
        with mode, _lenient(mode):
            yield check


@contextmanager
def _lenient(mode: '_Forced') -> Iterator[None]:
    """Let functions of C++ called with `EVAL` get that far that the mode sees it: they check their arguments before."""

    def ask(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: function(*mode.flags(function, args), **mode.flags(function, kwargs))

    try:
        for function in STRICT:
            setattr(torch, function.__name__, ask(function))
        yield
    finally:
        for function in STRICT:
            setattr(torch, function.__name__, function)


class _Forced(TorchFunctionMode):
    """Functional dropout drops where `EVAL` is its `training`."""

    def __init__(self, forced: bool) -> None:
        super().__init__()
        self.forced, self.calls = forced, 0

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        args, kwargs = self.flags(function, args), self.flags(function, kwargs or {})
        if function in PLACES:
            place = PLACES[function]
            training = kwargs.get('training', kwargs.get('train', args[place] if len(args) > place else True))
            p = kwargs.get('p', args[1] if len(args) > 1 else 0.5)
            self.calls += bool(training) and p > 0
        return function(*args, **kwargs)

    def flags(self, function: Callable[..., Any], values: Any) -> Any:
        """Arguments with a bool in place of `EVAL`."""
        value = self.forced and function in PLACES
        if isinstance(values, Mapping):
            return {key: value if part is EVAL else part for key, part in values.items()}
        return tuple(value if part is EVAL else part for part in values)


def _drops(module: nn.Module) -> bool:
    kind, p = type(module), _probability(module)
    if p == 0:
        return False
    if isinstance(module, DROPOUTS):
        return True
    if isinstance(module, (nn.MultiheadAttention, nn.RNNBase)):
        return p is not None
    if (
        next(module.children(), None) is None
        and next(module.parameters(), None) is None
        and NAMES.search(kind.__name__)
    ):
        return True
    if p is None or _of_torch(kind) or isinstance(getattr(module, 'running_mean', None), torch.Tensor):
        return False
    return 'training' in _names(kind)


def _probability(module: nn.Module) -> float | None:
    """Of dropping; None if the module holds none."""
    for name in PROBABILITIES:
        value = getattr(module, name, None)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return value
    return None


def _names(kind: type[nn.Module]) -> tuple[str, ...]:
    """What the code of `forward` refers to."""
    code = getattr(inspect.unwrap(kind.forward), '__code__', None)
    return () if code is None else code.co_names


def _of_torch(kind: type[nn.Module]) -> bool:
    return kind.__module__.startswith('torch.')


def _nothing(model: nn.Module, layers: Layers | None) -> str:
    name = type(model).__name__
    if layers is not None:
        kinds = ', '.join(kind.__name__ for kind in (layers if isinstance(layers, tuple) else (layers,)))
        return f'{name} has no active layer of the kind {kinds}: all passes would be equal and the model variance 0'
    idle = sorted({type(m).__name__ for m in model.modules() if isinstance(m, DROPOUTS) or _named(m)})
    cure = f'give {", ".join(idle)} a p > 0' if idle else 'an ADFResNet takes dropout=0.02'
    return (
        f'{name} has no active layer of the kind Dropout and no functional dropout: all passes would be equal and the '
        f'model variance 0. Add dropout with p > 0 ({cure}), or leave the sampling away'
    )


def _named(module: nn.Module) -> bool:
    return bool(NAMES.search(type(module).__name__)) and next(module.children(), None) is None
