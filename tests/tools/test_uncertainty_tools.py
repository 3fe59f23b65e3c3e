"""From a trained detector to a calibrated one, to its table and its pictures, with configs of both kinds."""

import json
import pickle

import cv2
import numpy as np
import pytest
import torch

WRAPPED = """
_base_ = {base!r}
model = dict(_delete_=True, type='mmrotate_plugin.UncertainDetector', detector=_base_.model, noise_std='estimate')
test_evaluator = [_base_.test_evaluator, dict(type='mmrotate_plugin.UncertaintyMetric')]
"""
FIT = ['--noise-std', '8', '--num-images', '4', '--held-out', '2', '--num-samples', '8', '--device', 'cpu']
CPU = ['--device', 'cpu', '--score-thr', '0']


@pytest.fixture(scope='module')
def wrapped(tiny_config, tmp_path_factory):
    path = tmp_path_factory.mktemp('wrapped') / 'wrapped.py'
    path.write_text(WRAPPED.format(base=str(tiny_config)))
    return str(path)


@pytest.fixture(scope='module')
def weights(trained):
    return str(trained / 'epoch_1.pth')


@pytest.fixture(scope='module')
def calibrated(tool, wrapped, weights, tmp_path_factory):
    """Written by the tool, as is what is beside it."""
    out = tmp_path_factory.mktemp('fit') / 'fit.pth'
    options = ['--figure', str(out.with_suffix('.png')), '--min-score', '0', *FIT]
    assert tool('calibrate_uncertainty')([wrapped, weights, '--out', str(out), *options]) == 0
    return out


@pytest.fixture(scope='module')
def half(scenes, tmp_path_factory):
    """A flat scene whose right half is noisy."""
    image = cv2.imread(str(scenes / 'images/scene0.png')).astype(float)
    image = cv2.GaussianBlur(image, (5, 5), 0)
    image[:, 40:] += np.random.default_rng(0).normal(0, 30, image[:, 40:].shape)
    path = tmp_path_factory.mktemp('half') / 'half.png'
    cv2.imwrite(str(path), image.clip(0, 255).astype(np.uint8))
    return path


def test_calibration_of_the_whole_detector(calibrated, weights):
    state = torch.load(calibrated)['state_dict']
    original = torch.load(weights, weights_only=False)['state_dict']
    assert all(torch.equal(value, state[key]) for key, value in original.items())
    added = set(state) - set(original)
    assert {'detection_gain', 'variance_gain_noise'} <= added
    for part in ('backbone.', 'neck.', 'bbox_head.'):
        assert any(key.startswith(part) and key.endswith('.variance_gain') for key in added)
    report = json.loads(calibrated.with_suffix('.json').read_text())
    assert [row['name'] for row in report['detections']] == ['x', 'y', 'w', 'h', 'angle', 'score']
    assert report['noise_std'] == 8 and report['num_detections'] == 20
    # the median itself is 1; of 20 detections the report may take the neighbour
    assert all(abs(row['after']['median'] - 1) < 0.15 and row['gain'] != 1 for row in report['detections'])
    assert all(row['held_out_after'] for row in report['detections'])
    width, height = cv2.imread(str(calibrated.with_suffix('.png'))).shape[1::-1]
    assert width > 1000 and height == 500


def test_a_plain_config_is_wrapped_for_the_fit(tool, tiny_config, calibrated, tmp_path, capsys):
    """Also of weights with gains, which begin anew."""
    out = tmp_path / 'again.pth'
    fit = ['--detector', '--min-score', '0', *FIT]
    assert tool('calibrate_uncertainty')([str(tiny_config), str(calibrated), '--out', str(out), *fit]) == 0
    assert 'only a mmrotate_plugin.UncertainDetector' in capsys.readouterr().out
    first, second = (torch.load(file)['state_dict'] for file in (calibrated, out))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_test_saves_deviations(tool, wrapped, calibrated, tmp_path, capsys):
    out = tmp_path / 'predictions.pkl'
    assert tool('test')([wrapped, str(calibrated), '--work-dir', str(tmp_path), '--out', str(out)]) == 0
    assert 'unknown to the model' not in capsys.readouterr().err
    metrics = json.loads((tmp_path / 'test_metrics.json').read_text())['metrics']
    assert 'uncertainty/coverage_1_all' in metrics and 'dota/mAP' in metrics
    found = pickle.loads(out.read_bytes())[0]['pred_instances']
    assert found['bboxes_std'].shape == (5, 5) and (found['scores_std'] > 0).all()


def draw(tool, *words):
    return tool('image_demo')([*map(str, words), *CPU])


def test_a_noisy_half_is_less_certain(tool, wrapped, calibrated, half, tmp_path, capsys, monkeypatch):
    import mmrotate_plugin.apis.image_drawing as pictures

    seen, drawn, make, outline = [], [], pictures.heat_map, pictures.draw_boxes
    monkeypatch.setattr(pictures, 'heat_map', lambda *args, **kw: seen.append(args[1]) or make(*args, **kw))
    monkeypatch.setattr(pictures, 'draw_boxes', lambda *args, **kw: drawn.append(kw) or outline(*args, **kw))
    out = tmp_path / 'out.png'
    assert draw(tool, half, wrapped, calibrated, '--out', out, '--uncertainty') == 0
    printed = capsys.readouterr()
    assert "method 'propagated', noise in grey levels: estimate" in printed.out and 'out.heatmap.png' in printed.out
    assert 'warning' not in printed.err
    (values,) = seen
    assert values.shape == (60, 80) and values[:, 60:].mean() > 1.2 * values[:, :20].mean()
    assert len(drawn[0]['bands']) == len(drawn[0]['scores_std']) == 5
    assert cv2.imread(str(out)).shape == (13 * 60, 13 * 80, 3)
    assert cv2.imread(str(tmp_path / 'out.heatmap.png')) is not None

    cv2.imwrite(str(tmp_path / 'turned.png'), cv2.imread(str(half))[:, ::-1])
    assert draw(tool, tmp_path / 'turned.png', wrapped, calibrated, '--out', out, '--uncertainty') == 0
    assert seen[1][:, :20].mean() > 1.2 * seen[1][:, 60:].mean()

    # without the option the picture is that of the detector alone
    assert draw(tool, half, wrapped, calibrated, '--out', out) == 0
    assert drawn[2]['bands'] is None and cv2.imread(str(out)).shape == (7 * 60, 7 * 80, 3)


@pytest.mark.parametrize('method', ['jacobian', 'monte_carlo'])
def test_other_methods_draw_bands(tool, tiny_config, weights, half, tmp_path, method, capsys):
    options = ['--uncertainty', '--method', method, '--noise-std', '5', '--cfg-options', 'model.test_cfg.max_per_img=2']
    assert tool('image_demo')([str(half), str(tiny_config), weights, '--out', str(tmp_path), *CPU, *options]) == 0
    printed = capsys.readouterr()
    assert f"no heat maps: method 'propagated' has them, '{method}' does not" in printed.out
    assert '2 detections' in printed.out and 'calibrated' not in printed.err
    assert [path.name for path in tmp_path.iterdir()] == ['half.png']


def test_what_is_not_calibrated_is_told(tool, tiny_config, weights, half, tmp_path, capsys):
    assert draw(tool, half, tiny_config, weights, '--out', tmp_path, '--uncertainty') == 0
    assert 'warning: the checkpoint is not calibrated' in capsys.readouterr().err


def test_an_operation_without_a_rule_is_one_line(tool, tiny_config, weights, half, tmp_path, capsys, monkeypatch):
    from mmdet.models.necks import FPN

    forward = FPN.forward
    monkeypatch.setattr(FPN, 'forward', lambda self, x: [torch.sort(part)[0] for part in forward(self, x)])
    assert draw(tool, half, tiny_config, weights, '--out', tmp_path, '--uncertainty') == 2
    error = capsys.readouterr().err.strip().split('\n')[-1]
    assert error.startswith('error: no uncertainty of this detector:') and "'neck' (FPN)" in error and 'sort' in error
    fit = ['--detector', '--min-score', '0', '--out', str(tmp_path / 'a.pth'), *FIT]
    assert tool('calibrate_uncertainty')([str(tiny_config), weights, *fit]) == 2
    assert 'error: the detector cannot be calibrated:' in capsys.readouterr().err


def test_wrong_input_is_one_line(tool, tiny_config, wrapped, weights, half, tmp_path, capsys):
    fit = [weights, '--out', str(tmp_path / 'a.pth'), *FIT]
    shadow = half.with_name('half.heatmap.png')
    shadow.write_bytes(half.read_bytes())
    for name, words, text in [
        ('calibrate_uncertainty', [str(tiny_config), *fit, '--min-score', '0.3'], 'add --detector to fit them'),
        ('calibrate_uncertainty', [wrapped, *fit, '--min-score', '0.99'], '0 detections with a score of at least 0.99'),
        (
            'image_demo',
            [str(half.parent), wrapped, weights, '--out', str(tmp_path / 'o'), '--uncertainty'],
            'rename it',
        ),
        (
            'image_demo',
            [str(shadow), wrapped, weights, '--out', str(half), '--uncertainty'],
            "half.heatmap.png'; rename it, or give another --out",
        ),
    ]:
        assert tool(name)(words) == 2
        error = capsys.readouterr().err.strip().split('\n')[-1]
        assert error.startswith('error: ') and text in error
    assert not (tmp_path / 'a.pth').exists()


@pytest.mark.parametrize('words, text', [
    (['--method', 'jacobian'], '--method jacobian needs --uncertainty'),
    (['--noise-std', '3'], '--noise-std 3.0 needs --uncertainty'),
    (['--uncertainty', '--noise-std', '-3'], "'-3' must be grey levels, such as 8, or 'estimate'"),
    (['--uncertainty', '--noise-std', 'loud'], "'loud' must be grey levels"),
])  # fmt: skip
def test_wrong_options(tool, words, text, capsys):
    with pytest.raises(SystemExit) as stop:
        tool('image_demo')(['a.png', 'c.py', 'c.pth', '--out', 'b.png', *words])
    assert stop.value.code == 2 and text in capsys.readouterr().err
