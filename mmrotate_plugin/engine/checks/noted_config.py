"""Read the config that mmengine writes into a checkpoint, without running it.

mmengine's own `Config.fromstring` executes the text, so that a checkpoint from elsewhere could run whatever its author
wrote there. `Config.pretty_text` writes literals and calls of `dict` alone; anything else is not taken.
"""

import ast
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

_NUMBERS = {'inf': float('inf'), 'nan': float('nan')}  # as Python prints them


def noted_config(checkpoint: Mapping[str, Any]) -> Config | None:
    """Return the config that a checkpoint was trained with; None if it is missing or not plain data.

    Args:
        checkpoint: With `meta`, in which mmengine calls it 'cfg', and older versions 'config'.
    """
    text = checkpoint['meta'].get('cfg') or checkpoint['meta'].get('config')
    if not isinstance(text, str):
        return None
    try:
        return Config(read_assignments(text))
    except (SyntaxError, ValueError, TypeError, AttributeError, KeyError, RecursionError, MemoryError):
        return None


def read_assignments(text: str) -> dict[str, Any]:
    """Read the values of lines such as ``model = dict(type='ReResNet', depth=18)``.

    Raises:
        ValueError: If there is anything but literals and calls of `dict`.
    """
    values = {}
    for line in ast.parse(text).body:
        if not isinstance(line, ast.Assign) or len(line.targets) != 1 or not isinstance(line.targets[0], ast.Name):
            raise ValueError(f'line {line.lineno} of the config is no assignment')
        values[line.targets[0].id] = _value(line.value)
    return values


def _value(node: ast.expr | None) -> Any:
    if node is None:  # `**` in a literal dict
        raise ValueError('the config unpacks a dict')
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict':
        found: dict[Any, Any] = {}
        for argument in node.args:
            found.update(_value(argument))
        for keyword in node.keywords:
            value = _value(keyword.value)
            found.update(value if keyword.arg is None else {keyword.arg: value})
        return found
    if isinstance(node, ast.Dict):
        return {_value(key): _value(value) for key, value in zip(node.keys, node.values, strict=True)}
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        kind = {ast.List: list, ast.Tuple: tuple, ast.Set: set}[type(node)]
        return kind(_value(part) for part in node.elts)
    sign, inner = 1, node
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        sign, inner = -1, node.operand
    if isinstance(inner, ast.Name) and inner.id in _NUMBERS:
        return sign * _NUMBERS[inner.id]
    return ast.literal_eval(node)
