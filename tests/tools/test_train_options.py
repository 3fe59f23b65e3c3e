"""Accumulation, mixed precision, averaged weights and frozen stages, with both backbones at once."""

import pytest
import torch

pytest.importorskip('mmrotate')

MOMENTUM = 0.3
CONFIG = """
_base_ = {base!r}
model = dict(backbone={backbone})
train_dataloader = dict(num_workers=0, persistent_workers=False)
train_cfg = dict(max_epochs=2)
param_scheduler = None
optim_wrapper = dict(optimizer=dict(lr=0.02))
custom_hooks = [dict(type='EMAHook', momentum={momentum}), dict(type='RecordHook')]
"""
BACKBONES = {
    're': dict(frozen_stages=1),
    'adf': dict(_delete_=True, type='mmrotate_plugin.ADFResNet', depth=18, base_channels=8, num_stages=2,
                strides=(1, 2), dilations=(1, 1), out_indices=(0, 1), frozen_stages=1, norm_eval=False, noise_std=8.0,
                std=[58.395, 57.12, 57.375]),
}  # fmt: skip


@pytest.fixture
def record():
    """Copies of the weights before the training and after each iteration, and the type of the maps."""
    from mmengine.hooks import Hook
    from mmengine.registry import HOOKS

    states, types = [], set()

    class RecordHook(Hook):
        priority = 'VERY_HIGH'

        def keep(self, runner):
            states.append({key: value.clone() for key, value in runner.model.state_dict().items()})

        def before_train(self, runner):
            runner.model.backbone.register_forward_hook(lambda *args: types.add(args[-1][0].dtype))
            self.keep(runner)

        def after_train_iter(self, runner, *_, **__):
            self.keep(runner)

    HOOKS.register_module(module=RecordHook, force=True)
    return states, types


@pytest.mark.parametrize('kind', BACKBONES)
def test_all_of_them_together(kind, tool, small_config, record, tmp_path, capsys):
    config = tmp_path / 'options.py'
    config.write_text(CONFIG.format(base=str(small_config), backbone=BACKBONES[kind], momentum=MOMENTUM))
    args = [str(config), '--work-dir', str(tmp_path), '--seed', '0', '--pictures', '0', '--amp', '--accumulate', '2']
    assert tool('train')(args) == 0
    capsys.readouterr()
    states, types = record
    assert len(states) == 7
    if not torch.cuda.is_available():
        assert types == {torch.bfloat16}
    parameters = [key for key in states[0] if key.endswith(('weight', 'bias')) and 'bbox_head.scales' not in key]

    frozen = [key for key in states[0] if key.startswith(('backbone.conv1', 'backbone.bn1', 'backbone.layer1'))]
    assert any('running_mean' in key for key in frozen)
    assert all(torch.equal(states[0][key], states[-1][key]) for key in frozen)

    def changed(before, after):
        return {key for key in parameters if not torch.equal(states[before][key], states[after][key])}

    assert 'backbone.layer2.0.conv1.weight' in changed(0, 6) and 'bbox_head.conv_reg.weight' in changed(0, 6)
    for i in range(6):  # a step every second iteration
        assert bool(changed(i, i + 1)) == bool(i % 2), i

    checkpoint = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)
    key = 'bbox_head.conv_reg.weight'
    average = states[1][key]  # mmengine begins with a copy
    for state in states[2:]:
        average = (1 - MOMENTUM) * average + MOMENTUM * state[key]
    torch.testing.assert_close(checkpoint['state_dict'][key], average)
    torch.testing.assert_close(checkpoint['ema_state_dict'][f'module.{key}'], states[-1][key])


def test_a_number_below_one_is_refused(tool, small_config, capsys):
    with pytest.raises(SystemExit):
        tool('train')([str(small_config), '--accumulate', '0'])
    assert '--accumulate must be 1 or more, not 0' in capsys.readouterr().err
