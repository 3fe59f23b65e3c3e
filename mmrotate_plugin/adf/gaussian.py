"""Define `Gaussian`, a value with a mean and a variance that any unmodified network propagates."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .callable_moment import Moment, callable_moment
from .deferred import Deferred
from .moment_rules import DELTA, MOVES, PLAIN, RULES, NoMomentRule, name_of

VARIANCE_RULES = ('diagonal', 'bfloat16', 'rank1', 'delta')  # most expensive first
PLAIN_ARGUMENTS = (Tensor, int, float, str, type(None))  # most arguments; asking for a Mapping takes longer
SHARED = ('shape', 'dtype', 'device', 'ndim', 'layout', 'is_cuda', 'is_meta', 'is_sparse', 'is_quantized', 'is_nested')

Variance = Tensor | Deferred


class Gaussian:
    """A tensor of independent Gaussian values: the state of assumed density filtering.

    Loquercio, Segu & Scaramuzza, A General Framework for Uncertainty Estimation in Deep Learning, RA-L 2020, after
    Gast & Roth, Lightweight Probabilistic Deep Networks, CVPR 2018 (arXiv:1805.11327). Whatever network calls a
    function of torch with a Gaussian, the function's moment rule runs instead. Nothing is guessed: an operation without
    a rule raises `NoMomentRule`.

    `mean` and `var` are its tensors. They can also be called, for networks that average by a method: ``x.mean([2, 3])``
    and ``x.var(1)`` give the Gaussian of `torch.mean(x, ...)` and `torch.var(x, ...)`. Rules read `mu` and `v`, the
    very tensors that were given. Networks for torch.compile have to write ``torch.mean(x, dim)``.

    The last three arguments go with the value through all operations.

    Args:
        mean: Tensor of any shape.
        var: Variance, of the same shape, dtype and device. It must not be negative; a check would cost a pass.
        min_variance: Keep-variance floor: the smallest variance of any result, by clamping. Of several inputs the
            largest floor applies.
        plain_mean: Compute means by the plain functions, to the bit. It applies if one of several inputs has it. Use
            it for images that already are noisy: moment-matched means would count their noise twice.
        rule: How to compute the variance: 'diagonal'; 'bfloat16', with convolutions in that type; 'rank1', with an
            approximation of their squared weights, see `functional.linear`; or 'delta', which also takes activations
            and max pooling to first order, see `functional.delta`, and implies `plain_mean`. Of several inputs the
            cheapest rule applies, the last in this list.

    Raises:
        TypeError: If `mean` or `var` is not a tensor of real numbers.
        ValueError: If they differ in shape, dtype or device, or `min_variance` or `rule` is not as above.

    Example:
        >>> import torch
        >>> from mmrotate_plugin.adf import Gaussian
        >>> x = Gaussian(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 0.25]))
        >>> y = 2 * x - 1
        >>> y.mean, y.var
        (tensor([-1.,  3.]), tensor([4., 1.]))
        >>> torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.ReLU())(y)
        Gaussian(shape=(1,), dtype=torch.float32, device=cpu)
    """

    __slots__ = ('min_variance', 'mu', 'plain_mean', 'rule', 'variance')

    def __init__(
        self, mean: Tensor, var: Variance, min_variance: float = 0.0, plain_mean: bool = False, rule: str = 'diagonal'
    ) -> None:
        mean = mean.tensor if type(mean) is Moment else mean
        var = var.tensor if type(var) is Moment else var
        _check(mean, mean if isinstance(var, Deferred) else var, min_variance, rule)
        self.mu, self.variance, self.min_variance = mean, var, float(min_variance)
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
            raise TypeError(f"'{name_of(function)}' cannot write a Gaussian into the tensor out=: leave it out")
        rule = RULES.get(function)
        if rule is None:
            raise NoMomentRule(
                f"'{name_of(function)}' has no moment rule: a Gaussian cannot pass it. Write one and register it with "
                '@mmrotate_plugin.adf.moment_rule, or pass x.mean'
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
            if plain_mean and function not in MOVES:
                out = _with_means(out, _of_means(function, args, kwargs))
        if floor or plain_mean or cheapest != 'diagonal':
            return _with_traits(out, (floor, plain_mean, cheapest), clamp=function not in MOVES)
        return out

    def __getattr__(self, name: str) -> Any:
        """Return a method of `Tensor`, by its rule, or an attribute that mean and variance share."""
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
        """Return a Gaussian of other moments with the same floor, `plain_mean` and `rule`."""
        return Gaussian(mean, var, self.min_variance, self.plain_mean, self.rule)

    @property
    def v(self) -> Tensor:
        """Tensor of variances itself, which a sum or a norm may have left to compute."""
        if isinstance(self.variance, Deferred):
            self.variance = self.variance.total()
        return self.variance

    @v.setter
    def v(self, value: Tensor) -> None:
        self.variance = value

    @property
    def mean(self) -> Tensor:
        """Tensor of means; call it like `torch.mean`: ``x.mean(dim)``."""
        return callable_moment(self.mu, partial(torch.mean, self))

    @mean.setter
    def mean(self, value: Tensor) -> None:
        self.mu = value

    @property
    def var(self) -> Tensor:
        """Tensor of variances; call it like `torch.var`: ``x.var(dim)``."""
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
        """Whether the mean or the variance requires a gradient."""
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
        return call(torch.add, self, other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> 'Gaussian':
        return call(torch.sub, self, other)

    def __rsub__(self, other: Any) -> 'Gaussian':
        return call(torch.add, call(torch.neg, self), other)

    def __mul__(self, other: Any) -> 'Gaussian':
        return call(torch.mul, self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> 'Gaussian':
        return call(torch.div, self, other)

    def __rtruediv__(self, other: Any) -> 'Gaussian':
        return self.__torch_function__(torch.div, (Gaussian,), (other, self))

    def __pow__(self, exponent: Any) -> 'Gaussian':
        return call(torch.pow, self, exponent)

    def __abs__(self) -> 'Gaussian':
        return call(torch.abs, self)

    def __neg__(self) -> 'Gaussian':
        return call(torch.neg, self)

    def __matmul__(self, other: Any) -> 'Gaussian':
        return call(torch.matmul, self, other)

    # `x += y` makes a new value; Python would do so itself, but torch.compile looks for these names
    __iadd__, __isub__, __imul__, __itruediv__, __ipow__ = __add__, __sub__, __mul__, __truediv__, __pow__

    def __getitem__(self, index: Any) -> 'Gaussian':
        return self.__torch_function__(Tensor.__getitem__, (Gaussian,), (self, index))


def _check(mean: Tensor, var: Tensor, min_variance: float, rule: str) -> None:
    """Refuse arguments that `Gaussian` does not take."""
    for name, value in (('mean', mean), ('var', var)):
        if not isinstance(value, Tensor) or not value.is_floating_point():
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f'{name} must be a tensor of floating-point numbers, but is {kind}')
    for what in ('shape', 'dtype', 'device'):
        a, b = getattr(mean, what), getattr(var, what)
        if a != b:
            raise ValueError(f'mean and var must have one {what}, but have {_plain(a)} and {_plain(b)}')
    if not 0 <= min_variance < float('inf'):
        raise ValueError(f'min_variance={min_variance} must be finite and non-negative')
    if rule not in VARIANCE_RULES:
        raise ValueError(f'rule={rule!r} is unknown: use one of {", ".join(map(repr, VARIANCE_RULES))}')


def call(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function of torch with Gaussians, whose types its stubs do not know."""
    return function(*args)


def gaussians(values: Any) -> Iterator[Gaussian]:
    """Iterate over the Gaussians in nested sequences and dicts."""
    found: list[Gaussian] = []
    _collect((values,), found)
    return iter(found)


def _collect(values: Iterable[Any], found: list[Gaussian]) -> None:
    for value in values:
        if isinstance(value, Gaussian):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            _collect(value, found)
        elif not isinstance(value, PLAIN_ARGUMENTS) and isinstance(value, Mapping):
            _collect(value.values(), found)


def _with_traits(out: Any, traits: tuple[float, bool, str], *, clamp: bool) -> Any:
    if isinstance(out, Gaussian):
        return Gaussian(out.mu, out.v.clamp_min(traits[0]) if clamp and traits[0] else out.variance, *traits)
    if isinstance(out, (list, tuple)):
        return type(out)(_with_traits(value, traits, clamp=clamp) for value in out)
    return out


def _of_means(function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    """Call the plain function on the means, which stay unchanged."""
    copies = name_of(function).endswith('_')
    kwargs = {key: False if key == 'inplace' else _means(value, copies) for key, value in kwargs.items()}
    return function(*_means(args, copies), **kwargs)


def _means(values: Any, copies: bool) -> Any:
    if isinstance(values, Gaussian):
        return values.mu.clone() if copies else values.mu
    return type(values)(_means(value, copies) for value in values) if type(values) in (list, tuple) else values


def _with_means(out: Any, means: Any) -> Any:
    """Combine the variances of `out`, a Gaussian or a tuple of them, with the tensors `means`."""
    if isinstance(out, Gaussian):
        return Gaussian(means, out.v.to(means.dtype))
    if isinstance(out, (list, tuple)):
        return type(out)(map(_with_means, out, means))
    return out


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, torch.Size) else value
