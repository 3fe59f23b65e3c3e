"""The hosts' own tools on this package's configs and results, run in this process."""

import pickle
import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import FunctionType

import pytest
import torch
from mmengine.config import Config

import mmrotate_plugin
from mmrotate_plugin.apis.config import register_hosts

pytest.importorskip('mmrotate')
BASE = "_base_ = __import__('mmrotate_plugin').config_file('synthetic/rotated-fcos_re18_fpn_synthetic.py')\n"


def host_tool(name, monkeypatch):
    """A program of mmrotate, read as Python does before any of its functions runs."""
    path = Path(find_spec('mmrotate').origin).parent / '.mim/tools/analysis_tools' / f'{name}.py'
    if not path.is_file():
        pytest.skip('mmrotate is installed without its tools')
    monkeypatch.setenv('MPLBACKEND', 'Agg')
    spec = spec_from_file_location(f'host_{name}', path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_config_names_ours_as_its_base_in_any_tool(tmp_path, monkeypatch):
    from mmengine.config import utils

    monkeypatch.delitem(utils.MODULE2PACKAGE, 'mmrotate_plugin')  # as in a tool of the hosts
    config = tmp_path / 'config.py'
    config.write_text(BASE)
    assert Config.fromfile(config).model.backbone.type == 'mmrotate_plugin.ReResNet'
    config.write_text("_base_ = 'mmrotate_plugin::synthetic/rotated-fcos_re18_fpn_synthetic.py'\n")
    with pytest.raises(AssertionError, match='does not support to load mmrotate_plugin'):
        Config.fromfile(config)  # when this works, the other way need not be documented
    with pytest.raises(FileNotFoundError, match='did you mean s2anet/s2anet-le135_re50_fpn_1x_dota.py'):
        mmrotate_plugin.config_file('s2anet/s2anet-le90_re50_fpn_1x_dota.py')


def test_mmrotate_alone_stops_at_an_image_without_objects():
    """When this fails, mmrotate is mended, and `_mend_converters` of host_mends.py can go."""
    converters = import_module('mmrotate.structures.bbox.box_converters')
    register_hosts()
    own = converters.__dict__['_qbox2rbox_of_mmrotate']
    with pytest.raises(RuntimeError):
        own(torch.zeros(0))
    boxes = torch.tensor([[0.0, 0, 4, 0, 4, 2, 0, 2], [1.0, 1, 3, 3, 2, 4, 0, 2]])
    assert torch.equal(converters.qbox2rbox(boxes), own(boxes))
    assert [converters.qbox2rbox(torch.zeros(shape)).shape for shape in ((0,), (0, 8), (3, 0, 8))] == [
        (0, 5), (0, 5), (3, 0, 5),
    ]  # fmt: skip
    assert isinstance(own, FunctionType)


def test_confusion_matrix_of_predictions(tmp_path, monkeypatch, capsys):
    """Three images: a hit, a false alarm on an image without objects, a miss."""
    tool = host_tool('confusion_matrix', monkeypatch)
    register_hosts()
    import cv2
    import numpy as np

    lines = {'hit': '10 10 40 10 40 20 10 20 plane 0\n', 'empty': '', 'missed': '10 10 40 10 40 20 10 20 ship 0\n'}
    for folder in ('images', 'labels'):
        (tmp_path / folder).mkdir()
    for name, text in lines.items():
        cv2.imwrite(str(tmp_path / f'images/{name}.png'), np.zeros((64, 64, 3), np.uint8))
        (tmp_path / f'labels/{name}.txt').write_text(text)
    dataset = {
        'type': 'mmrotate_plugin.DOTADataset', 'data_root': f'{tmp_path}/', 'ann_file': 'labels/', 'pipeline': [],
        'data_prefix': {'img_path': 'images/'}, 'metainfo': {'classes': ('plane', 'ship')}, 'test_mode': True,
    }  # fmt: skip
    config, predictions, out = tmp_path / 'c.py', tmp_path / 'p.pkl', tmp_path / 'out'
    config.write_text(f'{BASE}test_dataloader = dict(dataset=dict(_delete_=True, **{dataset!r}))\n')
    box, none = torch.tensor([[25.0, 15, 30, 10, 0]]), torch.zeros(0, 5)
    found = {'empty': box, 'hit': box, 'missed': none}  # in order of their names
    results = [
        {'pred_instances': {'bboxes': b, 'scores': torch.ones(len(b)), 'labels': torch.zeros(len(b), dtype=torch.long)}}
        for b in found.values()
    ]
    predictions.write_bytes(pickle.dumps(results))
    seen = []
    monkeypatch.setattr(tool, 'plot_confusion_matrix', lambda matrix, *_, **__: seen.append(matrix.tolist()))
    monkeypatch.setattr(sys, 'argv', ['confusion_matrix.py', str(config), str(predictions), str(out)])
    tool.main()
    assert seen == [[[1, 0, 0], [0, 0, 1], [1, 0, 0]]]  # rows: truth, the last the background
    capsys.readouterr()


def test_get_flops_of_mmrotate_counts_equivariant_layers(tmp_path, monkeypatch, capsys):
    tool = host_tool('get_flops', monkeypatch)
    counts = []
    for type_ in ("type='mmrotate_plugin.ReResNet', group='C4'", "type='mmdet.ResNet'"):
        config = tmp_path / 'c.py'
        backbone = f'_delete_=True, {type_}, depth=18, base_channels=8, num_stages=3, strides=(1, 2, 2), '
        backbone += 'dilations=(1, 1, 1), out_indices=(0, 1, 2)'
        config.write_text(f'{BASE}model = dict(backbone=dict({backbone}), neck=dict(in_channels=[8, 16, 32]))\n')
        monkeypatch.setattr(sys, 'argv', ['get_flops.py', str(config), '--shape', '65', '--size-divisor', '-1'])
        tool.main()
        counts += [line for line in capsys.readouterr().out.splitlines() if line.startswith('Flops: ')]
    assert len(counts) == 2 and counts[0] == counts[1], counts
