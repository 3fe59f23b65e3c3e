"""Training in two processes, started by torchrun as users start it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip('mmrotate')
ROOT = Path(__file__).resolve().parents[2]

# three iterations per epoch and a step every two: a checkpoint has to hold gradients that wait
CONFIG = """
_base_ = {base!r}
custom_imports = dict(imports=['mmrotate_plugin', 'keep_weights'], allow_failed_imports=False)
model = dict(backbone=dict(norm_cfg=dict(type='SyncBN')))
train_dataloader = dict(dataset=dict(length=12))
train_cfg = dict(max_epochs=2)
optim_wrapper = dict(accumulative_counts=2, optimizer=dict(lr=0.02))
param_scheduler = None
custom_hooks = [dict(type='KeepWeights')]
"""
HOOK = """
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from yapf.yapflib import yapf_api

yapf_api.FormatCode = lambda text, **_: (text, True)  # as in tests/conftest.py

@HOOKS.register_module()
class KeepWeights(Hook):
    def before_train(self, runner):
        self.keep(runner, 'before')
    def after_train(self, runner):
        self.keep(runner, 'after')
    def keep(self, runner, name):
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        torch.save(model.state_dict(), f'{runner.work_dir}/{name}{get_rank()}.pt')
"""


@pytest.mark.slow
def test_two_processes_equal_one_with_twice_the_batch(tool, small_config, tmp_path, monkeypatch, capsys):
    (tmp_path / 'keep_weights.py').write_text(HOOK)
    config = tmp_path / 'two.py'
    config.write_text(CONFIG.format(base=str(small_config)))

    def options(batch_size):
        return [str(config), '--work-dir', str(tmp_path / f'by{batch_size}'), '--seed', '3', '--pictures', '0',
                '--no-report', '--cfg-options', f'train_dataloader.batch_size={batch_size}']  # fmt: skip

    path = os.pathsep.join([str(ROOT), str(tmp_path)])
    environment = {**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    torchrun = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node=2']
    words = [*torchrun, 'tools/train.py', '--launcher', 'pytorch', *options(2)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    work_dir = tmp_path / 'by2'
    first, second = (torch.load(work_dir / f'after{rank}.pt') for rank in (0, 1))

    monkeypatch.syspath_prepend(str(tmp_path))
    assert tool('train')(options(4)) == 0
    single = torch.load(tmp_path / 'by4/after0.pt')
    capsys.readouterr()

    before = torch.load(work_dir / 'before0.pt')
    moved = {}
    for key, value in single.items():
        assert torch.equal(first[key], second[key]), key
        torch.testing.assert_close(first[key], value, rtol=0, atol=1e-4, msg=key)
        moved[key] = float((value - before[key]).float().abs().max())
    assert max(moved.values()) > 0.01 and moved['backbone.conv1.weight'] > 1e-3
    checkpoint = torch.load(work_dir / 'epoch_1.pth', weights_only=False)
    assert any(gradient.abs().max() > 0 for gradient in checkpoint['pending_gradients'].values())


@pytest.mark.parametrize('name', ['train', 'test'])
def test_a_forgotten_launcher_is_told(name, tool, small_config, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('TORCHELASTIC_RUN_ID', 'none')
    monkeypatch.setenv('WORLD_SIZE', '2')
    checkpoint = tmp_path / 'a.pth'
    torch.save({'state_dict': {'a': torch.zeros(1)}}, checkpoint)
    assert tool(name)([str(small_config), *[str(checkpoint)][: name == 'test'], '--work-dir', str(tmp_path)]) == 2
    assert 'torchrun started 2 processes: add --launcher pytorch' in capsys.readouterr().err
