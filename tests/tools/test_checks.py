"""Tools refuse what would give wrong numbers, and a resumed training has the learning rates that it says."""

import logging
from pathlib import Path

import pytest
import torch

from mmrotate_plugin.utils import messages

pytest.importorskip('mmrotate')
pytestmark = pytest.mark.usefixtures('fresh_visualizers')

# schedules of which each value depends on the one before, by iteration and by epoch
CONFIG = """
_base_ = {base!r}
epochs = {epochs}
train_dataloader = dict(num_workers=0, persistent_workers=False)
train_cfg = dict(max_epochs=epochs)
optim_wrapper = dict(optimizer=dict(lr={lr}))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=4),
    dict(type='CosineAnnealingLR', T_max=epochs, eta_min=1e-5, by_epoch=True)]
custom_hooks = [dict(type='RatesHook')]
"""
QUIET = ['--seed', '0', '--pictures', '0']


def write(folder: Path, base: Path, epochs: int, lr: float = 0.002) -> str:
    path = folder / f'{epochs}_{lr}.py'
    path.write_text(CONFIG.format(base=str(base), epochs=epochs, lr=lr))
    return str(path)


@pytest.fixture(autouse=True)
def rates() -> dict[str, dict[int, float]]:
    """Learning rates of the iterations, from 1 on, by the name of the work directory."""
    from mmengine.hooks import Hook
    from mmengine.registry import HOOKS

    found = {}

    class RatesHook(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):  # noqa: ARG002
            rate = runner.optim_wrapper.optimizer.param_groups[0]['lr']
            found.setdefault(Path(runner.work_dir).name, {})[runner.iter + 1] = rate

    HOOKS.register_module(module=RatesHook, force=True)
    return found


@pytest.fixture
def said(monkeypatch) -> list[str]:

    texts = []
    monkeypatch.setattr(messages, 'print_log', lambda text, **_: texts.append(text))
    logging.getLogger('mmengine').setLevel(logging.CRITICAL)
    return texts


def train(tool, config: str, work_dir: Path, *options: str) -> int:
    return tool('train')([config, '--work-dir', str(work_dir), *options, *QUIET])


def test_a_resumed_training_has_the_rates_of_the_schedule_that_rules(tool, small_config, said, rates, tmp_path):
    short, long = write(tmp_path, small_config, 1), write(tmp_path, small_config, 3, lr=0.004)
    assert train(tool, long, tmp_path / 'whole') == 0
    assert train(tool, short, tmp_path / 'first') == 0
    start = str(tmp_path / 'first' / 'epoch_1.pth')
    assert not said
    whole, first = rates['whole'], rates['first']
    assert len(whole) == 9 and len(first) == 3

    assert train(tool, long, tmp_path / 'config', '--resume', start, '--resume-schedule', 'config') == 0
    resumed = rates['config']
    assert list(resumed) == [4, 5, 6, 7, 8, 9]
    assert all(resumed[step] == pytest.approx(whole[step], rel=1e-12) for step in resumed)
    assert len(said) == 1 and "are the config's" in said[0] and 'lr: 0.002 -> 0.004' in said[0]

    said.clear()
    assert train(tool, long, tmp_path / 'checkpoint', '--resume', start) == 0
    resumed = rates['checkpoint']
    assert all(abs(resumed[step] - whole[step]) > 1e-4 for step in resumed)  # the check above can fail
    assert resumed[6] == resumed[9]  # beyond the end of its schedule, as the message says
    assert len(said) == 1 and "the checkpoint's rule, and from epoch 1 on its learning rate stays" in said[0]

    said.clear()  # the config that was written is the one that ruled
    last = str(tmp_path / 'checkpoint' / 'epoch_3.pth')
    meta = torch.load(last, weights_only=False, map_location='cpu')['meta']
    assert 'lr=0.002' in meta['cfg'] and 'T_max=1' in meta['cfg']
    assert meta['run'] == {'batch_size': 2, 'accumulative_counts': 1, 'processes': 1}


def test_a_resumed_training_tells_another_batch_and_refuses_another_optimizer(
    tool, small_config, said, tmp_path, capsys
):
    short = write(tmp_path, small_config, 1)
    assert train(tool, short, tmp_path / 'first') == 0
    start = ['--resume', str(tmp_path / 'first' / 'epoch_1.pth')]
    longer = tmp_path / 'longer.py'
    longer.write_text(
        f'_base_ = {short!r}\ntrain_cfg = dict(max_epochs=2)\ntrain_dataloader = dict(batch_size=3)\n'
        'optim_wrapper = dict(accumulative_counts=2)\n'
    )
    assert train(tool, str(longer), tmp_path / 'second', *start) == 0
    assert any('batch size 2 -> 3, accumulated iterations 1 -> 2, iterations per epoch 3 -> 2' in text for text in said)
    capsys.readouterr()
    adam = tmp_path / 'adam.py'
    adam.write_text(f"_base_ = {short!r}\noptim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=0.1))\n")
    assert train(tool, str(adam), tmp_path / 'third', *start) == 2
    assert 'SGD in the checkpoint, AdamW in the config' in capsys.readouterr().err


def test_accumulation_counts_for_the_scale(tool, small_config, said, rates, tmp_path, capsys):
    config = write(tmp_path, small_config, 1)
    scaled = tmp_path / 'scaled.py'
    scaled.write_text(f'_base_ = {config!r}\nauto_scale_lr = dict(base_batch_size=8)\nparam_scheduler = []\n')
    assert train(tool, str(scaled), tmp_path / 'w', '--auto-scale-lr', '--accumulate', '4') == 0
    assert set(rates['w'].values()) == {0.002}
    assert train(tool, str(scaled), tmp_path / 'x', '--auto-scale-lr') == 0
    assert set(rates['x'].values()) == {0.0005}
    capsys.readouterr()
    without = tmp_path / 'without.py'
    without.write_text(f'_base_ = {config!r}\nauto_scale_lr = None\n')
    assert train(tool, str(without), tmp_path / 'y', '--auto-scale-lr') == 2
    assert 'auto_scale_lr = dict(base_batch_size=...)' in capsys.readouterr().err
    assert not said


def renamed(trained: Path, tmp_path: Path, *names: str) -> str:
    checkpoint = torch.load(trained / 'epoch_1.pth', weights_only=False, map_location='cpu')
    checkpoint['meta']['dataset_meta'] = {'classes': names}
    torch.save(checkpoint, tmp_path / 'renamed.pth')
    return str(tmp_path / 'renamed.pth')


def test_tools_compare_the_classes_of_a_checkpoint(tool, tiny_config, trained, said, tmp_path, capsys):
    other = renamed(trained, tmp_path, 'ship')
    test = [str(tiny_config), other, '--work-dir', str(tmp_path)]
    assert tool('test')(test) == 2
    error = capsys.readouterr().err
    assert "number 0 is 'ship' in the checkpoint and 'plane' in the data set" in error
    assert 'class_renames.ship=plane' in error and error.count('\n') == 1
    assert train(tool, str(tiny_config), tmp_path / 'w', '--resume', other) == 2
    assert 'it was trained for other classes' in capsys.readouterr().err
    assert not [text for text in said if 'trained for' in text]
    assert tool('test')([*test, '--cfg-options', 'class_renames.ship=plane']) == 0
    scene = str(next((trained.parent).rglob('scene0.png')))
    assert not [text for text in said if 'ship' in text]
    picture = str(tmp_path / 'a.png')
    assert tool('image_demo')([scene, str(tiny_config), other, '--out', picture]) == 0
    assert any("the checkpoint's names are used" in text for text in said)


def test_heads_and_misspelt_metrics_are_refused_before_the_first_iteration(tool, tiny_config, tmp_path, capsys):
    config = [str(tiny_config), '--work-dir', str(tmp_path / 'w'), '--seed', '0', '--cfg-options']
    for option, text in (
        (
            'model.bbox_head.num_classes=2',
            'model.bbox_head.num_classes=2, but the data set of train_dataloader has 1 classes',
        ),
        (
            'default_hooks.checkpoint.save_best=mAP',
            "save_best='mAP': the val_evaluator gives dota/mAP, dota/AP50; did you",
        ),
    ):
        assert tool('train')([*config, option]) == 2
        error = capsys.readouterr().err
        assert text in error and error.count('\n') == 1
    assert not list((tmp_path / 'w').glob('*.pth'))


def test_a_test_hints_at_its_limits_once(tool, tiny_config, trained, monkeypatch, tmp_path):
    from mmengine.logging import MMLogger

    said = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, text, *_: said.append(text))  # noqa: ARG005
    args = [str(tiny_config), str(trained / 'epoch_1.pth'), '--work-dir', str(tmp_path)]
    assert tool('test')(args) == 0  # the config keeps 5 of what an untrained detector finds
    (hint,) = [text for text in said if 'max_per_img' in text]
    assert '6 of 6 images have as many detections as model.test_cfg.max_per_img=5' in hint
    assert 'model.test_cfg.nms_pre=20' in hint
    said.clear()
    options = ['model.test_cfg.max_per_img=100000', 'model.test_cfg.nms_pre=100000']
    assert tool('test')([*args, '--cfg-options', *options]) == 0
    assert not [text for text in said if 'max_per_img' in text]
