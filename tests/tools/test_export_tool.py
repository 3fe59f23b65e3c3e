"""From the command line to files that mmdet reads where this package and e2cnn cannot be imported."""

import contextlib
import io
import json
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip('mmrotate')
pytest.importorskip('onnxruntime')
pytest.importorskip('safetensors')

from mmengine.config import Config
from safetensors import safe_open

from mmrotate_plugin.apis import inference
from mmrotate_plugin.apis.config import load_config
from mmrotate_plugin.datasets.synthetic.scenes import CLASSES
from mmrotate_plugin.export import Unsupported, standalone_modules, verification, writers
from mmrotate_plugin.export.verification import Difference, Prediction
from mmrotate_plugin.testing import randomize_norms_

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = {
    'fcos': ROOT / 'configs/synthetic/rotated-fcos_re18_fpn_synthetic.py',
    'redet': ROOT / 'configs/synthetic/redet_re18_refpn_synthetic.py',
    'adf': ROOT / 'configs/adf/uncertain-rotated-fcos_adfr18_fpn_synthetic.py',
}
SMALL = ['--cfg-options', 'test_dataloader.dataset.pipeline.1.scale=97']
ALL = ['config.py', 'export.json', 'exported_symmetric_resize.py', 'model.onnx', 'weights.pth', 'weights.safetensors']


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory):
    """Random weights and norms, with heads that find something."""
    folder, paths = tmp_path_factory.mktemp('checkpoints'), {}
    for name, config in CONFIGS.items():
        torch.manual_seed(0)
        model = randomize_norms_(inference.build_model(load_config(str(config))))
        if name != 'redet':
            torch.nn.init.normal_(model.bbox_head.conv_cls.weight, std=0.1)
            torch.nn.init.normal_(model.bbox_head.conv_reg.weight, std=0.05)
        paths[name] = folder / f'{name}.pth'
        torch.save({'state_dict': model.state_dict(), 'meta': {}}, paths[name])
    return paths


@pytest.fixture(scope='module')
def exported(checkpoints, tool, tmp_path_factory):
    """Folders that the tool wrote, what the detectors found, and what was printed. The child process comes later."""
    folder, found, printed = tmp_path_factory.mktemp('exported'), {}, {}
    predict = verification.predict_here
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            verification, 'predict_without_us', lambda jobs: [Prediction([], [], [], [], ['mmdet']) for _ in jobs]
        )
        patch.setattr(verification, 'compare', lambda *_: Difference(0, 0, 0, 1, 0, 1e-4))
        for name, options in (
            ('fcos', ['--onnx', 'heads', '--dynamic', *SMALL]), ('redet', SMALL), ('adf', SMALL)
        ):  # fmt: skip

            def keep(detector, image, name=name):
                found[name] = image, predict(detector, image)
                return found[name][1]

            patch.setattr(verification, 'predict_here', keep)
            with contextlib.redirect_stdout(io.StringIO()) as out:
                command = [str(CONFIGS[name]), str(checkpoints[name]), '--out', str(folder / name), *options]
                assert tool('export')(command) == 0
            printed[name] = out.getvalue()
    return folder, found, printed


def test_detections_are_equal_where_this_package_and_e2cnn_cannot_be_imported(exported, tmp_path):
    folder, found, _ = exported
    changed = torch.load(folder / 'fcos' / writers.CHECKPOINT)
    changed['state_dict']['backbone.layer1.0.conv1.weight'][0].mul_(1.5)
    torch.save(changed, tmp_path / 'changed.pth')
    jobs = []
    for name, (image, _) in found.items():
        cv2.imwrite(str(tmp_path / f'{name}.png'), image)
        jobs.append((folder / name / writers.CONFIG, folder / name / writers.CHECKPOINT, tmp_path / f'{name}.png'))
    jobs.append((jobs[0][0], tmp_path / 'changed.pth', jobs[0][2]))
    *there, wrong = verification.predict_without_us(jobs)
    for name, prediction in zip(found, there, strict=True):
        image, here = found[name]
        difference = verification.compare(here, prediction, max(image.shape[:2]), 1e-4)
        assert difference.passes and difference.count > 20, (name, difference)
        assert prediction.parts == ['mmdet.models.backbones.resnet.ResNet', 'mmdet.models.necks.fpn.FPN']
        assert prediction.classes == list(CLASSES)
        assert prediction.maps[0].shape[-1] in (13, 25), 'the resizing of the config was done there too'
    assert not verification.compare(found['fcos'][1], wrong, max(found['fcos'][0].shape[:2]), 1e-4).passes


def test_files_and_what_they_say(exported):
    folder, _, printed = exported
    for name in CONFIGS:
        have = sorted(file.name for file in (folder / name).iterdir())
        assert have == sorted([*ALL, 'exported_ri_roi_align.py'] if name == 'redet' else ALL)
        for file in (folder / name).glob('*.py'):
            code = '\n'.join(line for line in file.read_text().splitlines() if not line.startswith('#'))
            assert 'mmrotate_plugin' not in code and 'e2cnn' not in code and 'from .' not in code
        state = torch.load(folder / name / writers.CHECKPOINT)
        assert len(state['meta']['dataset_meta']['classes']) == len(state['meta']['dataset_meta']['palette']) == 5
        with safe_open(folder / name / writers.SAFETENSORS, 'pt') as tensors:
            assert sorted(tensors.keys()) == sorted(state['state_dict'])
            assert all(torch.equal(tensors.get_tensor(key), value) for key, value in state['state_dict'].items())
            assert json.loads(tensors.metadata()['classes']) == list(state['meta']['dataset_meta']['classes'])
        report = json.loads((folder / name / writers.REPORT).read_text())
        assert all(output['difference'] < 1e-4 for output in report['onnx']['outputs'].values())
        assert report['onnx']['input']['image'] == [1, 3, 97, 97] and len(report['onnx']['input']['mean']) == 3
        assert 'make_synthetic.py' in printed[name]
    assert len(json.loads((folder / 'fcos' / writers.REPORT).read_text())['onnx']['checked_sizes']) == 2
    adf = json.loads((folder / 'adf' / writers.REPORT).read_text())['onnx']['outputs']
    assert list(adf) == ['level0_mean', 'level0_var', 'level1_mean', 'level1_var']
    assert 'CascadeRoIHead, with its RoI align, stays in torch' in printed['redet']
    assert 'gains are left out' in printed['adf'] and 'UncertainDetector stay here' in printed['adf']


def test_configs_are_for_the_hosts_alone(exported):
    cfg = Config.fromfile(exported[0] / 'redet' / writers.CONFIG)
    assert cfg.custom_imports.imports == ['exported_ri_roi_align', 'exported_symmetric_resize']
    assert cfg.model.type == 'mmdet.CascadeRCNN' and cfg.model.backbone.type == 'mmdet.ResNet'
    assert cfg.model.neck.upsample_cfg == dict(mode='bilinear', align_corners=True), 'sides of 32m + 1'
    assert cfg.model.roi_head.bbox_roi_extractor[1].roi_layer.type == standalone_modules.ROI_ALIGN
    for part in ('train', 'val', 'test'):
        dataset = cfg[f'{part}_dataloader'].dataset
        assert dataset.type == 'mmrotate.DOTADataset' and dataset.pipeline[0].type == 'LoadImageFromFile'
        assert 'length' not in dataset and dataset.data_root.startswith('data/synthetic/')
    assert not {'synthetic_train', 'group', 'work_dir', 'load_from'} & set(cfg)
    adf = Config.fromfile(exported[0] / 'adf' / writers.CONFIG)
    assert [metric.type for metric in adf.test_evaluator] == ['mmrotate.DOTAMetric']


def test_what_still_needs_e2cnn_is_noticed(tool, checkpoints, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(writers, 'FIND', "__import__('e2cnn')\n")
    command = [str(CONFIGS['fcos']), str(checkpoints['fcos']), '--out', str(tmp_path / 'out'), '--formats', 'config']
    assert tool('export')([*command, *SMALL]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith('error: cannot export: the exported config does not work without this package: ')
    assert 'e2cnn' in error and list((tmp_path / 'out').iterdir()) == []


def test_a_failed_check_leaves_nothing(tool, checkpoints, tmp_path, capsys):
    command = [str(CONFIGS['fcos']), str(checkpoints['fcos']), '--out', str(tmp_path), '--formats', 'onnx']
    assert tool('export')([*command, '--tol', '1e-12', *SMALL]) == 1
    assert 'check failed, nothing was written: onnxruntime differs from torch' in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_images_that_are_given_are_used(tool, checkpoints, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / 'image.png'), np.random.default_rng(0).integers(0, 255, (50, 97, 3), np.uint8))
    command = [str(CONFIGS['fcos']), str(checkpoints['fcos']), '--formats', 'onnx', '--out', str(tmp_path / 'out')]
    assert tool('export')([*command, '--img', str(tmp_path / 'image.png'), *SMALL]) == 0
    assert json.loads((tmp_path / 'out' / writers.REPORT).read_text())['onnx']['input']['image'] == [1, 3, 65, 97]
    assert 'image.png, 97 x 50 pixels' in capsys.readouterr().out


def test_wrong_input_is_one_line(tool, checkpoints, tmp_path, capsys, monkeypatch):
    fcos, redet, out = str(CONFIGS['fcos']), str(checkpoints['redet']), str(tmp_path / 'out')
    (tmp_path / 'file').write_text('')

    def error(*args):
        assert tool('export')([*args]) == 2
        return capsys.readouterr().err.strip().splitlines()[-1]

    assert 'does not fit' in error(str(CONFIGS['redet']), str(checkpoints['fcos']), '--out', out)
    assert "checkpoint 'no.pth' does not exist" in error(fcos, 'no.pth', '--out', out)
    assert "--out '" in (text := error(fcos, redet, '--out', str(tmp_path / 'file'))) and 'cannot be written' in text
    good = [fcos, str(checkpoints['fcos']), '--out', out]
    assert "--img: 'no.png' cannot be read" in error(*good, '--img', 'no.png')
    pooled = [str(CONFIGS['redet']), redet, '--out', out, '--formats', 'config', *SMALL, 'model.neck.group_pool=max']
    assert 'pools its orientations away' in error(*pooled)
    shutil.copy(checkpoints['fcos'], tmp_path / 'weights.pth')
    text = error(fcos, str(tmp_path / 'weights.pth'), '--out', str(tmp_path))
    assert 'which would be replaced; give another folder' in text
    for package, rest in (('onnx', 'onnx, or'), ('safetensors', 'safetensors, or')):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            assert f'{package} cannot be imported: pip install {rest} leave the format out' in error(*good)
    with pytest.raises(SystemExit) as stop:
        tool('export')([*good, '--formats', 'config', '--dynamic'])
    assert stop.value.code == 2 and '--dynamic is about ONNX' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        tool('export')([*good, '--opset', '0'])
    assert '--opset must be 16 to 20, not 0' in capsys.readouterr().err


def test_parts_of_ours_without_a_counterpart_are_refused():
    from mmengine.registry import init_default_scope

    from mmrotate_plugin.export.runtime_config import plain_imports, plain_runtime
    from mmrotate_plugin.registry import TRANSFORMS

    init_default_scope('mmrotate')
    dota = dict(type='mmrotate_plugin.DOTADataset', strict=True, data_root='d/', ann_file='a/')
    runtime = Config(dict(
        train_dataloader=dict(dataset=dict(type='RepeatDataset', times=2, dataset=dota)),
        test_dataloader=dict(dataset=dict(dota, test_mode=True, img_suffix=['png', 'jpg'])),
        test_evaluator=dict(type='mmrotate_plugin.UncertaintyMetric'),
        custom_hooks=[dict(type='mmrotate_plugin.EquivarianceHook'), dict(type='EMAHook')],
        default_hooks=dict(mine=dict(type='mmrotate_plugin.StopAtDivergenceHook')), group='C8',
        optim_wrapper=dict(type='BFloat16OptimWrapper', optimizer=dict(type='SGD', lr=1))))  # fmt: skip
    plain, notes, needed = plain_runtime(runtime)
    assert not needed and 'mmrotate_plugin' not in str(plain) and 'group' not in plain
    assert plain['train_dataloader']['dataset']['dataset'] == dict(
        type='mmrotate.DOTADataset', data_root='d/', ann_file='a/'
    )
    assert plain['test_dataloader']['dataset'] == dict(  # difficult objects are ignored there as here
        type='mmrotate.DOTADataset', data_root='d/', ann_file='a/', test_mode=True, img_suffix='png', diff_thr=0
    )
    assert any("reads one ending of images, 'png'" in note for note in notes)
    assert plain['custom_hooks'] == [dict(type='EMAHook')] and plain['default_hooks'] == {}
    assert plain['test_evaluator'] == [] and plain['optim_wrapper']['type'] == 'OptimWrapper'
    assert any(note.startswith('train_dataloader.dataset.dataset, test_dataloader.dataset: ') for note in notes)
    assert 'custom_hooks.0: EquivarianceHook is left out' in notes

    resize = dict(type='RandomChoiceResize', resize_type='mmrotate_plugin.SymmetricResize', scales=[65])
    plain, _, needed = plain_runtime(Config(dict(test_dataloader=dict(dataset=dict(pipeline=[resize])))))
    assert needed == {standalone_modules.RESIZE}
    assert plain['test_dataloader']['dataset']['pipeline'][0]['resize_type'] == standalone_modules.RESIZE

    @TRANSFORMS.register_module(force=True)
    class Unknown(TRANSFORMS.get('mmrotate_plugin.SymmetricResize')):
        pass

    Unknown.__module__ = 'mmrotate_plugin.datasets'
    pipeline = [dict(type='mmrotate_plugin.Unknown')]
    with pytest.raises(Unsupported, match=r'test_dataloader\.dataset\.pipeline\.0: the transform Unknown has no'):
        plain_runtime(Config(dict(test_dataloader=dict(dataset=dict(pipeline=pipeline)))))
    TRANSFORMS.module_dict.pop('Unknown')

    theirs = dict(custom_imports=dict(imports=['mmrotate_plugin.override_mmrotate', 'mine']))
    assert plain_imports(theirs, ['extra'])['custom_imports']['imports'] == ['mine', 'extra']
    assert plain_imports(dict(custom_imports=dict(imports='mmrotate_plugin')), []) == {}
