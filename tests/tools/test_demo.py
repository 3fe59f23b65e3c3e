"""The demo's book-keeping, with stand-ins for the tools that it runs."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from mmengine.config import Config

from mmrotate_plugin.commands._demo_steps import Step, Steps, follow
from mmrotate_plugin.commands.demo import UNCERTAIN
from mmrotate_plugin.utils.errors import CheckFailed
from mmrotate_plugin_cli.demo import CONFIG

STAND_IN = """
import json, os, pathlib, sys, time
name, args = pathlib.Path(__file__).stem, sys.argv[1:]
with open({calls!r}, 'a') as calls:
    calls.write(' '.join([name, *args]) + '\\n')
def after(option):
    folder = pathlib.Path(args[args.index(option) + 1])
    folder.mkdir(parents=True, exist_ok=True)
    return folder
if name == 'make_synthetic':
    print('val: 12 scenes')
    (after('--out') / 'synthetic.json').touch()
elif name == 'train':
    if 'break=1' in args:
        print('11/22 04:36:24 - mmengine - INFO - Checkpoints will be saved')
        sys.exit('Traceback: out of memory')
    folder = after('--work-dir')
    if 'slow=1' in args:
        (folder / 'pid').write_text(str(os.getpid()))
        time.sleep(60)
    print('01/02 03:04:05 - mmengine - INFO - Epoch(train) [1][1/6]  lr: 1.0e-04  eta: 0:00:58  loss: 2.0')
    print('01/02 03:04:05 - mmengine - INFO - Config: much text')
    (folder / 'epoch_1.pth').touch()
    (folder / 'last_checkpoint').write_text('/moved/away/epoch_1.pth')
elif name == 'test':
    if '--show-dir' in args:
        (after('--show-dir') / '0000_a.png').touch()
    else:
        print('01/02 03:04:05 - mmengine - INFO - \\n     cx    cy\\ncoverage_1   0.25   0.683 is right')
        print('01/02 03:04:05 - mmengine - INFO - Epoch(test) [3/3]  dota/mAP: 0.9  uncertainty/pdq: 0.1  time: 1.0')
    score = 0.2 if 'bad=1' in args else 0.87
    metrics = {{'dota/mAP': score, 'uncertainty/coverage_1_all': 0.25, 'uncertainty/spearman_box': None}}
    (after('--work-dir') / 'test_metrics.json').write_text(json.dumps(dict(metrics=metrics)))
elif name == 'calibrate_uncertainty':
    print('Monte Carlo [###...] 13/128, 4 s left', file=sys.stderr)
    print('score  0.98  1.01 (0.55 to 1.73)')
    print('backbone.conv1  32  1.02 to 1.15')
    out = pathlib.Path(args[args.index('--out') + 1])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.touch()
else:
    (after('--out') / 'a.png').touch()
    if '--uncertainty' in args:
        (after('--out') / 'a.heatmap.png').touch()
"""


def step_of(line):
    """Name the step that a call belongs to."""
    tool = line.split()[0]
    if tool == 'make_synthetic':
        return 'noisy' if '--train 0 ' in line else 'data'
    if tool == 'image_demo':
        return 'bands' if '--uncertainty' in line else 'draw'
    if tool == 'test':
        return 'test' if '--show-dir' in line else 'compare'
    return tool


@pytest.fixture
def demo(tool, tmp_path, monkeypatch):
    """`demo(*args)` runs the demo in a project of stand-ins; `demo.calls()` says what it ran since the last time."""
    main = tool('demo')
    root, calls = tmp_path / 'project', tmp_path / 'calls.txt'
    (root / 'tools').mkdir(parents=True)
    (root / 'config.py').write_text('a = 1\n')
    (root / 'uncertain.py').write_text('a = 3\n')
    for name in ('make_synthetic', 'train', 'test', 'image_demo', 'calibrate_uncertainty'):
        (root / 'tools' / f'{name}.py').write_text(STAND_IN.format(calls=str(calls)))
    monkeypatch.setattr('mmrotate_plugin.commands._demo_steps.ROOT', root)

    def run(*args):
        return main(['--work-dir', str(root / 'work'), '--config', 'config.py', *args])

    def ran():
        lines = calls.read_text().splitlines() if calls.exists() else []
        calls.unlink(missing_ok=True)
        return {step_of(line): line for line in lines}

    run.calls, run.root = ran, root
    return run


def test_it_runs_the_tools_and_names_what_to_look_at(demo, capsys):
    assert demo() == 0
    assert demo.calls().keys() == {'data', 'train', 'test', 'draw'}
    out = capsys.readouterr().out
    headings = [line for line in out.split('\n') if line.startswith('[')]
    assert headings == ['[1/4] data', '[2/4] train', '[3/4] test', '[4/4] draw']
    assert 'mAP@0.5 on test scenes that were not trained on: 0.870' in out
    for name in ('test/pictures/0000_a.png', 'drawn/a.png', 'test.log', 'train.log', 'train/epoch_1.pth', 'data'):
        assert f' work/{name}\n' in out and (demo.root / 'work' / name).exists()
    assert 'tools/train.py config.py --work-dir work/train' in out
    assert 'Epoch(train) [1][1/6]  eta: 0:00:58  loss: 2.0\n' in out and 'much text' not in out
    assert 'much text' in (demo.root / 'work/train.log').read_text()


def test_it_ends_with_the_uncertainty(demo, capsys):
    assert demo('--uncertain-config', 'uncertain.py', '--cfg-options', 'model.x=1', 'y=2') == 0
    calls = demo.calls()
    work = 'work/uncertain'
    assert calls['calibrate_uncertainty'] == (
        f'calibrate_uncertainty uncertain.py work/train/epoch_1.pth --noise-std 8 --num-samples 32 '
        f'--out {work}/calibrated.pth --cfg-options model.detector.x=1 y=2'
    )
    test = calls['compare'].split()
    assert test[:3] == ['test', 'uncertain.py', f'{work}/calibrated.pth']
    assert test[5:10] == [
        '--no-report',
        '--cfg-options',
        'model.detector.x=1',
        'y=2',
        'test_dataloader.dataset.noise_std=0,15',
    ]
    assert calls['noisy'].endswith('--noise-std 0 15') and f'--out {work}/scenes' in calls['noisy']
    assert f'image_demo {work}/scenes/val/images uncertain.py {work}/calibrated.pth --uncertainty' in calls['bands']
    order = list(calls)
    for earlier, later in (('train', 'test'), ('data', 'draw'), ('train', 'calibrate_uncertainty')):
        assert order.index(earlier) < order.index(later)
    assert order.index('calibrate_uncertainty') < min(order.index('compare'), order.index('bands'))
    out = capsys.readouterr().out
    for name in ('drawn/a.png', 'drawn/a.heatmap.png', 'calibrated.pth'):
        assert f' {work}/{name}\n' in out
    for line in (
        'Monte Carlo [###...] 13/128',
        'score  0.98  1.01',
        '     cx    cy',
        'coverage_1   0.25',
        '[8/8] bands',
    ):
        assert f'\n{line}' in out
    assert 'backbone.conv1' not in out and 'uncertainty/pdq' not in out
    assert 'truth: 0.250 of the coordinates' in out and 'deviation and error: undefined' in out


@pytest.mark.parametrize('config, uncertain', UNCERTAIN.items())
def test_a_config_and_its_uncertain_one_have_one_detector(config, uncertain):
    assert CONFIG in UNCERTAIN
    source = Path(__file__).resolve().parents[2]
    cfg = Config.fromfile(source / uncertain)
    assert cfg.model.detector == Config.fromfile(source / config).model and cfg.model.noise_std == 'estimate'


def test_another_base_of_the_config_is_trained_anew(demo):
    (demo.root / 'base.py').write_text('b = 1\n')
    (demo.root / 'config.py').write_text("_base_ = './base.py'\n")
    demo()
    (demo.root / 'base.py').write_text('b = 2\n')
    demo.calls()
    demo()
    assert '--resume' not in demo.calls()['train']


def test_a_finished_training_is_not_repeated_without_fresh(demo, capsys):
    demo()
    demo.calls()
    assert demo() == 0
    assert demo.calls().keys() == {'data', 'test', 'draw'}
    assert 'finished before, in work/train' in capsys.readouterr().out
    assert demo('--fresh') == 0
    assert '--resume' not in demo.calls()['train']


def test_another_config_is_trained_anew(demo):
    demo()
    (demo.root / 'config.py').write_text('a = 2\n')
    (demo.root / 'work/train/old.pth').touch()
    demo.calls()
    assert demo() == 0
    assert '--resume' not in demo.calls()['train']
    assert not (demo.root / 'work/train/old.pth').exists()


def test_an_interrupted_training_goes_on(demo):
    demo()
    stamp = demo.root / 'work/demo.json'
    stamp.write_text(json.dumps({**json.loads(stamp.read_text()), 'finished': False}))
    demo.calls()
    assert demo() == 0
    assert '--resume' in demo.calls()['train']


def test_a_failed_step_is_named_with_its_log(demo, capsys):
    assert demo('--cfg-options', 'break=1') == 1
    printed = capsys.readouterr()
    assert 'error: step [2/4] train failed with status 1; its log: work/train.log' in printed.err
    assert 'Traceback: out of memory' in printed.out
    assert demo.calls().keys() <= {'data', 'train'}
    assert demo() == 0  # and the next call is not confused


def test_a_terminated_demo_leaves_nothing_running(demo):
    def stop():
        file = demo.root / 'work/train/pid'
        while not (file.exists() and file.read_text()):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(SystemExit) as status:
        demo('--cfg-options', 'slow=1')
    assert status.value.code == 143
    with pytest.raises(ProcessLookupError):
        os.kill(int((demo.root / 'work/train/pid').read_text()), 0)


@pytest.fixture
def steps(tmp_path, monkeypatch):
    """`steps(cores, name=code, ...)` makes steps of code, in this order, and returns `Steps` and a list of them."""
    (tmp_path / 'tools').mkdir()
    monkeypatch.setattr('mmrotate_plugin.commands._demo_steps.ROOT', tmp_path)
    monkeypatch.setattr('mmrotate_plugin.commands._demo_steps.PATIENCE', 0.1)
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)

    def make(cores, **codes):
        for name, code in codes.items():
            (tmp_path / f'tools/{name}.py').write_text(f'import os, sys, time\n{code}\n')
        some = Steps(tmp_path, sorted(codes))
        some.cores, some.at_once = cores, min(cores, some.at_once)
        return some, [Step(name, [f'{name}.py']) for name in codes]

    return make


# waits until the other one runs too
MEET = (
    "open('{mine}', 'w').close()\n"
    'stop = time.time() + 20\n'
    "while not os.path.exists('{other}'):\n"
    '    time.sleep(.01)\n'
    "    if time.time() > stop: sys.exit('alone')\n"
)


def test_two_steps_run_at_a_time_on_two_cores(steps, capsys):
    one = MEET.format(mine='b', other='a') + "print('train: first')"
    other = MEET.format(mine='a', other='b') + "print('val: ' + os.environ['OMP_NUM_THREADS'])"
    some, two = steps(2, b=one, a=other)
    some.run(two)
    assert set(some.seconds) == {'a', 'b'}
    lines = [line for line in capsys.readouterr().out.split('\n') if line and line[0] != '$']
    assert lines == ['[1/2] a', 'val: 1', '[2/2] b', 'train: first']  # in the order of the names, with half the cores


def test_one_core_runs_one_step(steps):
    alone = "import pathlib\nassert not pathlib.Path('busy').exists()\n"
    busy = "open('busy', 'w').close()\ntime.sleep(.2)\nos.remove('busy')"
    some, three = steps(1, a=alone + busy, b=alone + busy, c=alone + busy)
    some.run(three)
    assert list(some.seconds) == ['a', 'b', 'c']


def test_a_failure_ends_what_runs_beside_it(steps, capsys):
    bad = MEET.format(mine='b', other='a') + "sys.exit('no luck')"
    slow = MEET.format(mine='a', other='b') + "open('pid', 'w').write(str(os.getpid()))\ntime.sleep(60)"
    some, two = steps(2, b=bad, a=slow)
    with pytest.raises(CheckFailed, match=r'\[2/2\] b failed with status 1'):
        some.run(two)
    assert 'no luck' in capsys.readouterr().out
    pid = some.folder / 'pid'
    if pid.exists() and pid.read_text():  # it may have been ended before
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid.read_text()), 0)


def test_a_half_written_line_waits(tmp_path, capsys):
    log = tmp_path / 'log'
    log.write_text('train: 1 scene\nval: 2')
    with log.open() as file:
        follow(file)
        assert capsys.readouterr().out == 'train: 1 scene\n'
        with log.open('a') as more:
            more.write('0 scenes')
        follow(file)
        assert capsys.readouterr().out == ''
        follow(file, to_end=True)
    assert capsys.readouterr().out == 'val: 20 scenes\n'


def test_a_low_map_is_a_failure(demo, capsys):
    assert demo('--cfg-options', 'bad=1') == 1
    assert 'mAP 0.200 is below 0.5' in capsys.readouterr().err


def test_folders_of_somebody_else_are_left_alone(demo, capsys):
    (demo.root / 'work/train').mkdir(parents=True)
    (demo.root / 'work/train/precious.txt').touch()
    assert demo() == 2 and demo('--fresh') == 2
    assert (demo.root / 'work/train/precious.txt').exists() and demo.calls() == {}
    assert 'holds folders that no demo made' in capsys.readouterr().err


def test_wrong_paths_are_one_line(demo, capsys):
    assert demo('--config', 'nowhere.py') == 2
    (demo.root / 'file').touch()
    assert demo('--work-dir', str(demo.root / 'file/x')) == 2
    assert demo('--uncertain-config', 'none.py') == 2
    first, second, third = capsys.readouterr().err.strip().split('\n')
    assert "--uncertain-config 'none.py' does not exist" in third
    assert "'nowhere.py' does not exist" in first and 'file/x' in second
