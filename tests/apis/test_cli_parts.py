"""Parts that the tools' own tests, which need mmrotate, do not reach."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mmrotate_plugin.apis.checkpoint import load_weights, read_checkpoint
from mmrotate_plugin.apis.run_command import run
from mmrotate_plugin.utils import messages
from mmrotate_plugin.utils.atomic_files import write_json
from mmrotate_plugin.utils.errors import UsageError


def test_json_has_no_nan(tmp_path):
    value = dict(a=float('nan'), b=np.float32(0.5), c=torch.tensor([1, 2]), d=Path('x'), e=dict(f=(1, np.inf)))
    path = write_json(tmp_path / 'm.json', value)
    assert json.loads(path.read_text()) == dict(a=None, b=0.5, c=[1, 2], d='x', e=dict(f=[1, None]))


def checkpoint(**state):
    return {'state_dict': state, 'meta': {}}


def test_weights_that_fit_are_loaded_and_the_rest_refused():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    state = {key: torch.ones_like(value) for key, value in model.state_dict().items()}
    old = {key: value for key, value in state.items() if not key.endswith('num_batches_tracked')}
    load_weights(model, checkpoint(**old), 'old.pth')  # files from before torch counted batches
    assert (model[0].weight == 1).all()

    for wrong, text in (
        ({**state, '0.weight': torch.ones(3, 2)}, '1 have another shape (0.weight (checkpoint (3, 2), model (2, 2)))'),
        ({'0.weight': state['0.weight']}, '5 weights of the model are missing in it (0.bias, 1.weight, 1.bias, ...)'),
        ({'backbone.x': torch.ones(1)}, 'seems to be a model with the parts backbone (1 weights)'),
    ):
        with pytest.raises(UsageError) as error:
            load_weights(model, checkpoint(**wrong), 'x.pth')
        assert text in str(error.value)


def test_left_over_weights_are_a_warning(monkeypatch):
    said = []
    monkeypatch.setattr(messages, 'print_log', lambda text, **_: said.append(text))
    model = nn.Linear(1, 1)
    load_weights(model, checkpoint(**model.state_dict(), extra=torch.ones(1)), 'x.pth')
    assert said == ["checkpoint 'x.pth': 1 weights are unknown to the model and were ignored (extra)"]


def test_wrapped_models_and_prefixes(tmp_path):
    torch.save({'module.weight': torch.ones(1, 1), 'module.bias': torch.ones(1)}, tmp_path / 'a.pth')
    model = nn.Linear(1, 1)
    load_weights(nn.DataParallel(model), read_checkpoint(str(tmp_path / 'a.pth')), 'a.pth')
    assert model.weight.item() == 1


def test_a_usage_error_is_one_line_and_other_errors_are_not_hidden(capsys):
    def wrong(_):
        raise UsageError('two\n  lines')

    def bug(_):
        raise AttributeError('a bug')

    def stop(_):
        raise KeyboardInterrupt

    assert run(wrong, None) == 2
    assert capsys.readouterr().err == 'error: two lines\n'
    assert run(stop, None) == 130
    with pytest.raises(AttributeError):
        run(bug, None)
    assert run(lambda _: None, None) == 0


def test_a_checkpoint_of_another_group_with_equal_shapes_is_refused(tmp_path):
    import torch

    from mmrotate_plugin.models import ReResNet

    def net(group):
        module = torch.nn.Module()
        module.backbone = ReResNet(18, group=group, base_channels=16)
        return module

    path = str(tmp_path / 'd4.pth')
    torch.save({'state_dict': net('D4').state_dict()}, path)
    checkpoint = read_checkpoint(path)
    load_weights(net('D4'), checkpoint, path)
    with pytest.raises(UsageError, match=r'group D4.*group C8'):
        load_weights(net('C8'), checkpoint, path)


@pytest.mark.parametrize('name', ['NoDropout', 'NoMomentRule'])
def test_what_a_network_cannot_do_ends_in_one_line(capsys, name):
    from mmrotate_plugin import adf

    def command(_):
        raise getattr(adf, name)('FCOS has no active layer\nof the kind Dropout')

    assert run(command, argparse.Namespace()) == 2
    assert capsys.readouterr().err == 'error: FCOS has no active layer of the kind Dropout\n'
    with pytest.raises(ValueError):  # the control: an error of the program keeps its traceback

        def fails(_):
            raise ValueError('a bug')

        run(fails, argparse.Namespace())
