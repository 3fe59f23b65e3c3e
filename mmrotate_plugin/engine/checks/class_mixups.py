"""Warn of names that two packages share: which `ReResNet` and which `ReFPN` will a config build?

mmrotate has classes of these names that exchange e2cnn's `GeometricTensor`; ours exchange plain tensors. In mmrotate's
scope the bare name finds mmrotate's. A config that imports this package and writes the bare name there probably means
ours.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

PACKAGE = 'mmrotate_plugin'
OVERRIDE = 'mmrotate_plugin.override_mmrotate'
NAMES = ('ReResNet', 'ReFPN')


def find_mixups(cfg: Mapping[str, Any]) -> list[str]:
    """Warn about bare names that probably find another class than intended.

    Args:
        cfg: A whole config: `model`, `default_scope`, `custom_imports`.

    Returns:
        One or two sentences per finding, none if all is well: the key, what it will build, and both ways out.
    """
    imports = (cfg.get('custom_imports') or {}).get('imports') or []
    imports = [imports] if isinstance(imports, str) else list(imports)
    imported = any(name == PACKAGE or name.startswith(f'{PACKAGE}.') for name in imports)
    overridden = OVERRIDE in imports
    scope = cfg.get('default_scope') or 'mmengine'

    def owner(node: Any, scope: str) -> str:
        """Say 'ours', 'mmrotate', or '' for anything but ReResNet and ReFPN."""
        kind = node.get('type') if isinstance(node, Mapping) else None
        if not isinstance(kind, str):
            return ''
        prefix, _, name = kind.rpartition('.')
        if name not in NAMES:
            return ''
        if prefix == PACKAGE:
            return 'ours'
        if (prefix or node.get('_scope_', scope)) == 'mmrotate':
            return 'ours' if overridden else 'mmrotate'
        return 'ours' if not prefix else ''

    found = []
    for path, node, inner in _dicts(cfg.get('model'), 'model', scope):
        kind = node.get('type')
        if kind in NAMES and imported and owner(node, inner) == 'mmrotate':
            found.append(
                f"{path}: type='{kind}' builds mmrotate's class, not the one of {PACKAGE}, because the scope is "
                f"'mmrotate'. To get ours, write type='{PACKAGE}.{kind}', or add '{OVERRIDE}' to custom_imports.imports"
            )
        if kind == 'RiRoIAlignRotated' and imported and not overridden:
            found.append(
                f"{path}: type='{kind}' builds mmcv's operator, which has no CPU version. Write "
                f"type='{PACKAGE}.{kind}' (any device), or add '{OVERRIDE}' to custom_imports.imports"
            )
        backbone = node.get('backbone')
        if not isinstance(backbone, Mapping) or not _is(backbone, 'ReResNet'):
            continue
        neck = node.get('neck')
        first: Any = neck[0] if isinstance(neck, Sequence) and not isinstance(neck, str) and neck else neck
        who, next_ = owner(backbone, inner), owner(first, inner)
        if who == 'ours' and next_ == 'mmrotate':
            found.append(
                f"{path}.neck: type='{first['type']}' builds mmrotate's class, which takes e2cnn's GeometricTensor, "
                f'but {path}.backbone is the ReResNet of {PACKAGE}, which returns plain tensors. Write '
                f"type='{PACKAGE}.ReFPN' (any other neck for plain tensors works too), "
                f"or add '{OVERRIDE}' to custom_imports.imports"
            )
        elif who == 'mmrotate' and not (next_ == 'mmrotate' and _is(first, 'ReFPN')):
            what = f"type='{first.get('type')}'" if isinstance(first, Mapping) else 'no neck'
            found.append(
                f"{path}.backbone: type='{backbone['type']}' builds mmrotate's ReResNet, which returns e2cnn's "
                f'GeometricTensor; of all necks only its own ReFPN takes that, but {path}.neck has {what}. Write '
                f"type='{PACKAGE}.ReResNet' for the backbone (plain tensors, any neck), "
                f"or add '{OVERRIDE}' to custom_imports.imports"
            )
    return found


def _is(node: Any, name: str) -> bool:
    kind = node.get('type') if isinstance(node, Mapping) else None
    return isinstance(kind, str) and kind.rpartition('.')[2] == name


def _dicts(node: Any, path: str, scope: str) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """Yield all dicts below `node`, with their key path and the scope in which mmengine builds them."""
    if isinstance(node, Mapping):
        scope = node.get('_scope_', scope)
        yield path, node, scope
        for key, value in node.items():
            yield from _dicts(value, f'{path}.{key}', scope)
    elif isinstance(node, Sequence) and not isinstance(node, str):
        for i, value in enumerate(node):
            yield from _dicts(value, f'{path}[{i}]', scope)
