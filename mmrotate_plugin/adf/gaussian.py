"""Values with a mean and a variance, which torch's functions and any unmodified network propagate."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from .callable_moment import Moment, callable_moment

Rule = TypeVar('Rule', bound=Callable[..., Any])

RULES: dict[Callable[..., Any], Callable[..., Any]] = {}  # torch's function or method: its moment rule
PLAIN: dict[Callable[..., Any], Callable[..., Any]] = {}  # rules that keep to the means of the plain function
MOVES: set[Callable[..., Any]] = set()  # those that only move values about, and so need no floor
DELTA: dict[Callable[..., Any], Callable[..., Any]] = {}  # rules of first order, for rule='delta'
VARIANCE_RULES = ('diagonal', 'bfloat16', 'rank1', 'delta')  # from the dearest on
SHARED = ('shape', 'dtype', 'device', 'ndim', 'layout', 'is_cuda', 'is_meta', 'is_sparse', 'is_quantized', 'is_nested')


class NoMomentRule(NotImplementedError):
    """An operation was asked of a Gaussian that has no moment rule."""


def moment_rule(*functions: Callable[..., Any], moves: bool = False) -> Callable[[Rule], Rule]:
    """Register a moment rule for functions of torch.

    The rule takes the arguments of the function, with a `Gaussian` where a tensor would be, and returns a `Gaussian`
    (or a tuple of them). In-place variants are to be registered too; they return the result and change nothing.

    Args:
        functions: As torch hands them to ``__torch_function__``: ``F.relu``, ``torch.relu``, ``Tensor.relu``, ...
        moves: The rule only moves, copies or selects values, so that no variance can fall below the floor.
    """

    def decorator(rule: Rule) -> Rule:
        for function in functions:
            RULES[function] = rule
            if moves:
                MOVES.add(function)
                PLAIN[function] = rule
        return rule

    return decorator


class Gaussian:
    """A tensor of independent Gaussian values: assumed density filtering's state.

    Loquercio, Segu & Scaramuzza, A General Framework for Uncertainty Estimation in Deep Learning, RA-L 2020, after
    Gast & Roth, Lightweight Probabilistic Deep Networks, CVPR 2018 (arXiv:1805.11327). Each function of torch that is
    called with one, by whatever network, is replaced by its moment rule. Nothing is guessed: an operation without a
    rule raises `NoMomentRule`.

    `mean` and `var` are its tensors. Networks that average by a method, ``x.mean([2, 3])`` or ``x.var(1)``, call them:
    they get the Gaussian of `torch.mean(x, ...)` or `torch.var(x, ...)`. Rules read `mu` and `v`, the very tensors that
    were given. Networks for torch.compile have to write ``torch.mean(x, dim)``.

    Args:
        mean: Any shape.
        var: Variance, of the same shape, dtype and device. Not negative (which is not checked: it would cost a pass).
        min_variance: The keep-variance floor: no operation puts out less, by clamping. It goes with the value through
            all operations; of two, the larger one.
        plain_mean: Means are those of the plain functions, to the bit, and the rules give the variance alone. It goes
            with the value through all operations, if one of several has it. An image that already is noisy needs
            that: moment-matched means would count its noise twice.
        rule: How the variance is computed: 'diagonal'; 'bfloat16', with convolutions in that type; 'rank1', with their
            squared weights approximated, see `functional.linear`; or 'delta', which also takes activations and max
            pooling to first order, see `functional.delta`, and implies `plain_mean`. It goes with the value through
            all operations; of several, the cheapest, which is the last of these.

    Raises:
        TypeError: If one of the two is no tensor of real numbers.
        ValueError: If their shapes, dtypes or devices differ, or `min_variance` is negative or not finite, or the
            `rule` is unknown.
    """

    __slots__ = ('min_variance', 'mu', 'plain_mean', 'rule', 'v')

    def __init__(
        self, mean: Tensor, var: Tensor, min_variance: float = 0.0, plain_mean: bool = False, rule: str = 'diagonal'
    ) -> None:
        mean, var = (value.tensor if type(value) is Moment else value for value in (mean, var))
        for name, value in (('mean', mean), ('var', var)):
            if not isinstance(value, Tensor) or not value.is_floating_point():
                kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
                raise TypeError(f'{name} must be a tensor of floating-point numbers, but is {kind}')
        for what in ('shape', 'dtype', 'device'):
            a, b = getattr(mean, what), getattr(var, what)
            if a != b:
                raise ValueError(f'mean and var must have one {what}, but have {_plain(a)} and {_plain(b)}')
        if not 0 <= min_variance < float('inf'):
            raise ValueError(f'min_variance={min_variance} must be a number from 0 on')
        self.mu, self.v, self.min_variance = mean, var, float(min_variance)
        if rule not in VARIANCE_RULES:
            raise ValueError(f'rule={rule!r} is unknown: use one of {", ".join(map(repr, VARIANCE_RULES))}')
        self.plain_mean, self.rule = bool(plain_mean) or rule == 'delta', rule

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if not args and 'input' in kwargs:  # torch's name of the first argument
            args = (kwargs.pop('input'),)
        if kwargs.get('out') is not None:
            raise TypeError(f"'{_name(function)}' cannot write a Gaussian into the tensor out=: leave it away")
        rule = RULES.get(function)
        if rule is None:
            raise NoMomentRule(
                f"'{_name(function)}' has no moment rule: a Gaussian cannot pass it. Write one and register it with "
                '@mmrotate_plugin.adf.moment_rule, or hand over x.mean'
            )
        inputs = list(gaussians((args, kwargs)))
        floor = max([0.0, *[g.min_variance for g in inputs]])
        plain_mean = True in [g.plain_mean for g in inputs]
        cheapest = max([g.rule for g in inputs], key=VARIANCE_RULES.index, default='diagonal')
        if cheapest == 'delta' and function in DELTA:
            out = DELTA[function](*args, **kwargs)
        elif plain_mean and function in PLAIN:
            out = PLAIN[function](*args, **kwargs)
        else:
            out = rule(*args, **kwargs)
            if plain_mean:
                out = _with_means(out, _of_means(function, args, kwargs))
        if floor or plain_mean or cheapest != 'diagonal':
            return _with_traits(out, (floor, plain_mean, cheapest), clamp=function not in MOVES)
        return out

    def __getattr__(self, name: str) -> Any:
        """Methods of `Tensor`, by the same rules; attributes that mean and variance share."""
        if name.startswith('__'):
            raise AttributeError(name)
        if name in SHARED:
            return getattr(self.mu, name)
        if name in ('T', 'mT'):
            return self.t() if name == 'T' else self.transpose(-2, -1)
        method = getattr(Tensor, name, None)
        if callable(method):
            return lambda *args, **kwargs: self.__torch_function__(method, (Gaussian,), (self, *args), kwargs)
        raise AttributeError(f"Gaussian has no attribute '{name}'; its tensors are .mean and .var")

    def replace(self, mean: Tensor, var: Tensor) -> 'Gaussian':
        """Other moments, with the floor, the kind of mean and the rule for the variance of this one."""
        return Gaussian(mean, var, self.min_variance, self.plain_mean, self.rule)

    @property
    def mean(self) -> Tensor:
        """The tensor of means, which can also be called like `torch.mean`: ``x.mean(dim)``."""
        return callable_moment(self.mu, partial(torch.mean, self))

    @mean.setter
    def mean(self, value: Tensor) -> None:
        self.mu = value

    @property
    def var(self) -> Tensor:
        """The tensor of variances, which can also be called like `torch.var`: ``x.var(dim)``."""
        return callable_moment(self.v, partial(torch.var, self))

    @var.setter
    def var(self, value: Tensor) -> None:
        self.v = value

    @property
    def std(self) -> Tensor:
        """Standard deviation."""
        return self.v.sqrt()

    @property
    def requires_grad(self) -> bool:
        """Whether mean or variance learn."""
        return self.mu.requires_grad or self.v.requires_grad

    def dim(self) -> int:
        return self.mu.dim()

    def size(self, *args: Any) -> Any:
        return self.mu.size(*args)

    def numel(self) -> int:
        return self.mu.numel()

    def __len__(self) -> int:
        return len(self.mu)

    def __repr__(self) -> str:
        traits = f', min_variance={self.min_variance:g}' if self.min_variance else ''
        traits += ', plain_mean=True' if self.plain_mean else ''
        traits += f', rule={self.rule!r}' if self.rule != 'diagonal' else ''
        return f'Gaussian(shape={tuple(self.shape)}, dtype={self.dtype}, device={self.device}{traits})'

    def __add__(self, other: Any) -> 'Gaussian':
        return torch.add(self, other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> 'Gaussian':
        return torch.sub(self, other)

    def __rsub__(self, other: Any) -> 'Gaussian':
        return torch.add(torch.neg(self), other)

    def __mul__(self, other: Any) -> 'Gaussian':
        return torch.mul(self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> 'Gaussian':
        return torch.div(self, other)

    def __rtruediv__(self, other: Any) -> 'Gaussian':
        return self.__torch_function__(torch.div, (Gaussian,), (other, self))

    def __pow__(self, exponent: Any) -> 'Gaussian':
        return torch.pow(self, exponent)

    def __abs__(self) -> 'Gaussian':
        return torch.abs(self)

    def __neg__(self) -> 'Gaussian':
        return torch.neg(self)

    def __matmul__(self, other: Any) -> 'Gaussian':
        return torch.matmul(self, other)

    # `x += y` makes a new value; Python would see to that itself, but torch.compile looks for these names
    __iadd__, __isub__, __imul__, __itruediv__, __ipow__ = __add__, __sub__, __mul__, __truediv__, __pow__

    def __getitem__(self, index: Any) -> 'Gaussian':
        return self.__torch_function__(Tensor.__getitem__, (Gaussian,), (self, index))


def gaussians(values: Any) -> Iterator[Gaussian]:
    """Every Gaussian in nested sequences and dicts."""
    if isinstance(values, Gaussian):
        yield values
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from gaussians(value)
    elif isinstance(values, Mapping):
        yield from gaussians(list(values.values()))


def _with_traits(out: Any, traits: tuple[float, bool, str], *, clamp: bool) -> Any:
    if isinstance(out, Gaussian):
        return Gaussian(out.mu, out.v.clamp_min(traits[0]) if clamp and traits[0] else out.v, *traits)
    if isinstance(out, (list, tuple)):
        return type(out)(_with_traits(value, traits, clamp=clamp) for value in out)
    return out


def _of_means(function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    """The plain function of the means, which it leaves as they are."""
    copies = _name(function).endswith('_')
    kwargs = {key: False if key == 'inplace' else _means(value, copies) for key, value in kwargs.items()}
    return function(*_means(args, copies), **kwargs)


def _means(values: Any, copies: bool) -> Any:
    if isinstance(values, Gaussian):
        return values.mu.clone() if copies else values.mu
    return type(values)(_means(value, copies) for value in values) if type(values) in (list, tuple) else values


def _with_means(out: Any, means: Any) -> Any:
    """The variances of `out`, a Gaussian or a tuple of them, and the tensors `means`."""
    if isinstance(out, Gaussian):
        return Gaussian(means, out.v.to(means.dtype))
    if isinstance(out, (list, tuple)):
        return type(out)(map(_with_means, out, means))
    return out


def _name(function: Callable[..., Any]) -> str:
    name = getattr(function, '__name__', repr(function))
    owner = getattr(function, '__objclass__', None)
    if owner is not None:
        return f'Tensor.{name}'
    return f'{function.__module__}.{name}' if getattr(function, '__module__', None) else f'torch.{name}'


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, torch.Size) else value
