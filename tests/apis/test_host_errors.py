"""What hosts raise about a config is one line; what this package may be to blame for keeps its traceback."""

import pytest
import torch
from mmcv.cnn import ConvModule

from mmrotate_plugin.apis.explanations import explain
from mmrotate_plugin.apis.run_command import run
from mmrotate_plugin.engine.checks.config_types import wrong_types
from mmrotate_plugin.models import ReResNet


def caught(function, *args, **kwargs):
    with pytest.raises(Exception) as error:
        function(*args, **kwargs)
    return error.value


HOSTS_PART = ConvModule(3, 4, 1)


def test_an_error_within_a_host_is_about_what_it_was_given(capsys, monkeypatch):
    assert run(HOSTS_PART, torch.zeros(1, 5, 8, 8)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('error: the config cannot be run: RuntimeError: ')
    assert '(from forward in mmcv/cnn/bricks/conv_module.py:' in line
    monkeypatch.setenv('MMROTATE_PLUGIN_TRACEBACK', '1')
    with pytest.raises(RuntimeError):
        run(HOSTS_PART, torch.zeros(1, 5, 8, 8))


def test_an_error_with_this_package_in_between_stays_a_bug():
    net = ReResNet(18, base_channels=8, num_stages=1, strides=(1,), dilations=(1,), out_indices=(0,))
    assert explain(caught(net, 'no tensor')) is None
    net.conv1.forward = HOSTS_PART  # a host's part, called by a network of this package
    assert explain(caught(net, torch.zeros(1, 5, 8, 8))) is None


def test_an_error_of_a_users_own_class_stays_a_traceback():
    from mmcv.transforms import Compose

    def own(results):  # noqa: ARG001
        raise KeyError('mine')

    assert explain(caught(Compose([own]), {})) is None
    assert explain(KeyError('nowhere')) is None


@pytest.mark.parametrize(
    'place, ours', [('mmcv/transforms/base.py', False), ('mmrotate_plugin/adf/input_noise.py', True)]
)
def test_in_a_worker_the_text_tells(place, ours):
    text = (
        f'Caught KeyError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n'
        f'  File "/x/lib/python3.11/site-packages/torch/utils/data/_utils/fetch.py", line 1, in fetch\n    data = [1]\n'
        f'  File "/x/lib/python3.11/site-packages/{place}", line 12, in __call__\n    self.transform(results)\n'
        'KeyError: "gt"\n'
    )
    said = explain(RuntimeError(text))
    assert (said is None) is ours
    assert ours or 'KeyError: "gt" (from __call__ in mmcv/transforms/base.py:12)' in said


def test_memory_and_paths(tmp_path):
    assert 'not enough memory' in explain(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    assert 'not enough memory' in explain(MemoryError())
    said = explain(caught((tmp_path / ('a' * 300)).write_text, ''))
    assert 'File name too long' in said and len(said) < 200
    assert explain(OSError('no path')) is None


GOOD = dict(
    model={}, train_dataloader=dict(dataset=dict(type='x'), num_workers=0), optim_wrapper=dict(optimizer=dict(lr=0.1))
)


@pytest.mark.parametrize(
    'more, said',
    [
        (dict(train_cfg=5), 'train_cfg must be a dict, not 5'),
        (dict(test_dataloader='x'), 'test_dataloader must be a dict'),
        (dict(train_dataloader=dict(dataset=['x'])), "train_dataloader.dataset must be a dict with a 'type'"),
        (dict(train_dataloader=dict(dataset={}, batch_size='4')), "train_dataloader.batch_size='4'"),
        (dict(train_dataloader=dict(dataset={}, num_workers=-1)), 'train_dataloader.num_workers=-1'),
        (dict(optim_wrapper=dict(optimizer=dict(lr='a'))), "optim_wrapper.optimizer.lr='a'"),
        (dict(optim_wrapper=dict(optimizer=dict(lr=float('nan')))), 'optim_wrapper.optimizer.lr=nan'),
        (dict(custom_hooks=[5]), 'custom_hooks must be a dict or a list of dicts'),
    ],
)
def test_parts_of_another_type_are_named(more, said):
    assert list(wrong_types(GOOD)) == []
    (text,) = wrong_types({**GOOD, **more})
    assert said in text
