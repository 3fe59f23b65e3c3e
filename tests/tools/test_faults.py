"""Trainings that are killed, whose disk is full, whose checkpoints are damaged, or that diverge.

The processes that end badly are forks of this one, which has everything imported already.
"""

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
import torch

from mmrotate_plugin.engine.runner.work_dir_checkpoints import damage
from mmrotate_plugin.utils import atomic_files, messages

pytest.importorskip('mmrotate')
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork'),
    # worker processes are forks too
    pytest.mark.filterwarnings('ignore:.*multi-threaded.*fork'),
]

# what an interruption could disturb: augmentation in a worker, noise in the model, the order of data, momentum,
# averaged weights, gradients that wait for a step (three iterations per epoch, a step every two), statistics, schedule
EXTRA = """
optim_wrapper = dict(accumulative_counts=2)
custom_hooks = [dict(type='EMAHook', momentum=0.1), dict(type='FaultHook')]
default_hooks = dict(logger=dict(interval=1))
log_processor = dict(window_size=1)
"""


def register_fault_hook():
    """A hook that adds noise, as dropout would, and can do something terrible before the weights change."""
    from mmengine.hooks import Hook
    from mmengine.registry import HOOKS

    class FaultHook(Hook):
        priority = 'VERY_LOW'
        fault = None

        def before_train_iter(self, runner, batch_idx, data_batch=None):  # noqa: ARG002
            runner.model.bbox_head.conv_reg.bias.data += 0.01 * torch.randn(4)
            if FaultHook.fault is not None:
                FaultHook.fault(runner)

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):  # noqa: ARG002
            with (Path(runner.work_dir) / 'losses.txt').open('a') as file:
                file.write(json.dumps([runner.iter + 1, outputs['loss'].item()]) + '\n')

    HOOKS.register_module(module=FaultHook, force=True)
    return FaultHook


@pytest.fixture(scope='module')
def fault_hook():
    return register_fault_hook()


@pytest.fixture(scope='module')
def config(small_config, tmp_path_factory):
    path = tmp_path_factory.mktemp('configs') / 'faults.py'
    path.write_text(f"_base_ = '{small_config}'\n{EXTRA}")
    return path


@pytest.fixture
def start(tool, config, tmp_path, fault_hook):
    """Train in this process; returns the exit status."""

    def run(*options, work_dir=None, config=config):
        fault_hook.fault = None
        return tool('train')([str(config), '--work-dir', str(work_dir or tmp_path), '--pictures', '0', *options])

    return run


@pytest.fixture(scope='module')
def uninterrupted(tool, config, tmp_path_factory, fault_hook):
    """Work directory of the training that nothing happens to."""
    fault_hook.fault = None
    work_dir = tmp_path_factory.mktemp('uninterrupted')
    assert tool('train')([str(config), '--work-dir', str(work_dir), '--seed', '3', '--pictures', '0']) == 0
    assert [step for step, _ in losses(work_dir)] == list(range(1, 10))
    return work_dir


@pytest.fixture
def child(tool, config, tmp_path, fault_hook):
    """Train in a child process with a fault; returns its wait status and what it printed."""

    def run(fault, *options, work_dir=None):
        output = tmp_path / 'child.txt'
        process = os.fork()
        if process == 0:
            status = 99
            try:
                signal.alarm(120)  # a hang ends, and fails the test
                with output.open('w') as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
                    fault_hook.fault = fault
                    arguments = [str(config), '--work-dir', str(work_dir or tmp_path), '--pictures', '0', '--seed', '3']
                    try:
                        status = tool('train')([*arguments, *options])
                    except BaseException:
                        traceback.print_exc()
            finally:
                os._exit(status)
        return os.waitpid(process, 0)[1], output.read_text()

    return run


def losses(work_dir: Path) -> list[tuple[int, float]]:
    """Iterations, from 1 on, and losses, in the order of time."""
    return [json.loads(line) for line in (work_dir / 'losses.txt').read_text().splitlines()]


def assert_equal_to(uninterrupted: Path, work_dir: Path, resumed_after: int) -> None:
    """Losses of the resumed run, weights and averaged weights at the end."""
    expected = losses(uninterrupted)[resumed_after:]
    actual = losses(work_dir)[-len(expected) :]
    assert [step for step, _ in actual] == [step for step, _ in expected]
    assert [loss for _, loss in actual] == pytest.approx([loss for _, loss in expected], abs=1e-5)
    ends = [torch.load(max(d.glob('*_*.pth'), key=os.path.getmtime), weights_only=False)
            for d in (uninterrupted, work_dir)]  # fmt: skip
    for part in ('state_dict', 'ema_state_dict'):
        for key, value in ends[0][part].items():
            torch.testing.assert_close(ends[1][part][key], value, rtol=0, atol=1e-5, msg=f'{part} {key}')


def kill(_):
    os.kill(os.getpid(), signal.SIGKILL)


def at(iteration, fault=kill):
    return lambda runner: fault(runner) if runner.iter == iteration - 1 else None


def kill_amid_writing(name):
    """Killed when half of a checkpoint is on the disk."""

    def prepare(runner):  # noqa: ARG001
        def half(path, mode):
            file = open(path, mode)  # noqa: SIM115 (write_whole closes it)
            if f'.{name}.' not in path.name:
                return file
            write = file.write

            class Half:
                def __enter__(self):
                    return self

                def __exit__(self, *_):
                    raise AssertionError('not killed')

                def write(self, data):
                    write(data[: len(data) // 2])
                    file.flush()
                    kill(None)

            return Half()

        atomic_files.open = half

    return prepare


def killed(status):
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def test_different_seeds_differ(uninterrupted, start, tmp_path, capsys):
    """Else equal losses would mean nothing."""
    assert start('--seed', '4', '--cfg-options', 'train_cfg.max_epochs=1') == 0
    assert abs(losses(tmp_path)[0][1] - losses(uninterrupted)[0][1]) > 1e-3
    capsys.readouterr()


def test_killed_amid_an_epoch(uninterrupted, child, start, tmp_path, capsys):
    status, _ = child(at(5))
    assert killed(status)
    assert [step for step, _ in losses(tmp_path)] == [1, 2, 3, 4]
    assert 'pending_gradients' in torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
    assert start('--resume') == 0  # knows the seed
    assert_equal_to(uninterrupted, tmp_path, resumed_after=3)
    capsys.readouterr()


def test_killed_amid_an_epoch_with_checkpoints_by_iteration(uninterrupted, child, start, tmp_path, capsys):
    options = ['--cfg-options', 'default_hooks.checkpoint.by_epoch=False', 'default_hooks.checkpoint.interval=5']
    status, _ = child(at(7), *options)
    assert killed(status)
    assert start('--resume', *options) == 0
    assert_equal_to(uninterrupted, tmp_path, resumed_after=5)
    capsys.readouterr()


BY_ITERATIONS = """
train_cfg = dict(_delete_=True, by_epoch=False, max_iters=9)
train_dataloader = dict(sampler=dict(_delete_=True, type='InfiniteSampler'))
param_scheduler = None
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=5))
"""


def test_a_loop_by_iterations_goes_on_too(start, config, tmp_path, capsys):
    endless = tmp_path / 'endless.py'
    endless.write_text(f"_base_ = '{config}'\n{BY_ITERATIONS}")
    whole, resumed = tmp_path / 'whole', tmp_path / 'resumed'
    assert start('--seed', '3', work_dir=whole, config=endless) == 0
    assert start('--resume', str(whole / 'iter_5.pth'), work_dir=resumed, config=endless) == 0
    assert [step for step, _ in losses(resumed)] == [6, 7, 8, 9]
    assert_equal_to(whole, resumed, resumed_after=5)
    capsys.readouterr()


@pytest.mark.skipif(not Path('/proc/self/fd').exists(), reason="needs Linux's /proc")
def test_killed_while_a_checkpoint_is_written(uninterrupted, child, start, tmp_path, capsys):
    status, printed = child(at(1, kill_amid_writing('epoch_2.pth')))
    assert killed(status), printed
    (half,) = tmp_path.glob('.epoch_2.pth.*')
    assert 0 < half.stat().st_size < (tmp_path / 'epoch_1.pth').stat().st_size
    assert not (tmp_path / 'epoch_2.pth').exists()
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_1.pth')
    assert start('--resume') == 0
    assert_equal_to(uninterrupted, tmp_path, resumed_after=3)
    assert not half.exists()
    capsys.readouterr()


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(uninterrupted, start, tmp_path, monkeypatch, capsys):
    warnings = []
    monkeypatch.setattr(messages, 'print_log', lambda text, **_: warnings.append(text))
    for name in ('epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth'):
        shutil.copy(uninterrupted / name, tmp_path)
    cut, flipped = tmp_path / 'epoch_3.pth', tmp_path / 'epoch_2.pth'
    cut.write_bytes(cut.read_bytes()[:-5000])
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 255
    flipped.write_bytes(data)
    assert start('--resume') == 0
    assert_equal_to(uninterrupted, tmp_path, resumed_after=3)
    assert f"'{cut}' is not a whole checkpoint" in warnings[0]
    assert f"'{flipped}' is damaged: the checksum of its record" in warnings[1]
    capsys.readouterr()

    for path in tmp_path.glob('epoch_*.pth'):
        path.write_bytes(b'')
    assert start('--resume') == 2
    assert 'none of the 3 checkpoints' in capsys.readouterr().err
    assert start('--resume', str(tmp_path / 'epoch_1.pth')) == 2
    assert '0 bytes that torch.save did not write' in capsys.readouterr().err


def test_another_seed_is_refused(uninterrupted, start, capsys):
    assert start('--resume', str(uninterrupted / 'epoch_1.pth'), '--seed', '4') == 2
    assert 'has the seed 3; leave --seed out' in capsys.readouterr().err


def assert_stopped_by_full_disk(status, printed, work_dir):
    assert os.WEXITSTATUS(status) == 2, printed
    error = printed.strip().splitlines()[-1]
    assert error.startswith('error: the disk is full: a file')
    assert 'epoch_2.pth' in error and f'The last good checkpoint is {work_dir}/epoch_1.pth' in error
    assert (work_dir / 'epoch_1.pth').is_file() and not (work_dir / 'epoch_2.pth').exists()
    assert not list(work_dir.glob('.epoch*'))


def test_no_room_for_a_checkpoint(uninterrupted, child, start, tmp_path, capsys):
    """A limit on the size of files holds for everybody, root too; the system answers as if the disk were full."""

    def limit(runner):  # noqa: ARG001
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    keep_one = ['--cfg-options', 'default_hooks.checkpoint.max_keep_ckpts=1']
    status, printed = child(at(4, limit), *keep_one)
    assert_stopped_by_full_disk(status, printed, tmp_path)
    assert start('--resume', *keep_one) == 0
    assert_equal_to(uninterrupted, tmp_path, resumed_after=3)
    assert [path.name for path in tmp_path.glob('*.pth')] == ['epoch_3.pth']
    capsys.readouterr()


def test_a_disk_that_is_really_full(child, tmp_path, uninterrupted):
    size = (uninterrupted / 'epoch_1.pth').stat().st_size
    disk = tmp_path / 'disk'
    disk.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', f'size={size * 3 // 2}', 'none', str(disk)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip('no right to mount a small disk here')
    try:
        status, printed = child(None, work_dir=disk)
        assert_stopped_by_full_disk(status, printed, disk)
        assert 'No space left on device' in printed
    finally:
        subprocess.run(['umount', '-l', str(disk)], check=True)  # data workers may live a moment longer


def test_divergence_names_iteration_term_and_images(start, tmp_path, capsys):
    options = ['optim_wrapper.optimizer.lr=1e30', 'optim_wrapper.clip_grad=None', 'optim_wrapper.accumulative_counts=1',
               'param_scheduler=None']  # fmt: skip
    assert start('--seed', '3', '--cfg-options', *options) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert 'error: the training diverged: the loss is infinite or not a number in iteration 2: loss_' in error
    assert error.count('synthetic-0-') == 2  # the two images of that batch
    assert 'There is no checkpoint yet' in error
    assert not list(tmp_path.glob('*.pth'))


@pytest.mark.skipif(sys.platform != 'linux', reason='knows the names of files by /proc')
def test_mmengine_alone_would_leave_half_a_checkpoint(child, tmp_path, monkeypatch):
    """Control of the fault: the same training with mmengine's hook loses its checkpoint."""
    from mmengine.fileio import LocalBackend

    def half(self, obj, filepath):  # noqa: ARG001
        with open(filepath, 'wb') as file:
            file.write(obj[: len(obj) // 2])
            if 'epoch_2' in str(filepath):
                file.flush()
                kill(None)
            file.write(obj[len(obj) // 2 :])

    monkeypatch.setattr(LocalBackend, 'put', half)
    status, _ = child(None, '--cfg-options', 'default_hooks.checkpoint.type=mmengine.hooks.CheckpointHook')
    assert killed(status)
    assert 'not a whole checkpoint' in damage(tmp_path / 'epoch_2.pth') and damage(tmp_path / 'epoch_1.pth') is None
