"""The table of rooms in docs/organisation.md says what the code imports, no more and no less."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / 'mmrotate_plugin'
ROW = re.compile(r'^\| `(?P<room>\w+)(?:/|\.py)` \|[^|]*\| (?P<own>[^|]*)\|(?P<other>[^|]*)\|$', re.MULTILINE)
EVERYTHING = 'everything below'


def rooms(text: str) -> dict[str, tuple[set[str], set[str]]]:
    """Read the table: rooms of the package and other packages that a room imports, from top to bottom."""
    rows = [(row['room'], row['own'], row['other']) for row in ROW.finditer(text)]
    names = [name for name, _, _ in rows]
    table = {}
    for i, (name, own, other) in enumerate(rows):
        below = set(names[i + 1 :]) if EVERYTHING in own else set(re.findall(r'`(\w+)`', own))
        table[name] = (below, set(re.findall(r'\w+', other)))
    return table


def imports(file: Path, root: Path = ROOT) -> set[str]:
    """The modules that a file imports anywhere, by their full names."""
    parts = file.relative_to(root).with_suffix('').parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = '.'.join(parts[: len(parts) - node.level + 1]) if node.level else ''
            base = '.'.join(name for name in (base, node.module) if name)
            found |= {f'{base}.{alias.name}' for alias in node.names} if base == PACKAGE.name else {base}
    return found


def imports_of(room: str) -> tuple[set[str], set[str]]:
    """Rooms and other packages that the files of a room import."""
    files = [PACKAGE / f'{room}.py'] if (PACKAGE / f'{room}.py').exists() else list((PACKAGE / room).rglob('*.py'))
    found = {name for file in files for name in imports(file)}
    own = {name.split('.')[1] for name in found if name.startswith(f'{PACKAGE.name}.')} - {room}
    other = {name.split('.')[0] for name in found} - {PACKAGE.name} - set(sys.stdlib_module_names)
    return own, other


TABLE = rooms((ROOT / 'docs/organisation.md').read_text(encoding='utf-8'))


def test_each_room_has_a_row():
    private = {'__init__', '_dependencies', 'version', 'override_mmrotate'}
    files = {path.stem for path in PACKAGE.glob('*.py')} - private
    folders = {path.parent.name for path in PACKAGE.glob('*/__init__.py')}
    assert set(TABLE) == files | folders


@pytest.mark.parametrize('room', TABLE)
def test_a_row_names_what_its_room_imports(room):
    own, other = imports_of(room)
    may_own, may_other = TABLE[room]
    if room == 'commands':  # may import all below, needs not
        assert own <= may_own and other <= may_other
    else:
        assert (own, other) == (may_own, may_other)


def test_arrows_point_down():
    order = list(TABLE)
    for room, (own, _) in TABLE.items():
        assert all(order.index(name) > order.index(room) for name in own), room


def test_a_wrong_row_would_be_seen(tmp_path):
    text = (
        '| `adf/` | x | `models` | torch |\n| `models/` | x | everything below | torch, mmcv |\n| `utils/` | x | | |\n'
    )
    table = rooms(text)
    assert table == {
        'adf': ({'models'}, {'torch'}), 'models': ({'utils'}, {'torch', 'mmcv'}), 'utils': (set(), set())
    }  # fmt: skip
    assert imports_of('adf') != table['adf']
    file = tmp_path / 'mmrotate_plugin' / 'adf' / 'x.py'
    file.parent.mkdir(parents=True)
    file.write_text('import os.path\nfrom .. import registry\n\ndef f():\n    from ..models.layers import Cfg\n')
    assert imports(file, tmp_path) == {'os.path', 'mmrotate_plugin.registry', 'mmrotate_plugin.models.layers'}
