"""The tool on a detector trained for an epoch: a checkpoint that an ADFResNet takes up, and one-line errors."""

import json

import pytest
import torch

from mmrotate_plugin.adf import Gaussian
from mmrotate_plugin.apis.uncertainty_calibration import without_gains

ADF = """
_base_ = {base!r}
model = dict(backbone=dict(
    _delete_=True, type='mmrotate_plugin.ADFResNet', depth=18, base_channels=16, noise_std=8.0,
    std=[58.395, 57.12, 57.375], output='mean'))
"""
FEW = ['--num-images', '2', '--held-out', '1', '--num-samples', '24', '--size', '65', '--device', 'cpu']


@pytest.fixture(scope='module')
def files(tiny_config, trained, tmp_path_factory):
    """Config with a ResNet, the same with ADFResNet, the checkpoint."""
    adf = tmp_path_factory.mktemp('adf') / 'adf.py'
    adf.write_text(ADF.format(base=str(tiny_config)))
    return str(tiny_config), str(adf), str(trained / 'epoch_1.pth')


@pytest.fixture
def calibrate(tool):
    return tool('calibrate_uncertainty')


def adf_backbone(config, state):
    from mmdet.registry import MODELS
    from mmengine.config import Config

    net = MODELS.build({**Config.fromfile(config).model.backbone, 'output': 'gaussian'}).eval()
    net.load_state_dict({k.removeprefix('backbone.'): v for k, v in state.items() if k.startswith('backbone.')})
    return net


def test_writes_checkpoint_and_report(calibrate, files, scenes, tmp_path, capsys):
    plain, adf, checkpoint = files
    common = ['--noise-std', '8', '--images', str(scenes / 'images'), *FEW]
    out, again = tmp_path / 'new' / 'calibrated.pth', tmp_path / 'again.pth'
    figure = tmp_path / 'figure.png'
    assert calibrate([adf, checkpoint, '--out', str(out), '--figure', str(figure), *common]) == 0
    assert figure.read_bytes().startswith(b'\x89PNG')
    printed = capsys.readouterr().out
    assert 'layer4.1.conv2' in printed and 'after, other images' in printed and 'note:' not in printed
    file, original = torch.load(out), torch.load(checkpoint, weights_only=False)
    assert set(file) == {'meta', 'state_dict'} and file['meta']['dataset_meta']
    state = file['state_dict']
    assert all(torch.equal(v, state[k]) for k, v in original['state_dict'].items())
    added = set(state) - set(original['state_dict'])
    assert 'backbone.variance_gain_noise' in added and 'backbone.layer4.1.conv2.variance_gain' in added
    expected = torch.tensor([(8 / s) ** 2 for s in (58.395, 57.12, 57.375)])
    assert torch.allclose(state['backbone.variance_gain_noise'], expected)
    report = json.loads(out.with_suffix('.json').read_text())
    assert report['noise_std'] == 8 and report['num_images'] == 2
    before, after = (
        sum(abs(layer[key]['median'] - 1) for layer in report['layers'] if layer['gains'])
        for key in ('before', 'after')
    )
    assert after < 0.3 * before

    x = torch.randn(1, 3, 65, 65)
    with_gains, without = adf_backbone(adf, state), adf_backbone(adf, original['state_dict'])
    a, b = with_gains(x), without(x)
    for p, q in zip(a, b, strict=True):
        assert torch.equal(p.mean, q.mean) and not torch.allclose(p.var, q.var, rtol=0.01)

    # the backbone of mmdet gets the same, up to the means that its variances go with; calibrated input is no obstacle
    assert calibrate([plain, str(out), '--out', str(again), *common]) == 0
    assert 'note: only a mmrotate_plugin.ADFResNet' in capsys.readouterr().out
    other = torch.load(again)['state_dict']
    assert set(other) & {'backbone.layer4.1.conv2.variance_gain', 'backbone.variance_gain_noise'}
    assert all(p.var.isfinite().all() for p in adf_backbone(adf, other)(Gaussian(x, torch.full_like(x, 0.01))))


def test_takes_the_val_data_set(calibrate, files, tmp_path):
    _, adf, checkpoint = files
    args = ['--noise-std', '4', '--num-images', '4', '--held-out', '0', '--num-samples', '8', '--device', 'cpu']
    assert calibrate([adf, checkpoint, '--out', str(tmp_path / 'a.pth'), *args]) == 0
    report = json.loads((tmp_path / 'a.json').read_text())
    assert report['num_images'] == 4 and report['layers'][0]['held_out_after'] is None


@pytest.mark.parametrize('change, text', [
    ({'--noise-std': '0'}, '--noise-std must be a number above 0'),
    ({'--noise-std': 'nan'}, '--noise-std must be a number above 0'),
    ({'--num-samples': '2'}, '--num-samples must be 8 or more'),
    ({'--figure': 'x.jpg'}, '--figure must end with .png'),
    ({'--out': 'x.json'}, '--out must end with .pth'),
])  # fmt: skip
def test_wrong_options(calibrate, change, text, capsys):
    options = {'--noise-std': '8', '--out': 'x.pth', **change}
    with pytest.raises(SystemExit) as stop:
        calibrate(['c.py', 'c.pth', *[word for pair in options.items() for word in pair]])
    assert stop.value.code == 2 and text in capsys.readouterr().err


def test_wrong_input_is_one_line(calibrate, files, scenes, tmp_path, capsys):
    _, adf, checkpoint = files
    out = ['--out', str(tmp_path / 'a.pth'), '--noise-std', '8', *FEW]
    few = [*out, '--images', str(scenes / 'images'), '--num-images', '50']
    for words, text in [
        ([adf, 'nowhere.pth', *out], "checkpoint 'nowhere.pth' does not exist"),
        (['nowhere.py', checkpoint, *out], "config 'nowhere.py' does not exist"),
        ([adf, checkpoint, *out, '--images', 'nowhere'], "--images 'nowhere' is not a folder"),
        ([adf, checkpoint, *few], 'has 6 images, but --num-images 50 and --held-out 1 ask for 51'),
        ([adf, checkpoint, '--out', checkpoint, '--noise-std', '8'], 'is the checkpoint itself'),
    ]:
        assert calibrate(words) == 2
        error = capsys.readouterr().err.strip()
        assert error.startswith('error: ') and text in error and '\n' not in error
    assert not list(tmp_path.iterdir())


def test_an_earlier_calibration_is_left_out():
    state = {'neck.weight': 1, 'detection_gain': 2, 'detection_error': 3}
    assert dict(without_gains(state)) == {'neck.weight': 1}
