"""The table of the documentation names every operation that has a rule."""

import re
from pathlib import Path

import pytest
import torch

from mmrotate_plugin.adf import functional  # noqa: F401  registers the rules
from mmrotate_plugin.adf.moment_rules import RULES

PAGE = Path(__file__).parents[2] / 'docs' / 'uncertainty.md'
REFUSED = {f'{kind}max_pool{n}d_with_indices' for kind in ('', 'adaptive_') for n in (1, 2, 3)}  # an error says why


def names_in_table() -> set[str]:
    rows = [line for line in PAGE.read_text(encoding='utf-8').splitlines() if line.startswith('| `')]
    return {name for row in rows for name in re.findall(r'`([\w.]+)`', row.split(' | ')[0])}


def plain_name(function) -> str:
    """Without the underscores of in-place and inner variants."""
    return function.__name__.strip('_')


def test_every_rule_is_in_the_table():
    table = {name.rstrip('_') for name in names_in_table()}
    rules = {plain_name(f) for f in RULES if not f.__name__.startswith('__')}
    assert rules - table - REFUSED == set()
    assert len(rules) > 100


@pytest.mark.needs_torch('2.4', 'rms_norm')
def test_the_table_names_no_other_operation():
    rules = {plain_name(f) for f in RULES}
    torch_names = {name for name in names_in_table() if '.' not in name}
    assert {name for name in torch_names if name.rstrip('_') not in rules} == set()
    assert hasattr(torch.Tensor, 'erf') and 'erf' not in rules  # the control: a function of torch without a rule
