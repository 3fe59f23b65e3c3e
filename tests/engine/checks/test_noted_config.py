"""The config in a checkpoint is read as data; mmengine would run it."""

import math
from contextlib import suppress

import pytest
from mmengine.config import Config

from mmrotate_plugin.apis.checkpoint import describe_checkpoint
from mmrotate_plugin.engine.checks.noted_config import noted_config, read_assignments

VALUES = dict(
    model=dict(type='Net', backbone=dict(depth=18, strides=(1, 2), scale=-0.5, group=None, with_cp=True)),
    train_pipeline=[dict(type='Load', keys={3: 'a', 'x y': [1e-3]}), dict(type='Pack')],
    name='it\'s "quoted"\n',
    one=(1,),
)


def noted(text):
    return noted_config({'meta': {'cfg': text}})


@pytest.mark.usefixtures('with_layout')
def test_what_mmengine_writes_is_read_as_it_reads_it():
    text = Config(VALUES).pretty_text
    found = noted(text)
    assert found.to_dict() == Config.fromstring(text, '.py').to_dict() == VALUES
    assert found.model.backbone.strides == (1, 2)
    assert noted('low = -inf').low == -math.inf and math.isnan(noted('n = nan').n)
    assert read_assignments('a = dict(b=1, **{"c d": 2})\ne = dict({1: 2}, f=3)') == {
        'a': {'b': 1, 'c d': 2},
        'e': {1: 2, 'f': 3},
    }


@pytest.mark.parametrize(
    'program',
    [
        'import pathlib\npathlib.Path({file!r}).touch()',
        'a = __import__("pathlib").Path({file!r}).touch()',
        'a = dict(b=open({file!r}, "w"))',
        'a = [open({file!r}, "w") for _ in range(1)]',
    ],
)
def test_programs_are_not_run(program, tmp_path):
    text = program.format(file=str(tmp_path / 'ran'))
    checkpoint = {'meta': {'cfg': text}, 'state_dict': {'backbone.conv1.weight': 0}}
    assert noted_config(checkpoint) is None
    assert describe_checkpoint(checkpoint) == 'a model with the parts backbone (1 weights)'
    assert not list(tmp_path.iterdir())
    with suppress(Exception):  # it cannot keep what the program made; some mmengines refuse to import before they run
        Config.fromstring(text, '.py')
    if not list(tmp_path.iterdir()):
        exec(text, {})
    assert list(tmp_path.iterdir())  # so the check can fail


@pytest.mark.parametrize('text', [None, 7, '', 'a = ', 'a = b', 'a.b = 1', 'a = dict(1)', '(' * 5000])
def test_other_texts_are_no_configs(text):
    assert not noted(text)
