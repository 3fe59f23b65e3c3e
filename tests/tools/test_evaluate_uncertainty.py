"""The tool on a detector trained for an epoch, twice: whole results, repeatable, and one-line errors."""

import json

import pytest
import torch

FEW = ['--num-images', '4', '--num-fit', '3', '--num-samples', '8', '--num-jacobian', '1', '--device', 'cpu']
METHODS = ['--methods', 'confidence', 'uncalibrated', 'propagated', 'jacobian', 'monte_carlo']


@pytest.fixture(scope='module')
def checkpoints(trained, tmp_path_factory):
    """Two trainings, made sure of something: after one epoch all scores are near 0."""
    folder = tmp_path_factory.mktemp('sure')
    paths = []
    for bias in (5.0, 4.5):
        file = torch.load(trained / 'epoch_1.pth', weights_only=False)
        for name in ('conv_cls', 'conv_centerness'):
            file['state_dict'][f'bbox_head.{name}.bias'] += bias
        paths.append(str(folder / f'{bias:g}.pth'))
        torch.save(file, paths[-1])
    return paths


@pytest.fixture
def evaluate(tool):
    return tool('evaluate_uncertainty')


@pytest.mark.slow
def test_writes_tables_of_all_trainings(evaluate, tiny_config, checkpoints, tmp_path, capsys):
    out = tmp_path / 'new' / 'results'
    args = [str(tiny_config), *checkpoints, '--corruptions', 'blur:1', *METHODS, *FEW]
    assert evaluate([*args, '--out', str(out)]) == 0
    tables = (out / 'uncertainty.md').read_text()
    assert tables in capsys.readouterr().out
    assert '### blur:1, detector told 4 grey levels' in tables
    results = json.loads((out / 'uncertainty.json').read_text())
    assert results['plan']['num_images'] == 4 and results['checkpoints'] == checkpoints
    assert set(results['each']) == set(checkpoints) and list(results['summary']) == ['clean', 'blur:1']
    for each in results['each'].values():
        rows = each['blur:1']['methods']
        assert list(rows) == METHODS[1:]
        assert rows['monte_carlo']['raw']['ratio_cx'] == 1
        # the detections are the same for all ways; calibration moves their deviations
        assert len({rows[row]['raw']['detections'] for row in ('confidence', 'uncalibrated', 'propagated')}) == 1
        before, after = (rows[row]['raw']['ratio_score'] for row in ('uncalibrated', 'propagated'))
        assert after != before  # a detector of one epoch needs little of it
        assert 0.3 < rows['jacobian']['raw']['ratio_score'] < 3  # of eight samples on one image
    a, b = (results['each'][path]['blur:1']['methods']['propagated']['raw'] for path in checkpoints)
    mean = results['summary']['blur:1']['methods']['propagated']['raw']['ratio_score']['mean']
    assert mean == pytest.approx((a['ratio_score'] + b['ratio_score']) / 2) and a != b


def test_wrong_input_is_one_line(evaluate, tiny_config, checkpoints, tmp_path, capsys):
    config, out = str(tiny_config), ['--out', str(tmp_path / 'out'), *FEW]
    for words, text in [
        ([config, checkpoints[0], *out], "method 'dropout' needs dropout layers"),
        ([config, 'nowhere.pth', *out], "checkpoint 'nowhere.pth' does not exist"),
        ([config, *checkpoints[:1] * 2, *out], 'a checkpoint is named twice'),
        ([config, checkpoints[0], *out, '--corruptions', 'fog:1'], "corruption 'fog' is unknown"),
        ([config, checkpoints[0], *out, '--methods', 'magic'], "method 'magic' is unknown"),
        ([config, checkpoints[0], *out, *METHODS, '--num-images', '50'], 'test set has 6 images, and 50 are wanted'),
        ([config, checkpoints[0], *out, *METHODS, '--assumed-noise', '0'], 'assumed_noise=0.0 must be'),
    ]:
        assert evaluate(words) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith('error: ') and text in error


def test_too_few_detections_are_named(evaluate, tiny_config, trained, tmp_path, capsys):
    args = [str(tiny_config), str(trained / 'epoch_1.pth'), '--out', str(tmp_path), '--corruptions', 'gaussian:8']
    args += ['--cfg-options', 'model.test_cfg.score_thr=0.9', '--methods', 'propagated']
    assert evaluate([*args, *FEW]) == 2
    assert 'are too few for the fit' in capsys.readouterr().err
