"""Triggers of the messages of docs/troubleshooting.md that need no whole tool: each takes an empty folder.

They run through `run_command.run`, as the command of a tool does; `test_every_message.py` shows that all tools end so.
"""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger

from mmrotate_plugin import adf
from mmrotate_plugin.apis import config
from mmrotate_plugin.apis.checkpoint import load_weights
from mmrotate_plugin.apis.config import load_config
from mmrotate_plugin.apis.runner import set_launcher
from mmrotate_plugin.engine.checks import before_run
from mmrotate_plugin.equivariant import ennConv
from mmrotate_plugin.evaluation import DOTAMetric
from mmrotate_plugin.utils.errors import UsageError
from mmrotate_plugin.utils.messages import warn

BOX = [10.0, 10, 30, 30, 0.1]
MODEL = dict(type='X', backbone=dict(type='X'))


def sample(pred: list[float] = BOX, labelled: bool = True, score: float = 0.9) -> dict[str, Any]:
    def one(box: list[float]) -> dict[str, Any]:
        return dict(bboxes=torch.tensor([box]), labels=torch.zeros(1, dtype=torch.long))

    found = dict(one(pred), scores=torch.tensor([score]))
    truth = dict(gt_instances=one(BOX), ignored_instances=dict(bboxes=torch.zeros(0, 5), labels=torch.zeros(0).long()))
    return dict(img_id='a', ori_shape=(40, 60), pred_instances=found, **(truth if labelled else {}))


def evaluate(*samples: dict[str, Any], **options: Any) -> None:
    metric = DOTAMetric(**options)
    metric.dataset_meta = dict(classes=('ship',))
    metric.process(None, list(samples))
    metric.evaluate(len(samples))


def host_metric(**options: Any) -> Any:
    from mmrotate.evaluation import DOTAMetric as HostMetric

    metric = HostMetric(**options)
    metric.dataset_meta = dict(classes=('ship',))
    return metric


def judge_nothing(_: Path) -> None:
    from mmrotate_plugin.engine.checks.evaluation_setup import TruthGuard

    metric = host_metric()
    TruthGuard(metric)
    metric.process(
        {}, [{key: value for key, value in sample().items() if key not in ('ori_shape', 'ignored_instances')}]
    )


class Data:
    """As much of a data set as is asked, of one image."""

    metainfo = {'classes': ('ship',)}

    def __init__(self, name: str = 'a', objects: int = 0) -> None:
        self.name, self.objects = name, objects

    def __len__(self) -> int:
        return 1

    def get_data_info(self, _: int) -> dict[str, Any]:
        return dict(img_id=self.name, instances=[dict(ignore_flag=0)] * self.objects)


def prepare(metric: Any, name: str = 'a', save_best: Any = None) -> None:
    from mmrotate_plugin.engine.checks.evaluation_setup import prepare_evaluation

    metric.dataset_meta = metric.dataset_meta or dict(classes=('ship',))
    loader, evaluator = SimpleNamespace(dataset=Data(name)), SimpleNamespace(metrics=[metric])
    prepare_evaluation(SimpleNamespace(dataloader=loader, evaluator=evaluator), 'val', save_best=save_best)


def submission(folder: Path, image: str = 'a__1__0___0', name: str = 'ship') -> None:
    from mmrotate_plugin.evaluation.functional.submission import check_submission

    try:
        check_submission([image], (name,), folder)
    except ValueError as error:
        raise UsageError(str(error)) from error


def classes_of_checkpoint(_: Path) -> None:
    checkpoint = {'meta': {'dataset_meta': {'classes': ('ship', 'plane')}}, 'state_dict': {}}
    before_run.check_classes({}, checkpoint, 'a.pth', ('plane', 'ship'))


def heads_of_others(_: Path) -> None:
    from mmrotate_plugin.engine.hooks import resume_hook

    runner = SimpleNamespace(
        _train_loop=1, train_loop=SimpleNamespace(dataloader=SimpleNamespace(dataset=Data())), cfg={},
        logger=MMLogger.get_current_instance(), _load_from='a.pth',
    )  # fmt: skip
    resume_hook._tell_classes(runner, {'meta': {'dataset_meta': {'classes': ('plane',)}}})


def sampled_kernels(_: Path) -> None:
    from mmrotate_plugin.models import ReResNet
    from mmrotate_plugin.models.utils.weight_conversion import to_mmrotate

    net = ReResNet(18, base_channels=8, num_stages=1, strides=(1,), dilations=(1,), out_indices=(0,))
    state = to_mmrotate(net.state_dict())
    kernels = net.layer1[0].conv1.basis.samples.flatten(3)
    name = "layer1.0.conv1._basisexpansion.block_expansion_('regular', 'regular').sampled_basis"
    load_weights(net, {'state_dict': {**state, name: 2 * kernels}, 'meta': {}}, 'a.pth')


def plain_weights(_: Path) -> None:
    from mmrotate_plugin.models import ReResNet, ResNet

    options = dict(depth=18, base_channels=8, num_stages=1, strides=(1,), dilations=(1,), out_indices=(0,))
    load_weights(ReResNet(**options), {'state_dict': ResNet(**options).state_dict(), 'meta': {}}, 'a.pth')


def resume(change: Callable[[Config], None], done: int = 1) -> list[str]:
    from mmrotate_plugin.engine.checks.resumed_run import settle_schedule

    def config() -> Config:
        return Config(dict(
            model={}, train_cfg=dict(max_epochs=3), optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            param_scheduler=[dict(type='MultiStepLR', by_epoch=True, milestones=[2])],
        ))  # fmt: skip

    cfg = config()
    change(cfg)
    meta = {'cfg': config().pretty_text, 'epoch': done, 'iter': done}
    try:
        texts = settle_schedule(cfg, {'meta': meta, 'optimizer': {}}, None)
    except ValueError as error:  # as tools/train.py does it
        raise UsageError(str(error)) from error
    for text in texts:
        warn(text)
    return texts


def diverge(_: Path) -> None:
    from mmrotate_plugin.engine.hooks.divergence_hook import StopAtDivergenceHook

    runner = SimpleNamespace(iter=0, optim_wrapper=None)
    try:
        StopAtDivergenceHook(patience=1).after_train_iter(runner, 0, None, {'loss': torch.tensor(float('nan'))})
    except FloatingPointError as error:  # as tools/train.py does it
        raise UsageError(f'the training diverged: {error}') from error


def limits(_: Path) -> None:
    from mmrotate_plugin.engine.hooks.limits_hook import Limits

    model = torch.nn.Identity()
    model.test_cfg = dict(nms=dict(iou_threshold=0.1), max_per_img=1, nms_pre=5)
    seen = Limits(model)
    with seen.watching():
        model([SimpleNamespace(pred_instances=SimpleNamespace(scores=torch.ones(1)))])
    warn(seen.hint('images'))


def unimportable(_: Path) -> None:
    from mmrotate_plugin.export import Unsupported
    from mmrotate_plugin.export.onnx_export import require

    try:
        require('no_such_module')
    except Unsupported as error:  # as tools/export.py does it
        raise UsageError(str(error)) from error


def no_scope(_: Path) -> None:
    """mmrotate is wanted and not there."""
    import sys

    own, host = config.register_hosts, sys.modules.pop('mmrotate', None)
    config.register_hosts = lambda: None
    try:
        cfg = _ / 'a.json'
        cfg.write_text(json.dumps({'model': MODEL, 'default_scope': 'mmrotate'}))
        load_config(str(cfg))
    finally:
        config.register_hosts = own
        if host is not None:
            sys.modules['mmrotate'] = host


def geometric(_: Path) -> None:
    from e2cnn import gspaces, nn

    kind = nn.FieldType(gspaces.Rot2dOnR2(8), [gspaces.Rot2dOnR2(8).regular_repr])
    ennConv(8, 8, 3)(nn.GeometricTensor(torch.zeros(1, 8, 5, 5), kind))


def other_validation(_: Path) -> None:
    other = Data()
    other.metainfo = {'classes': ('plane',)}
    before_run.check_same_classes(Data(), other, 'val_dataloader')


def unknown_best(_: Path) -> None:
    from mmengine.hooks import CheckpointHook

    from mmrotate_plugin.engine.checks.metric_keys import unknown_metric

    metric = DOTAMetric()
    metric.dataset_meta = dict(classes=('ship',))
    loop = SimpleNamespace(
        evaluator=SimpleNamespace(metrics=[metric]), dataloader=SimpleNamespace(dataset=Data(objects=1))
    )
    hooks = [CheckpointHook(save_best='mAP', rule='greater')]
    wrong, _ = unknown_metric(SimpleNamespace(hooks=hooks, val_loop=loop, param_schedulers=[]))
    raise UsageError(wrong)  # as `checks.before_training` does it


def forgotten_launcher(_: Path) -> None:
    import os

    os.environ.update(TORCHELASTIC_RUN_ID='x', WORLD_SIZE='2')
    try:
        set_launcher(Config(), 'none', 0)
    finally:
        for name in ('TORCHELASTIC_RUN_ID', 'WORLD_SIZE', 'LOCAL_RANK'):
            os.environ.pop(name, None)


def full_disk(_: Path) -> None:
    import errno

    from mmrotate_plugin.engine.runner.work_dir_checkpoints import DiskFullError, explain_full_disk

    try:
        with explain_full_disk():
            raise OSError(errno.ENOSPC, 'No space left on device', 'epoch_1.pth')
    except DiskFullError as error:  # as tools/train.py does it
        raise UsageError(str(error)) from error


def sixths(_: Path) -> None:
    from mmrotate_plugin.testing import act_on_regular

    act_on_regular(torch.zeros(1, 6, 5, 5), 'C6', 1)


def no_pair(_: Path) -> None:
    class Block(torch.nn.Module):
        def forward(self, mean: Any, var: Any) -> Any:  # noqa: ARG002
            return mean

    adf.Sequential(Block())(torch.zeros(2), torch.ones(2))


def no_dropout(_: Path) -> None:
    from mmrotate_plugin.evaluation.method_comparison import Evaluation, Plan

    plan = Plan((), ('dropout',), num_images=4, num_fit=1)
    Evaluation(torch.nn.Conv2d(3, 3, 1), [0] * 9, [0] * 9, None, plan)


def no_counterpart(_: Path) -> None:
    from mmrotate_plugin.export import Unsupported
    from mmrotate_plugin.export.model_config import plain_config

    try:
        plain_config(dict(neck=dict(type='mmrotate_plugin.ennGroupPool')), list)
    except Unsupported as error:  # as tools/export.py does it
        raise UsageError(str(error)) from error


def labels_by_number(_: Path) -> None:
    before_run.check_labels(dict(pipeline=[dict(rect_obj_labels=[99])]), Data(), 'train_dataloader')


def take_adam(cfg: Config) -> None:
    cfg.optim_wrapper.optimizer.type = 'AdamW'


def gaussian() -> Any:
    return adf.Gaussian(torch.zeros(2), torch.ones(2))
