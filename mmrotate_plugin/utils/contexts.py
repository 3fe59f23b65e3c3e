"""Change attributes of objects for the length of a `with` block."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any


@contextmanager
def temporary_attributes(owner: object, **values: Any) -> Iterator[None]:
    """Set attributes of an object, class or module; restore them on leaving, also by an exception.

    An attribute that the owner inherits, such as a method or a default of its class, is deleted again afterwards, so
    that changes of the class reach the owner as before.

    Args:
        owner: Has all these attributes.
        values: New values by name.

    Raises:
        AttributeError: If `owner` lacks one of them; those before it are restored.
    """
    with ExitStack() as stack:
        for name, value in values.items():
            before, own = getattr(owner, name), _is_own(owner, name)
            setattr(owner, name, value)
            stack.callback(_restore, owner, name, before, own)
        yield


def _restore(owner: object, name: str, before: Any, own: bool) -> None:
    if own or not _is_own(owner, name):  # the latter: a property or a slot keeps it elsewhere
        setattr(owner, name, before)
    else:
        delattr(owner, name)


def _is_own(owner: object, name: str) -> bool:
    return name in getattr(owner, '__dict__', ())
