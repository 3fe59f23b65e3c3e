"""Import names of a package when they are first used, so that importing the package takes less time."""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy_names(package: str, names: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Make the ``__getattr__`` of a package (PEP 562) that imports a name when it is first used.

    Args:
        package: Full name of the package, its ``__name__``.
        names: The names in each module, by its name below the package.
    """
    modules = {name: module for module, group in names.items() for name in group}

    def __getattr__(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f'module {package!r} has no attribute {name!r}')
        value = getattr(import_module(f'{package}.{modules[name]}'), name)
        setattr(sys.modules[package], name, value)
        return value

    return __getattr__
