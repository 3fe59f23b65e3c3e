"""The command `mmrotate-plugin`: its help, the options that commands share, and what a call imports."""

import argparse
import re
import shutil
import subprocess
import sys
from importlib import import_module, util
from pathlib import Path

import pytest

from mmrotate_plugin_cli import (
    benchmark,
    check_equivariance,
    convert_dataset,
    evaluate_uncertainty,
    export,
    predict,
    show_basis,
    split_dataset,
)
from mmrotate_plugin_cli.main import TABLE, main, make_parser

ROOT = Path(__file__).resolve().parents[2]
TOOLS = {
    'train': 'train',
    'test': 'test',
    'predict': 'image_demo',
    'calibrate': 'calibrate_uncertainty',
    'evaluate-angles': 'evaluate_angles',
    'evaluate-uncertainty': 'evaluate_uncertainty',
    'check-equivariance': 'check_equivariance',
    'export': 'export',
    'benchmark': 'benchmark',
    'flops': 'get_flops',
    'convert-weights': 'convert_weights',
    'init': 'init',
    'browse-dataset': 'browse_dataset',
    'convert-dataset': 'convert_dataset',
    'split-dataset': 'split_dataset',
    'merge-predictions': 'merge_predictions',
    'report': 'report',
    'make-synthetic': 'make_synthetic',
    'show-basis': 'show_basis',
    'demo': 'demo',
}
HEAVY = ('torch', 'mmengine', 'mmcv', 'mmdet', 'numpy', 'cv2', 'mmrotate_plugin', 'shtab')
HAS_OUT = ('flops', 'convert-weights', 'convert-dataset', 'split-dataset', 'merge-predictions')  # or needs none
READS_CONFIG = set(TABLE) - {*HAS_OUT[1:], 'init', 'report', 'make-synthetic'}
READS_CHECKPOINT = READS_CONFIG - {'flops', 'demo', 'browse-dataset'} | {'convert-weights'}
HAS_DEVICE = {
    'init',
    'predict',
    'calibrate',
    'evaluate-angles',
    'evaluate-uncertainty',
    'check-equivariance',
    'benchmark',
}
HAS_SEED = {'train', 'browse-dataset', 'calibrate', 'evaluate-uncertainty', 'make-synthetic', 'show-basis'}


def status_of(words):
    with pytest.raises(SystemExit) as stop:
        main(words)
    return stop.value.code or 0


def actions(name):
    return {option: action for action in make_parser()[1][name]._actions for option in action.option_strings}


# the first heavy import is written down, and ends the process: to carry it out would take seconds
WATCH = f"""
import sys
class Watch:
    def find_spec(self, name, *_):
        if name in {HEAVY}:
            print('imports', name)
            sys.exit()
sys.meta_path.insert(0, Watch())
"""


def first_import(code):
    """Name of the heavy package that some code imports first, in a process of its own; '' if it imports none."""
    done = subprocess.run([sys.executable, '-c', WATCH + code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert 'Traceback' not in done.stderr, done.stderr
    return done.stdout.splitlines()[-1].removeprefix('imports ') if 'imports ' in done.stdout else ''


def test_all_commands_are_listed(capsys):
    assert status_of(['--help']) == 0
    out = capsys.readouterr().out
    assert set(TABLE) == set(TOOLS)
    for name, command in TABLE.items():
        assert re.search(rf'^    {name}\b', out, re.MULTILINE) and command.HELP.split()[0] in out
        assert command.HELP[0].islower() and not command.HELP.endswith('.') and command.DESCRIPTION.endswith('.')


@pytest.mark.parametrize('name', TABLE)
def test_help_describes_every_option(name, capsys):
    assert status_of([name, '--help']) == 0
    out = capsys.readouterr().out
    assert out.startswith(f'usage: mmrotate-plugin {name} ')
    for action in make_parser()[1][name]._actions:
        assert action.help is not None and action.help[0] != ' '
        assert len(action.help.split()) > 1, action.option_strings


@pytest.mark.parametrize('name', TABLE)
def test_options_that_commands_share(name):
    options = actions(name)
    assert ('--cfg-options' in options) == (name in READS_CONFIG)
    assert ('--unsafe-checkpoint' in options) == (name in READS_CHECKPOINT)
    assert ('--device' in options) == (name in HAS_DEVICE)
    assert ('--seed' in options) == (name in HAS_SEED)
    assert ('--launcher' in options) == ('--local_rank' in options) == (name in ('train', 'test'))
    assert '--work-dir' in options or '--out' in options or name in HAS_OUT


def test_a_shared_option_is_the_same_everywhere():
    for option in ('--cfg-options', '--unsafe-checkpoint', '--launcher'):
        found = {vars(actions(name)[option])['help'] for name in TABLE if option in actions(name)}
        assert len(found) == 1
    files = [file for file in (ROOT / 'mmrotate_plugin_cli').glob('*.py') if file.stem != 'options']
    assert not any("'--cfg-options'," in file.read_text() for file in files)


def test_configs_and_checkpoints_bring_their_options():
    """No command reads a config or a checkpoint without the options that belong to it."""
    for name, parser in make_parser()[1].items():
        names = {action.dest for action in parser._actions}
        assert bool({'config', 'detector'} & names) == ('cfg_options' in names), name
        assert not {'checkpoint', 'checkpoints', 'input'} & names or 'unsafe_checkpoint' in names, name


@pytest.mark.parametrize('words', ['["--help"]', '["train", "--help"]', '["--version"]', '["trian"]', '["test"]'])
def test_a_call_that_runs_nothing_imports_nothing(words):
    assert first_import(f'from mmrotate_plugin_cli.main import main; main({words})') == ''


def test_what_a_run_imports_would_be_seen():
    run = 'from mmrotate_plugin_cli.main import main; main(["test", "no.py", "no.pth"])'
    assert first_import(run) == 'mmrotate_plugin'
    assert first_import('import torch') == 'torch'


def test_version(capsys):
    from mmrotate_plugin import __version__

    assert status_of(['--version']) == 0
    assert capsys.readouterr().out == f'mmrotate-plugin {__version__}\n'


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        (['trian', 'x.py'], "unknown command 'trian'; did you mean 'train'?"),
        (['xyz'], "unknown command 'xyz'; commands: train, test, predict"),
        ([], 'the following arguments are required: COMMAND'),
        (['train'], 'the following arguments are required: config'),
        (['--print-completion', 'dos'], "invalid choice: 'dos'"),
    ],
)
def test_wrong_commands_end_with_status_two(words, said, capsys):
    assert status_of(words) == 2
    assert said in capsys.readouterr().err


def test_a_command_runs(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / 'basis'
    words = ['show-basis', '--group', 'C4', '--kernel-size', '3', '--in-channels', '8', '--out-channels', '8']
    assert main([*words, '--out', str(out)]) == 0
    assert list(out.glob('*.png')) and 'coefficients' in capsys.readouterr().out
    assert main(['test', 'nowhere.py', 'nowhere.pth']) == 2
    assert capsys.readouterr().err == "error: config 'nowhere.py' does not exist\n"


def test_the_module_is_the_command():
    words = [sys.executable, '-m', 'mmrotate_plugin_cli', 'flops', '--help']
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.startswith('usage: mmrotate-plugin flops ')


@pytest.mark.parametrize('shell', ['bash', 'zsh', 'tcsh'])
def test_completion(shell, capsys, tmp_path):
    pytest.importorskip('shtab')
    assert status_of(['--print-completion', shell]) == 0
    script = capsys.readouterr().out
    for word in ('check-equivariance', '--unsafe-checkpoint', 'monte_carlo'):
        assert word.removeprefix('--' if shell == 'tcsh' else '') in script
    if shell == 'bash' and shutil.which('bash'):
        (tmp_path / 'completion').write_text(script)
        subprocess.run(['bash', '-n', str(tmp_path / 'completion')], check=True)
        cut = script[: script.rindex('}')]
        assert subprocess.run(['bash', '-n'], input=cut, text=True, capture_output=True, check=False).returncode != 0


def test_completion_without_shtab(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'shtab', None)
    assert status_of(['--print-completion', 'bash']) == 2
    assert 'needs shtab: pip install shtab' in capsys.readouterr().err


# ---- tools/*.py


def test_tools_are_thin():
    files = sorted((ROOT / 'tools').glob('*.py'))
    assert {file.stem for file in files} == set(TOOLS.values())
    lines = {file.name: len(file.read_text().splitlines()) for file in files}
    assert max(lines.values()) < 16 and sum(lines.values()) < 400


@pytest.mark.parametrize('name', TOOLS)
def test_a_tool_runs_its_command(name, monkeypatch, capsys):
    spec = util.spec_from_file_location(f'tool_{TOOLS[name]}', ROOT / 'tools' / f'{TOOLS[name]}.py')
    script = util.module_from_spec(spec)
    spec.loader.exec_module(script)
    with pytest.raises(SystemExit) as stop:
        script.main(['--help'])
    assert not stop.value.code
    ours = capsys.readouterr().out
    assert ours.startswith(f'usage: {TOOLS[name]}.py ')
    status_of([name, '--help'])
    theirs = capsys.readouterr().out
    both = [text[text.index('\n\n') :] for text in (ours, theirs)]  # after the usage
    assert both[0] == both[1]

    ran = []
    monkeypatch.setattr('mmrotate_plugin.commands.run', lambda which, args: ran.append((which, args)) or 7)
    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', lambda *_: argparse.Namespace())
    monkeypatch.delattr(TABLE[name], 'check', raising=False)
    assert script.main([]) == 7 and ran == [(name.replace('-', '_'), argparse.Namespace())]


@pytest.mark.parametrize('name', TABLE)
def test_each_command_has_its_function(name):
    module = import_module(f'mmrotate_plugin.commands.{name.replace("-", "_")}')
    assert callable(getattr(module, name.replace('-', '_')))


# ---- constants that the command line cannot import


def test_choices_are_those_of_the_package():
    from mmrotate_plugin.apis import equivariance_check, prediction_files
    from mmrotate_plugin.apis.benchmark import contestants
    from mmrotate_plugin.commands import export as export_command
    from mmrotate_plugin.commands import show_basis as show_basis_command
    from mmrotate_plugin.datasets.formats import coco_boxes, convert, recognise, writers
    from mmrotate_plugin.datasets.patches import patch_file
    from mmrotate_plugin.datasets.transforms.corruptions import Corruption
    from mmrotate_plugin.models import ResNet
    from mmrotate_plugin.models.detectors import uncertain_detector

    assert predict.METHODS == uncertain_detector.METHODS
    assert predict.KINDS == prediction_files.KINDS
    assert benchmark.MEASURES == contestants.MEASURES
    assert check_equivariance.SIZE == equivariance_check.SIZE
    assert export.FORMATS == export_command.FORMATS
    assert tuple(recognise.FORMATS) == convert_dataset.READ and tuple(writers.WRITERS) == convert_dataset.WRITTEN
    assert convert_dataset.IMAGES == convert.IMAGES and tuple(coco_boxes.ANGLES) == convert_dataset.ANGLES
    assert {f'.{ending}' for ending in split_dataset.ENDINGS} == set(patch_file.ENDINGS)
    assert show_basis.DEFAULT_LAYER == show_basis_command.DEFAULT_LAYER
    assert all(Corruption.parse(text) for text in evaluate_uncertainty.CORRUPTIONS)
    for depth in benchmark.DEPTHS:
        ResNet(depth, base_channels=8)
    for values in (benchmark.FULL, benchmark.QUICK):
        for network in values['networks'].split(','):
            assert not isinstance(contestants.find(network, values['depth'], values['base_channels']), str)


def test_a_missing_package_is_one_line():
    code = "import sys; sys.modules['mmcv'] = None; from mmrotate_plugin_cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, '-c', code, 'train', 'x.py'], cwd=ROOT, capture_output=True, text=True, check=False
    )
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith('error: mmrotate_plugin needs mmcv, which cannot be found.')
