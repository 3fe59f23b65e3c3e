"""How Sphinx builds these pages: Markdown by MyST, the API pages from the docstrings."""

import argparse
import functools
import re
import sys
from pathlib import Path

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import mmrotate_plugin  # noqa: E402

project = 'mmrotate_plugin'
author = 'The mmrotate_plugin contributors'
version = release = mmrotate_plugin.__version__

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon']
source_suffix = {'.md': 'markdown'}
myst_heading_anchors = 4
myst_enable_extensions = ['dollarmath']

autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
autodoc_default_options = {'members': True, 'show-inheritance': True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = ['Shape']
napoleon_use_rtype = False
napoleon_use_ivar = True  # fields of a dataclass are listed once, with what they mean
default_role = 'code'  # `x` in a docstring is a name, as in Markdown

html_theme = 'furo'
html_title = f'mmrotate_plugin {release}'
html_copy_source = False
html_math_renderer = 'mathml'


def mathml(visitor, node: nodes.Node) -> None:
    """Formulas as MathML, which browsers show by themselves; MathJax would be fetched when a page is looked at."""
    block = isinstance(node, nodes.math_block)
    try:
        formula = tex2mathml(node.astext(), as_block=block)
    except MathError as error:
        logging.getLogger(__name__).warning('%s: %s', error, node.astext(), location=node)
        raise nodes.SkipNode from error
    visitor.body.append(f'<div class="math">{formula}</div>' if block else formula)
    raise nodes.SkipNode


def plain(text: str) -> str:
    """Escape what Markdown would read as markup in a line of help; its options become code."""
    parts = re.split(r'(--[a-z][\w-]*)', ' '.join(text.split()))
    return ''.join(f'`{p}`' if p.startswith('--') else re.sub(r'([\\`*_<>|$\[\]#{}])', r'\\\1', p) for p in parts)


def commands() -> str:
    """Write every command and its options, as ``--help`` has them, in Markdown."""
    from mmrotate_plugin_cli.main import make_parser

    lines = []
    for name, parser in make_parser()[1].items():
        parser.formatter_class = functools.partial(argparse.HelpFormatter, width=88)
        formatter = parser._get_formatter()
        lines += [f'## {name}', plain(parser.description), f'```text\n{parser.format_usage().strip()}\n```']
        for group in parser._action_groups:
            actions = [a for a in group._group_actions if a.help != argparse.SUPPRESS]
            if actions:
                lines += [f'**{group.title}**', plain(group.description or '')]
                lines.append('| | |\n|---|---|' + ''.join(
                    f'\n| `{formatter._format_action_invocation(a)}` | {plain(formatter._expand_help(a))} |'
                    for a in actions
                ))  # fmt: skip
        lines += [plain(block) for block in (parser.epilog or '').split('\n\n')]
    return '\n\n'.join(lines)


def add_commands(_, page: str, source: list[str]) -> None:
    if page == 'api/commands':
        source[0] += f'\n{commands()}\n'


def setup(app) -> None:
    app.connect('source-read', add_commands)
    app.add_html_math_renderer('mathml', (mathml, None), (mathml, None))
