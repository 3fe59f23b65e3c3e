"""Modules with no mmdet/mmrotate counterpart, written as standalone files next to the exported config."""

import ast
import inspect
from collections.abc import Iterator
from importlib import import_module

# their names in the exported config; the mends have none, importing them is enough
RESIZE, ROI_ALIGN, MENDS = 'ExportedSymmetricResize', 'ExportedRiRoIAlignRotated', 'ExportedHostMends'
LOADER, PREPROCESSOR = 'ExportedLoadImageFromFile', 'ExportedDetDataPreprocessor'
_WAY_BACK = ('structures.stretch', 'structures.centred_scale', 'hosts.mends')
# name: its file without .py, the modules that go into it, the registry of the class in the last of them
PARTS = {
    RESIZE: ('exported_symmetric_resize', (*_WAY_BACK, 'datasets.transforms.symmetric_resize'), 'TRANSFORMS'),
    MENDS: ('exported_host_mends', _WAY_BACK, None),
    ROI_ALIGN: ('exported_ri_roi_align', ('models.roi_heads.ri_roi_align',), 'MODELS'),
    LOADER: (
        'exported_load_image',
        ('utils.errors', 'datasets.utils.image_headers', 'datasets.transforms.loading'),
        'TRANSFORMS',
    ),
    PREPROCESSOR: ('exported_data_preprocessor', ('models.data_preprocessors.det_data_preprocessor',), 'MODELS'),
}
# a line of the config; mmengine puts the config's folder there when it reads it. It reads a config with an import
# statement in another way
FIND = "__import__('sys').path.append('{{ fileDirname }}')  # for the files next to this one\n"
LOOKED_UP = """

from mmcv import ops  # noqa: E402  where RoI extractors look up their layers

ops.ExportedRiRoIAlignRotated = RiRoIAlignRotated
"""


def part_files(names: set[str]) -> dict[str, str]:
    """Write the texts of standalone modules; each needs mmcv, mmengine, torch and numpy alone.

    Args:
        names: Keys of `PARTS`.

    Returns:
        Texts by the names of the modules.

    Raises:
        RuntimeError: If a module needs more of this package than its file holds.
    """
    return {PARTS[name][0]: _text(name) for name in sorted(names)}


def _text(name: str) -> str:
    """Join modules to one file, in which the last one's class is registered under the name of the part."""
    _, modules, registry = PARTS[name]
    decorator = f"@{registry}.register_module(name='{name}', force=True)\n"
    known: set[str] = set()
    texts, registered = [], 0
    for module in modules:
        source = inspect.getsource(import_module(f'..{module}', __package__))
        tree = ast.parse(source)
        if twice := known & (defined := set(_defined(tree))):
            raise RuntimeError(f'{module} defines {twice} a second time in the file of {name}')
        imports, registries = _own_imports(tree, module, known)
        decorators = [d for c in tree.body if isinstance(c, ast.ClassDef) for d in c.decorator_list]
        decorators = [node for node in decorators if registries & {*_names_in(node)}]
        line = f'from mmengine.registry import {registry}\n' if decorators else ''
        changes: list[tuple[ast.stmt | ast.expr, str]] = [(node, decorator) for node in decorators]
        changes += [(node, line if node.module == 'registry' else '') for node in imports]
        texts.append(_replaced(source, changes))
        known |= defined
        registered += len(decorators)
    if registered != (registry is not None):
        raise RuntimeError(
            f'{modules} register {registered} classes, where {name} needs one with a registry, else none'
        )
    return '\n\n'.join(texts) + (LOOKED_UP if name == ROI_ALIGN else '')


def _own_imports(tree: ast.Module, module: str, known: set[str]) -> tuple[list[ast.ImportFrom], set[str]]:
    """Find the imports from this package, and the names of them that come from its registry."""
    imports, registries = [], set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            names = {alias.name if alias.asname is None else f'{alias.name} as {alias.asname}' for alias in node.names}
            if node.module == 'registry':
                registries |= names
            elif names - known or node not in tree.body:
                raise RuntimeError(f'{module} imports {names} of this package, which its standalone file lacks')
            imports.append(node)
    return imports, registries


def _replaced(source: str, changes: list[tuple[ast.stmt | ast.expr, str]]) -> str:
    """Put other text in place of the lines of some nodes."""
    lines = source.splitlines(keepends=True)
    for node, text in changes:
        count = (node.end_lineno or node.lineno) - node.lineno + 1
        lines[node.lineno - 1 : node.lineno - 1 + count] = [text] + [''] * (count - 1)
    return ''.join(lines)


def _defined(tree: ast.Module) -> Iterator[str]:
    """Name the functions, classes and variables at the top of a module."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                yield from _names_in(target)


def _names_in(expression: ast.expr) -> Iterator[str]:
    return (node.id for node in ast.walk(expression) if isinstance(node, ast.Name))
