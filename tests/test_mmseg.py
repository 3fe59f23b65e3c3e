"""The backbones are encoders of mmsegmentation."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData

import mmrotate_plugin  # noqa: F401

FOLDER = Path(__file__).parents[1] / 'configs' / 'segmentation'
NAMES = sorted(file.stem for file in FOLDER.glob('*.py'))

pytest.importorskip('mmseg', reason='mmsegmentation is not installed')


@pytest.mark.parametrize('name', NAMES)
def test_segmentation_network_trains_and_predicts(name):
    from mmseg.structures import SegDataSample

    size = 65
    cfg = Config.fromfile(FOLDER / f'{name}.py')
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.base_channels = 16
    cfg.model.decode_head.update(in_channels=128, channels=16)
    cfg.model.data_preprocessor.size = (size, size)
    net = MODELS.build(cfg.model)
    net.init_weights()

    def batch():
        inputs, samples = [], []
        for _ in range(2):
            sample = SegDataSample(metainfo=dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape'), (size, size)))
            sample.gt_sem_seg = PixelData(data=torch.randint(0, 6, (1, size, size)))
            inputs.append(torch.randint(0, 256, (3, size, size), dtype=torch.uint8))
            samples.append(sample)
        return net.data_preprocessor(dict(inputs=inputs, data_samples=samples), net.training)

    loss, _ = net.parse_losses(net(**batch(), mode='loss'))
    loss.backward()
    assert loss.isfinite()
    assert not [key for key, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    maps = net.backbone(torch.rand(1, 3, size, size))
    assert [tuple(x.shape[1:]) for x in maps] == [(16, 17, 17), (32, 9, 9), (64, 9, 9), (128, 9, 9)]  # stride 8

    net.eval()
    with torch.no_grad():
        results = net(**batch(), mode='predict')
    assert all(result.pred_sem_seg.data.shape == (1, size, size) for result in results)


@pytest.mark.parametrize('name', NAMES)
def test_images_of_the_configs_keep_their_centre(name):
    cfg = Config.fromfile(FOLDER / f'{name}.py')
    sides = {
        tuple(step[key])
        for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader)
        for step in loader.dataset.pipeline
        for key in ('scale', 'crop_size')
        if key in step
    }
    assert sides == {tuple(cfg.model.data_preprocessor.size)} and all(side % 32 == 1 for side in next(iter(sides)))
