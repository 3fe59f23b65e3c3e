"""The backbones train as classifiers in mmpretrain, and what they learnt starts a detector."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from mmrotate_plugin.models.utils.weight_check import MisfitError

CONFIGS = Path(__file__).parents[1] / 'configs'
NAMES = ['re-resnet18_8xb32_in1k', 'adf-resnet18_8xb32_in1k']

pytest.importorskip('mmpretrain', reason='mmpretrain is not installed')


def classifier(name, **backbone):
    """The classifier of a config, narrower and with five classes."""
    cfg = Config.fromfile(CONFIGS / 'imagenet' / f'{name}.py')
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.update(base_channels=16, **backbone)
    cfg.model.head.update(in_channels=128, num_classes=5, topk=(1,))
    cfg.data_preprocessor.num_classes = 5
    net = MODELS.build(dict(**cfg.model, data_preprocessor=cfg.data_preprocessor))
    net.init_weights()
    return net


def batch(net, number=4, size=33):
    from mmpretrain.structures import DataSample

    images = [torch.randint(0, 256, (3, size, size), dtype=torch.uint8) for _ in range(number)]
    samples = [DataSample().set_gt_label(i) for i in range(number)]
    return net.data_preprocessor(dict(inputs=images, data_samples=samples), net.training)


@pytest.mark.parametrize(
    'name, options', [(NAMES[0], {}), (NAMES[1], {}), (NAMES[1], dict(mean='adf', noise_variance=0.01))]
)
def test_a_classifier_learns_the_images_it_is_shown(name, options):
    net = classifier(name, **options)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    data = batch(net)
    before = {key: value.clone() for key, value in net.backbone.named_parameters()}
    losses = []
    for _ in range(8):
        loss, _ = net.parse_losses(net(**data, mode='loss'))
        optimizer.zero_grad()
        loss.backward()
        assert not [key for key, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    assert not [key for key, value in net.backbone.named_parameters() if torch.equal(value, before[key])]

    net.eval()
    with torch.no_grad():
        results = net(**data, mode='predict')
    assert all(result.pred_score.shape == (5,) and result.pred_score.isfinite().all() for result in results)


@pytest.mark.parametrize('name', NAMES)
def test_pretrained_weights_start_a_detector(name, tmp_path):
    pytest.importorskip('mmdet')
    net = classifier(name)
    for norm in net.backbone.modules():  # statistics as training leaves them, not zeros and ones
        if getattr(norm, 'running_mean', None) is not None:
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    file = tmp_path / 'epoch_100.pth'
    torch.save(dict(state_dict=net.state_dict(), meta={}), file)

    cfg = Config.fromfile(CONFIGS / 'retinanet' / 'retinanet_re18_fpn_1x_coco.py')
    init_default_scope(cfg.default_scope)
    cfg.model.neck.in_channels = [16, 32, 64, 128]
    kind = 'ADFResNet' if name.startswith('adf') else 'ReResNet'
    learnt = dict(type='Pretrained', checkpoint=str(file), prefix='backbone.')
    cfg.model.backbone = dict(type=f'mmrotate_plugin.{kind}', depth=18, base_channels=16, init_cfg=learnt)
    detector = MODELS.build(cfg.model)

    x = torch.rand(1, 3, 65, 65)
    expected = net.eval().backbone(x)[-1]
    assert not torch.allclose(detector.eval().backbone(x)[-1], expected)
    detector.init_weights()
    assert torch.equal(detector.eval().backbone(x)[-1], expected)

    if kind == 'ReResNet':
        del learnt['prefix']
        cfg.model.backbone.init_cfg = learnt
        with pytest.raises(MisfitError, match="add prefix='backbone.'"):
            MODELS.build(cfg.model).init_weights()


@pytest.mark.parametrize('name', sorted(file.stem for file in (CONFIGS / 'imagenet').glob('*.py')))
def test_images_of_the_configs_keep_their_centre(name):
    cfg = Config.fromfile(CONFIGS / 'imagenet' / f'{name}.py')
    sizes = [
        step['scale' if kind == 'RandomResizedCrop' else 'crop_size']
        for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader)
        for step in loader.dataset.pipeline
        if (kind := step['type'].rpartition('.')[2]) in ('RandomResizedCrop', 'CenterCrop')
    ]
    assert sizes == [225] * 3 and 225 % 32 == 1
