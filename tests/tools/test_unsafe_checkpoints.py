"""No tool runs what a checkpoint brings along, by whichever way it reads it, unless it is told to."""

import os
from collections import OrderedDict

import pytest
import torch

pytest.importorskip('mmrotate')


class Touches:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f'touch {self.marker}',)


@pytest.fixture
def evil(trained, tmp_path):
    """A checkpoint of a training, with all its weights and one thing more."""
    checkpoint = torch.load(trained / 'epoch_1.pth', weights_only=False)
    checkpoint['message_hub']['runtime_info']['notes'] = [Touches(tmp_path / 'marker')]
    torch.save(checkpoint, tmp_path / 'evil.pth')
    return tmp_path / 'evil.pth'


PRETRAINED = 'model.neck.init_cfg.type=Pretrained model.neck.init_cfg.checkpoint={evil}'
LINES = [
    ('train', '{cfg} --work-dir {root}/w --resume {evil}'),
    ('train', '{cfg} --work-dir {root}/w --cfg-options load_from={evil}'),
    ('train', '{cfg} --work-dir {root}/w --cfg-options ' + PRETRAINED),  # of a neck of mmdet's
    ('test', '{cfg} {evil} --work-dir {root}/w'),
    ('image_demo', '{image} {cfg} {evil} --out {root}/o.png'),
    ('calibrate_uncertainty', '{cfg} {evil} --noise-std 8 --out {root}/o.pth'),
    ('check_equivariance', '{cfg} {evil} --out {root}/o'),
    ('export', '{cfg} {evil} --out {root}/o --formats config'),
    ('evaluate_angles', '{cfg} {evil} --out {root}/o'),
    ('evaluate_uncertainty', '{cfg} {evil} --out {root}/o'),
    ('convert_weights', '{evil} {root}/o.pth --to plugin'),
    ('benchmark', '--quick --detector {cfg} --checkpoint {evil} --out {root}/o --processes 1'),
    ('show_basis', '--config {cfg} --checkpoint {evil} --out {root}/o'),
]


@pytest.mark.parametrize('name, line', LINES, ids=[f'{name}-{i}' for i, (name, _) in enumerate(LINES)])
def test_a_malicious_checkpoint_is_refused(name, line, evil, tiny_config, scenes, tool, tmp_path, capsys):
    places = {'cfg': tiny_config, 'evil': evil, 'root': tmp_path, 'image': scenes / 'images/scene0.png'}
    capsys.readouterr()
    status = tool(name)([word.format(**places) for word in line.split()])
    error = capsys.readouterr().err.strip().split('\n')[-1]
    assert status == 2
    assert error.startswith('error: ') and f'{os.system.__module__}.system' in error and '--unsafe-checkpoint' in error
    assert not (tmp_path / 'marker').exists()


def test_it_runs_if_the_user_says_so(evil, tiny_config, scenes, tool, tmp_path, capsys):
    args = [str(scenes / 'images/scene0.png'), str(tiny_config), str(evil), '--out', str(tmp_path / 'o.png')]
    assert tool('image_demo')([*args, '--unsafe-checkpoint']) == 0
    assert (tmp_path / 'marker').exists()
    capsys.readouterr()


def test_a_plain_state_dict_needs_no_such_word(trained, tiny_config, scenes, tool, tmp_path, capsys):
    state = torch.load(trained / 'epoch_1.pth', weights_only=False)['state_dict']
    torch.save(OrderedDict(state), tmp_path / 'plain.pth', _use_new_zipfile_serialization=False)
    args = [str(scenes / 'images/scene0.png'), str(tiny_config), str(tmp_path / 'plain.pth')]
    assert tool('image_demo')([*args, '--out', str(tmp_path / 'o.png')]) == 0
    capsys.readouterr()
