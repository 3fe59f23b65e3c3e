"""The pages build without a warning, the code of the how-to pages runs, and quoted messages are those of the code."""

import ast
import contextlib
import html
import os
import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import DefaultScope

from mmrotate_plugin.adf.moment_rules import MOVES, PLAIN, RULES
from mmrotate_plugin.models import ReResNet
from mmrotate_plugin.registry import MODELS
from mmrotate_plugin_cli.main import make_parser

ROOT = Path(__file__).parents[1]
DOCS = ROOT / 'docs'
PYTHON = re.compile(r'^```python\n(.*?)^```$', re.MULTILINE | re.DOTALL)
# blocks of other pages are parts of configs, or of a program
RUNS = ('add-a-group', 'add-a-layer', 'add-a-moment-rule', 'equivariant-layers')
MESSAGE = re.compile(r'^### `(.+)`$', re.MULTILINE)
FOREIGN = '## From other packages'  # messages below it are not ours
FEWEST_BYTES = 5000  # of an API page; one without its classes has less


def build(source: Path, out: Path) -> str:
    """Build a site as `make docs` does; what Sphinx has to say against it.

    In a fork of this process, which has imported the package already.
    """
    said = out.with_name(f'{out.name}.txt')
    process = os.fork()
    if process == 0:
        status = 99
        try:
            with said.open('w') as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
                from sphinx.cmd.build import main

                status = main(['-W', '--keep-going', '-q', '-b', 'html', str(source), str(out)])
        finally:
            os._exit(status)
    status = os.waitpid(process, 0)[1]
    text = said.read_text()
    assert (status == 0) is not bool(text), text
    return text


needs_sphinx = pytest.mark.skipif(
    None in map(find_spec, ('sphinx', 'myst_parser', 'furo')) or not hasattr(os, 'fork'),
    reason="needs fork and Sphinx: pip install '.[docs]'",
)


@pytest.mark.slow
@needs_sphinx
def test_pages_build_without_a_warning(tmp_path):
    assert build(DOCS, tmp_path / 'site') == ''
    pages = [page.relative_to(DOCS).with_suffix('.html') for page in DOCS.rglob('*.md')]
    assert [page for page in pages if not (tmp_path / 'site' / page).is_file()] == []
    for name, needle in {'equivariant': 'ennConv', 'adf': 'moment_rule', 'models': 'UncertainDetector'}.items():
        text = (tmp_path / 'site/api' / f'{name}.html').read_text(encoding='utf-8')
        assert f'mmrotate_plugin.{name}' in text and needle in text and len(text) > FEWEST_BYTES
    page = html.unescape(re.sub('<[^>]+>', '', (tmp_path / 'site/api/commands.html').read_text(encoding='utf-8')))
    for name, parser in make_parser()[1].items():
        options = [option for action in parser._actions for option in action.option_strings]
        assert [word for word in (f'usage: mmrotate-plugin {name} ', *options) if word not in page] == []
    assert 'paint' not in page and '--colour' not in page and '\\' not in page
    assert 'work_dir of the config, or work_dirs/<config>)' in page  # not taken for markup


@needs_sphinx
def test_a_broken_link_and_a_page_that_nothing_leads_to_are_warnings(tmp_path):
    source = tmp_path / 'docs'
    source.mkdir()
    shutil.copy(DOCS / 'conf.py', source)
    (source / 'index.md').write_text('# Title\n\n[there](nowhere.md)\n')
    (source / 'lost.md').write_text('# Lost\n')
    found = build(source, tmp_path / 'out')
    assert 'nowhere.md' in found and "isn't included in any toctree" in found


@pytest.fixture
def registries_as_before():
    """What a page registers is there for the page alone."""
    kept = [(held, dict(held)) for held in (RULES, PLAIN, ROOT_MODELS.module_dict, MODELS.module_dict)]
    moves = set(MOVES)
    yield
    for held, before in kept:
        held.clear()
        held.update(before)
    MOVES.intersection_update(moves)


@pytest.mark.usefixtures('registries_as_before')
@pytest.mark.parametrize('page', RUNS)
def test_the_code_of_a_page_runs(page):
    blocks = PYTHON.findall((DOCS / f'{page}.md').read_text(encoding='utf-8'))
    assert any('assert' in block for block in blocks)
    code = '\n'.join(blocks)
    exec(compile(code, f'{page}.md', 'exec'), {'__name__': page})


@pytest.mark.parametrize('page', [ROOT / 'README.md', DOCS / 'swap-a-backbone.md'], ids=lambda p: p.name)
def test_the_config_of_a_page_builds_its_detector(page, tmp_path):
    pytest.importorskip('mmrotate')
    from mmrotate.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    (config,) = (block for block in PYTHON.findall(page.read_text(encoding='utf-8')) if block.startswith('_base_ = '))
    (tmp_path / 'config.py').write_text(config)
    with DefaultScope.overwrite_default_scope('mmrotate'):
        detector = ROOT_MODELS.build(Config.fromfile(tmp_path / 'config.py').model)
    assert type(detector.backbone) is ReResNet


@pytest.mark.parametrize('page', [ROOT / 'README.md', *sorted(DOCS.glob('*.md'))], ids=lambda p: p.name)
def test_all_python_on_a_page_is_python(page):
    for block in PYTHON.findall(page.read_text(encoding='utf-8')):
        ast.parse(block)


def literals() -> str:
    """All text between the quotes of the package and its tools, one literal per line; {} for what is put in."""
    found = []
    for file in [*ROOT.glob('mmrotate_plugin*/**/*.py'), *(ROOT / 'tools').rglob('*.py')]:
        for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else '{}' for part in node.values]
                found.append(''.join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return '\n'.join([*found, (ROOT / 'tools/setup.sh').read_text(encoding='utf-8')])


def test_messages_of_the_troubleshooting_page_are_those_of_the_code():
    ours, foreign = (DOCS / 'troubleshooting.md').read_text(encoding='utf-8').split(FOREIGN)
    quoted, said = MESSAGE.findall(ours), literals()
    assert len(quoted) > 25 and MESSAGE.findall(foreign)
    assert [message for message in quoted if message not in said] == []
    assert 'does not hold whole irregular fields of group' not in said
