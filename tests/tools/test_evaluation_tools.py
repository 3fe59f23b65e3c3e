"""Labels that are missing and names that cannot be merged, with the tools; the config has mmrotate's own metric."""

import json
import pickle
import re

import pytest

SUBMIT = 'test_evaluator.merge_patches=True'
NO_LABELS = """
_base_ = {base!r}
test_dataloader = dict(dataset=dict(pipeline=[_base_.image, _base_.size, _base_.meta]))
test_evaluator = dict(_delete_=True, type={metric!r})
"""


@pytest.mark.parametrize('metric', ['DOTAMetric', 'mmrotate_plugin.DOTAMetric', 'mmdet.VOCMetric'])
def test_predictions_are_written_and_no_number_is_invented(metric, tool, tiny_config, trained, tmp_path):
    (tmp_path / 'no_labels.py').write_text(NO_LABELS.format(base=str(tiny_config), metric=metric))
    command = [str(tmp_path / 'no_labels.py'), str(trained / 'epoch_1.pth'), '--work-dir', str(tmp_path)]
    assert tool('test')([*command, '--out', str(tmp_path / 'out.pkl')]) == 0
    assert json.loads((tmp_path / 'test_metrics.json').read_text())['metrics'] == {}
    assert len(pickle.loads((tmp_path / 'out.pkl').read_bytes())) == 6


@pytest.mark.parametrize('metric', ['DOTAMetric', 'mmrotate_plugin.DOTAMetric'])
def test_a_submission_is_refused_first(metric, tool, tiny_config, trained, tmp_path, capsys, monkeypatch):
    from mmengine.runner import Runner

    monkeypatch.setattr(Runner, 'test', lambda _: pytest.fail('the test began'))
    command = [str(tiny_config), str(trained / 'epoch_1.pth'), '--work-dir', str(tmp_path)]
    command += ['--cfg-options', f'test_evaluator.type={metric}', SUBMIT]
    assert tool('test')([*command, f'test_evaluator.outfile_prefix={tmp_path / "sub"}']) == 2
    assert re.search("error: image 'scene.': the name does not say where the patch was", capsys.readouterr().err)
    assert tool('test')(command) == 2
    assert 'outfile_prefix must say where' in capsys.readouterr().err
