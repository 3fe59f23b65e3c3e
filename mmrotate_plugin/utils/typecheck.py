"""Arguments of the types that a signature names, or a TypeError that names the argument.

Configs hold what somebody typed: ``depth='50'``, ``norm_cfg='BN'``. Without a look at the types, such values travel on
and fail where nothing tells of the argument.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

P = ParamSpec('P')
R = TypeVar('R')


def typed(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function, so that arguments are of the annotated types.

    As configs can hold them: a list passes for a tuple, an integer for a float, but neither a bool for an integer nor
    a text for a sequence. What is not annotated, and the contents of ``**options``, are not looked at.

    Raises:
        TypeError: Names the argument, the value that came, and the type that would work.
    """
    signature = inspect.signature(function)
    hints: dict[str, Any] = {}

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        if not hints:
            hints.update(get_type_hints(function))
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:
            return function(*args, **kwargs)  # Python says best what is missing or too much
        for name, value in given.items():
            variadic = signature.parameters[name].kind in (
                inspect.Parameter.VAR_POSITIONAL,
                inspect.Parameter.VAR_KEYWORD,
            )
            if name in hints and not variadic and not fits(value, hints[name]):
                text = repr(value)
                text = text if len(text) <= 80 else text[:77] + '...'
                raise TypeError(f'{name}={text} must be {_readable(hints[name])}, not {type(value).__name__}')
        return function(*args, **kwargs)

    return checked


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a type as annotations write it: unions, sequences, dicts, classes."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any or isinstance(kind, TypeVar):
        return True
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in inner)
    if kind in (None, NoneType):
        return value is None
    if kind in (int, float):
        return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    if origin is tuple and Ellipsis not in inner:
        return _is_sequence(value) and len(value) == len(inner) and all(map(fits, value, inner))
    if origin in (Sequence, list, tuple):
        return _is_sequence(value) and all(fits(item, inner[0]) for item in value)
    if origin in (dict, Mapping):
        return isinstance(value, Mapping)
    return isinstance(value, origin or kind) if isinstance(origin or kind, type) else True


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _readable(kind: Any) -> str:
    text = kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)
    for part in ('collections.abc.', 'typing.', 'torch.nn.modules.module.', 'builtins.'):
        text = text.replace(part, '')
    return text.replace('Union[', 'one of [')
