"""What several test folders share."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec

import pytest
import torch
from mmengine.fileio import load
from mmengine.logging import MMLogger
from mmengine.structures import InstanceData
from mmengine.utils.dl_utils import collect_env
from narrow import narrow_hidden_
from yapf.yapflib.yapf_api import FormatCode


@contextmanager
def skipped_without_mmrotate() -> Iterator[None]:
    """Skip what fails for want of mmrotate alone: the original stack has none that imports on Python 3.10 and later."""
    try:
        yield
    except Exception as error:
        cause = error
        while cause is not None and find_spec('mmrotate') is None:
            if isinstance(cause, ModuleNotFoundError) and (cause.name or str(cause)).split(maxsplit=1)[0] == 'mmrotate':
                pytest.skip('needs mmrotate, whose last original, 1.0.0rc1, does not import on Python >= 3.10')
            cause = cause.__cause__
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    for mark in item.iter_markers('needs_torch'):
        version, what = mark.args
        if tuple(map(int, torch.__version__.split('.')[:2])) < tuple(map(int, version.split('.'))):
            pytest.skip(f'{what} came with torch {version}')
    with skipped_without_mmrotate():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call():
    with skipped_without_mmrotate():
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files with slow tests first: begun last, one would keep a process busy while the other has nothing to do."""
    slow = {item.path for item in items if item.get_closest_marker('slow')}
    items.sort(key=lambda item: item.path not in slow)  # stable


@pytest.fixture(autouse=True, scope='session')
def quiet_logs():
    """mmengine describes the initialisation of every parameter: megabytes for a detector."""
    MMLogger.get_instance('mmengine').setLevel(logging.ERROR)


@pytest.fixture(autouse=True, scope='session')
def one_thread():
    """Small nets gain nothing from a second thread, and lose twentyfold where the machine has other work."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope='session')
def thrifty_mmengine():
    """What mmengine does in each training takes longer than the training of a small net.

    yapf lays out the text of the config four times, compilers are asked for their versions, and a config of another
    package is found by reading the lists of all models of that package.
    """
    with pytest.MonkeyPatch.context() as patch:
        for module in ('yapf.yapflib.yapf_api', 'mmengine.config.config'):  # old versions have the name in the second
            patch.setattr(f'{module}.FormatCode', lambda text, **_: (text, True), raising=False)
        patch.setattr('mmengine.runner.runner.collect_env', cache(collect_env))
        patch.setattr('mmengine.config.utils.load', cache(load))
        yield


@pytest.fixture
def with_layout(monkeypatch):
    """Configs as they are written outside of the tests."""
    for module in ('yapf.yapflib.yapf_api', 'mmengine.config.config'):
        monkeypatch.setattr(f'{module}.FormatCode', FormatCode, raising=False)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def step_and_predict():
    """Build a detector from a config, train it one step on a noise image with three boxes, and predict."""

    def run(cfg, box='rbox', size=97, prepare=None):
        from mmdet.structures import DetDataSample
        from mmdet.structures.bbox import HorizontalBoxes
        from mmengine.registry import MODELS, init_default_scope

        if box == 'hbox':
            boxes = HorizontalBoxes(torch.tensor([[12.0, 26, 48, 54], [58, 48, 82, 72], [30, 50, 60, 97]]))
        else:
            from mmrotate.structures import RotatedBoxes
            from mmrotate.utils import register_all_modules

            register_all_modules(init_default_scope=False)
            boxes = RotatedBoxes(torch.tensor([[30, 40, 40, 16, 0.3], [70, 60, 24, 24, -0.4], [45, 75, 50, 12, 1.2]]))
            boxes = boxes if box == 'rbox' else boxes.convert_to(box)
        init_default_scope(cfg.get('default_scope', 'mmdet'))
        narrow_hidden_(cfg.model)
        net = MODELS.build(cfg.model)
        net.init_weights()
        if prepare is not None:
            prepare(net)

        labels = torch.zeros(3, dtype=torch.long)

        def batch():
            sample = DetDataSample(metainfo=dict(img_shape=(size, size), ori_shape=(size, size), img_id=0,
                                                 scale_factor=(1.0, 1.0), flip=False))  # fmt: skip
            sample.gt_instances = InstanceData(bboxes=boxes.clone(), labels=labels.clone())
            sample.ignored_instances = InstanceData(bboxes=boxes[:0].clone(), labels=labels[:0])
            image = torch.randint(0, 255, (3, size, size), dtype=torch.uint8)
            return dict(inputs=[image], data_samples=[sample])

        net.train()
        loss, _ = net.parse_losses(net(**net.data_preprocessor(batch(), True), mode='loss'))
        loss.backward()
        net.eval()
        with torch.no_grad():
            (result,) = net(**net.data_preprocessor(batch(), False), mode='predict')
        return net, loss, result.pred_instances

    return run
