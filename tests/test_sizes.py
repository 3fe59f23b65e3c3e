"""A module is read in one go: at most 300 lines, and no class above 200."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LONGEST_MODULE, LONGEST_CLASS = 300, 200
FOLDERS = ('mmrotate_plugin', 'mmrotate_plugin_cli', 'tools')


def too_long(source: str) -> Iterator[tuple[str, int]]:
    """Yield what is too long and its lines: '' for the module, names for classes."""
    lines = len(source.splitlines())
    if lines > LONGEST_MODULE:
        yield '', lines
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            first = min(line.lineno for line in (node, *node.decorator_list))
            lines = (node.end_lineno or first) - first + 1
            if lines > LONGEST_CLASS:
                yield node.name, lines


MODULES = [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob('*.py'))]


def test_no_module_and_no_class_is_too_long():
    found = {}
    for file in MODULES:
        for name, lines in too_long(file.read_text(encoding='utf-8')):
            found[': '.join(filter(None, (file.relative_to(ROOT).as_posix(), name)))] = lines
    assert found == {}


def test_the_modules_are_found():
    assert ROOT / 'mmrotate_plugin' / 'adf' / 'gaussian.py' in MODULES
    assert len(MODULES) > 150


@pytest.mark.parametrize(
    'source, expected',
    [
        ('x = 1\n' * LONGEST_MODULE, []),
        ('x = 1\n' * (LONGEST_MODULE + 1), [('', LONGEST_MODULE + 1)]),
        ('class A:\n' + '    x = 1\n' * (LONGEST_CLASS - 1), []),
        ('class A:\n' + '    x = 1\n' * LONGEST_CLASS, [('A', LONGEST_CLASS + 1)]),
        ('@register\nclass A:\n' + '    x = 1\n' * (LONGEST_CLASS - 1), [('A', LONGEST_CLASS + 1)]),
    ],
)
def test_what_is_too_long_is_found(source, expected):
    assert list(too_long(source)) == expected
