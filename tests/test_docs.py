"""README and the pages in docs/: the commands that they quote run, the files that they link exist.

Every line ``python tools/NAME.py ...`` or ``mmrotate-plugin NAME ...`` in a fence ```` ```sh ```` is run, in an empty
folder. Lines in a fence ```` ```sh noexec ````, with a placeholder in capitals such as CONFIG, or that a launcher
starts, are only compared with the tool's ``--help``; other tests run those tools. ``make`` is asked for what it would
do (tests/test_setup.py does it), and the extras of ``pip install`` have to exist.
"""

import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('**/*.md'))]
FENCE = re.compile(r'^```sh( noexec)?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
PLACEHOLDER = re.compile(r'[A-Z][A-Z_]+(\.\w+)?')
LINK = re.compile(r'\]\(([^)#\s]+)[^)]*\)')
LARGEST_PICTURE = 200_000  # bytes
LAUNCHERS = ('torchrun ', 'srun ')


class Command(NamedTuple):
    page: str
    words: list[str]  # tools/NAME.py, or mmrotate-plugin and its command, and the arguments
    runs: bool


def find_commands(page: str, text: str) -> list[Command]:
    """Find the lines that run a tool, or ``mmrotate-plugin``, which is checked like one."""
    commands = []
    for noexec, block in FENCE.findall(text):
        for line in block.replace('\\\n', ' ').splitlines():
            if line.startswith(('python tools/', 'mmrotate-plugin ', *LAUNCHERS)):
                words = shlex.split(line.translate(str.maketrans('[]', '  ')) if noexec else line, comments=True)
                start = next(i for i, word in enumerate(words) if word.startswith(('tools/', 'mmrotate-plugin')))
                runs = not noexec and start < 2 and not any(PLACEHOLDER.fullmatch(word) for word in words)
                commands.append(Command(page, words[start:], runs))
    return commands


def run_tool(words: list[str], monkeypatch) -> int:
    """Run a tool as `python` would, in this process; files of the project are found from any folder."""
    tool, *arguments = words
    script = ROOT / ('mmrotate_plugin_cli/__main__.py' if tool == 'mmrotate-plugin' else tool)
    assert script.is_file(), f'there is no {tool}'
    monkeypatch.setattr(sys, 'argv', [tool, *(str(ROOT / a) if (ROOT / a).is_file() else a for a in arguments)])
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join([str(ROOT), *os.environ.get('PYTHONPATH', '').split()]))
    with pytest.raises(SystemExit) as stop:
        if tool == 'mmrotate-plugin':
            runpy.run_module('mmrotate_plugin_cli', run_name='__main__')
        else:
            runpy.run_path(str(script), run_name='__main__')
    return stop.value.code or 0


def check_options(words: list[str], monkeypatch, capsys) -> None:
    command = words[: 2 if words[0] == 'mmrotate-plugin' and not words[1].startswith('-') else 1]
    assert run_tool([*command, '--help'], monkeypatch) == 0
    known = set(re.findall(r'--[\w-]+', capsys.readouterr().out))
    used = {word.partition('=')[0] for word in words if word.startswith('--')}
    assert used <= known, f'{" ".join(command)} has no {", ".join(sorted(used - known))}'


def shell_lines(start: str) -> list[str]:
    """All lines of all pages, in fences of commands, that begin so."""
    blocks = [block for page in PAGES for _, block in FENCE.findall(page.read_text(encoding='utf-8'))]
    return [line for block in blocks for line in block.splitlines() if line.startswith(start)]


COMMANDS = [command for page in PAGES for command in find_commands(page.name, page.read_text(encoding='utf-8'))]


@pytest.mark.parametrize('command', COMMANDS, ids=lambda c: f'{c.page}: {" ".join(c.words)}')
def test_quoted_command_works(command, tmp_path, monkeypatch, capsys):
    pytest.importorskip('mmdet')
    monkeypatch.chdir(tmp_path)
    if not command.runs:
        check_options(command.words, monkeypatch, capsys)
        return
    status = run_tool(command.words, monkeypatch)
    error = capsys.readouterr().err
    if find_spec('mmrotate') is None and 'mmrotate is not installed' in error:
        pytest.skip('the config needs mmrotate, which is not installed')
    assert status == 0, error
    made = {file.name for file in tmp_path.glob('docs/**/*.*')}  # what a command writes there illustrates the page
    page = next(p for p in PAGES if p.name == command.page)
    linked = {Path(link).name for link in LINK.findall(page.read_text(encoding='utf-8'))}
    assert not made or made & linked, f'{page.name} links none of {", ".join(sorted(made))}'


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.name)
def test_linked_files_exist_and_pictures_are_small(page):
    for link in LINK.findall(page.read_text(encoding='utf-8')):
        if '://' in link:
            continue
        file = page.parent / link
        assert file.exists(), f'{page.name} links {link}'
        assert file.suffix not in ('.png', '.jpg', '.svg') or file.stat().st_size < LARGEST_PICTURE, link


def test_there_are_pages_and_commands_to_check():
    assert PAGES and any(command.runs for command in COMMANDS)


def test_make_knows_the_quoted_targets():
    targets = sorted({line.split()[1] for line in shell_lines('make ')})
    assert {'demo', 'docs', 'setup', 'test'} <= set(targets)
    env = {key: value for key, value in os.environ.items() if not key.startswith('MAKE')}
    plan = subprocess.run(['make', '-n', *targets], cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert plan.returncode == 0, plan.stderr
    assert '-m sphinx' in plan.stdout and ' -W ' in plan.stdout
    unknown = subprocess.run(['make', '-n', 'pages'], cwd=ROOT, env=env, capture_output=True, check=False)
    assert unknown.returncode != 0


def test_quoted_extras_exist():
    lines = [line for line in [*shell_lines('pip '), *shell_lines('CFLAGS')] if 'install' in line]
    extras = {name for line in lines for name in re.findall(r"'\.\[(\w+)\]'", line)}
    assert {'onedl', 'openmmlab'} <= extras
    declared = tomllib.loads((ROOT / 'pyproject.toml').read_text(encoding='utf-8'))['project']['optional-dependencies']
    assert extras <= set(declared)


def test_commands_are_told_apart():
    text = """
```sh
python tools/a.py --x 1 \\
    --y 'two words'  # a comment
python tools/b.py CONFIG --out FILE.pkl
make demo
torchrun --nproc-per-node=2 tools/d.py x.py --launcher pytorch
mmrotate-plugin flops x.py
mmrotate-plugin train CONFIG
```
```sh noexec
python tools/c.py [--resume] x.py
```
```python
python tools/d.py
```
"""
    assert find_commands('p', text) == [
        Command('p', ['tools/a.py', '--x', '1', '--y', 'two words'], True),
        Command('p', ['tools/b.py', 'CONFIG', '--out', 'FILE.pkl'], False),
        Command('p', ['tools/d.py', 'x.py', '--launcher', 'pytorch'], False),
        Command('p', ['mmrotate-plugin', 'flops', 'x.py'], True),
        Command('p', ['mmrotate-plugin', 'train', 'CONFIG'], False),
        Command('p', ['tools/c.py', '--resume', 'x.py'], False),
    ]


def test_wrong_commands_would_be_noticed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError, match='no tools/nowhere.py'):
        run_tool(['tools/nowhere.py'], monkeypatch)
    with pytest.raises(AssertionError, match='has no --colour'):
        check_options(['tools/show_basis.py', '--out', 'x', '--colour'], monkeypatch, capsys)
    with pytest.raises(AssertionError, match='mmrotate-plugin flops has no --colour'):
        check_options(['mmrotate-plugin', 'flops', 'CONFIG', '--colour'], monkeypatch, capsys)
    with pytest.raises(AssertionError):
        check_options(['mmrotate-plugin', 'paint', 'CONFIG'], monkeypatch, capsys)
    assert run_tool(['tools/show_basis.py', '--group', 'E8'], monkeypatch) == 2
    assert run_tool(['mmrotate-plugin', 'show-basis', '--group', 'E8'], monkeypatch) == 2
