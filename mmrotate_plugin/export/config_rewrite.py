"""Going through a config: which of its dicts name classes of this package, and putting others in their place."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mmengine.registry as roots
from mmengine.registry import Registry

from .. import registry as own

PACKAGE = __name__.partition('.')[0]
DROP = object()  # what a rule returns for a dict that has to go

Path = tuple[str, ...]
Rule = Callable[[dict[str, Any], Path], Any]


class Unsupported(ValueError):
    """A part of the detector that mmdet and mmrotate cannot express; the message names it and says what would do."""


def our_class(cfg: Mapping[str, Any], kinds: Sequence[str], key: str = 'type') -> type | None:
    """The class of this package that a dict of a config names, None if it names none.

    Args:
        cfg: With the name, or the class itself, under `key`. Bare names mean what they mean in the default scope.
        kinds: Names of registries to look in: 'MODELS', 'TRANSFORMS', ...
    """
    name = cfg.get(key)
    if isinstance(name, type):
        return name if _is_ours(name) else None
    if not isinstance(name, str) or name.rpartition('.')[2] not in _names():
        return None
    for kind in kinds:
        root: Registry = getattr(roots, kind)
        with warnings.catch_warnings(), root.switch_scope_and_registry(cfg.get('_scope_')) as registry:
            warnings.simplefilter('ignore')  # a scope that is not installed
            found = registry.get(name)
        if found is not None:
            return found if _is_ours(found) else None
    return None


def rewrite(value: Any, rule: Rule, path: Path = ()) -> Any:
    """A copy in plain dicts, lists and tuples, where the rule has seen each dict before those within it.

    Args:
        value: A config or a part of it.
        rule: Takes a dict and the keys that lead to it; returns it or what is to be in its place.
    """
    if isinstance(value, Mapping):
        changed = rule(dict(value), path)
        if not isinstance(changed, Mapping):
            return changed
        items = ((key, rewrite(item, rule, (*path, str(key)))) for key, item in changed.items())
        return {key: item for key, item in items if item is not DROP}
    if isinstance(value, (list, tuple)):
        items = (rewrite(item, rule, (*path, str(i))) for i, item in enumerate(value))
        return type(value)(item for item in items if item is not DROP)
    return value


def _is_ours(found: type) -> bool:
    return found.__module__.partition('.')[0] == PACKAGE


def _names() -> set[str]:
    """All names that this package registers; the rest need not be looked up."""
    registries = (own.MODELS, own.DATASETS, own.TRANSFORMS, own.HOOKS, own.METRICS, own.OPTIM_WRAPPERS)
    return {*own.HOSTED, *(name for registry in registries for name in registry.module_dict)}
