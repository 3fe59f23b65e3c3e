"""There is a whole checkpoint at every moment, and nothing is left over."""

import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from mmrotate_plugin.engine.hooks.checkpoint_hook import WholeCheckpointHook, WholeFileBackend
from mmrotate_plugin.engine.runner.work_dir_checkpoints import training_checkpoints


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, inputs, mode):
        return {'loss': self.layer(inputs).square().mean()} if mode == 'loss' else [inputs]


class Rising(BaseMetric):
    """Better with each validation."""

    value = 0

    def process(self, data_batch, data_samples):  # noqa: ARG002
        self.results.append(0)

    def compute_metrics(self, results):  # noqa: ARG002
        Rising.value += 1
        return {'mAP': Rising.value}


def train(work_dir, hook='mmrotate_plugin.WholeCheckpointHook', **options):
    data = DataLoader([{'inputs': torch.ones(1)}] * 2)
    torch.manual_seed(0)
    runner = Runner(
        Model(), str(work_dir), train_dataloader=data, val_dataloader=data, val_evaluator=[Rising()],
        train_cfg=dict(by_epoch=True, max_epochs=3), val_cfg=dict(), experiment_name=work_dir.name,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)), log_level='ERROR', randomness=dict(seed=0),
        default_hooks=dict(checkpoint=dict(type=hook, **options)),
    )  # fmt: skip
    runner.train()
    return runner


def test_the_older_one_goes_after_the_newer_one_came(tmp_path, monkeypatch):
    put, before = WholeFileBackend.put, []

    def spy(self, obj, filepath):
        before.append((str(filepath).rpartition('/')[2], sorted(file.name for file in tmp_path.glob('*.pth'))))
        put(self, obj, filepath)

    monkeypatch.setattr(WholeFileBackend, 'put', spy)
    leftover = tmp_path / '.epoch_9.pth.abcd1234'
    leftover.write_bytes(b'half')
    train(tmp_path, interval=1, max_keep_ckpts=1, save_best='mAP')
    there = dict(reversed(before))  # at the first writing of each
    assert there['epoch_1.pth'] == []
    assert 'epoch_1.pth' in there['epoch_2.pth'] and 'epoch_2.pth' in there['epoch_3.pth']
    assert 'best_mAP_epoch_1.pth' in there['best_mAP_epoch_2.pth']
    assert sorted(file.name for file in tmp_path.glob('*.pth')) == ['best_mAP_epoch_3.pth', 'epoch_3.pth']
    assert [path.name for path in training_checkpoints(tmp_path)] == ['epoch_3.pth']
    assert not leftover.exists() and not list(tmp_path.glob('.*'))


def test_it_holds_what_mmengines_holds(tmp_path):
    saved = []
    for name, hook in (('ours', 'mmrotate_plugin.WholeCheckpointHook'), ('theirs', 'CheckpointHook')):
        runner = train(tmp_path / name, hook, interval=1, max_keep_ckpts=2, save_begin=2)
        saved.append(torch.load(tmp_path / name / 'epoch_3.pth', weights_only=False))
        assert sorted(file.name for file in (tmp_path / name).glob('*.pth')) == ['epoch_2.pth', 'epoch_3.pth']
        assert isinstance(runner.hooks[-1], WholeCheckpointHook) == (name == 'ours')
    ours, theirs = saved
    assert ours.keys() == theirs.keys()
    assert ours['meta'].keys() == theirs['meta'].keys()
    assert {k: v for k, v in ours['meta'].items() if k in ('epoch', 'iter')} == {'epoch': 3, 'iter': 6}
    torch.testing.assert_close(ours['state_dict'], theirs['state_dict'])
    info = [{k: v for k, v in s['message_hub']['runtime_info'].items() if k == 'keep_ckpt_ids'} for s in saved]
    assert info[0] == info[1]


def test_files_elsewhere_are_written_as_mmengine_does_it(tmp_path, monkeypatch):
    """A backend of one's own is used."""
    from mmengine.fileio import LocalBackend

    used = []
    put = LocalBackend.put
    monkeypatch.setattr(LocalBackend, 'put', lambda self, *args: (used.append(type(self)), put(self, *args))[1])
    train(tmp_path, interval=3, backend_args=dict(backend='local'))
    assert used == [LocalBackend] and (tmp_path / 'epoch_3.pth').is_file()
