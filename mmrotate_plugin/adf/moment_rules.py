"""Register moment rules: the tables that say what each function of torch does to a mean and a variance."""

from collections.abc import Callable
from typing import Any, TypeVar

Function = Callable[..., Any]
Rule = TypeVar('Rule', bound=Function)

RULES: dict[Function, Function] = {}  # torch's function or method: its moment rule
PLAIN: dict[Function, Function] = {}  # rules that keep the means of the plain function
MOVES: set[Function] = set()  # functions that only move values, and so need no floor
DELTA: dict[Function, Function] = {}  # rules of first order, for rule='delta'


class NoMomentRule(NotImplementedError):
    """A Gaussian was given to an operation that has no moment rule."""


def moment_rule(*functions: Function, moves: bool = False) -> Callable[[Rule], Rule]:
    """Register a moment rule for functions of torch.

    The rule takes the arguments of the function, with a `Gaussian` in place of a tensor, and returns a `Gaussian` or a
    tuple of them. Register in-place variants too; they return the result and change nothing.

    Args:
        functions: Functions as torch passes them to ``__torch_function__``: ``F.relu``, ``torch.relu``,
            ``Tensor.relu``, ...
        moves: Whether the rule only moves, copies or selects values, so that no variance can fall below the floor.
    """

    def decorator(rule: Rule) -> Rule:
        for function in functions:
            RULES[function] = rule
            if moves:
                MOVES.add(function)
                PLAIN[function] = rule
        return rule

    return decorator


def name_of(function: Function) -> str:
    """Return the name of a function or method of torch, for messages."""
    name = getattr(function, '__name__', repr(function))
    owner = getattr(function, '__objclass__', None)
    if owner is not None:
        return f'Tensor.{name}'
    return f'{function.__module__}.{name}' if getattr(function, '__module__', None) else f'torch.{name}'
