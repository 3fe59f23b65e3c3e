import copy
from pathlib import Path

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from narrow import narrow_
from torch import nn

from mmrotate_plugin.adf import Gaussian, NoMomentRule
from mmrotate_plugin.models.detectors.uncertain_detector import UncertainDetector
from mmrotate_plugin.models.uncertainty.detector_calibration import calibrate_detector

mmrotate = pytest.importorskip('mmrotate')

MMROTATE = Path(mmrotate.__file__).parent / '.mim' / 'configs'
SIZE = 65
# one of a stage, one of three; test_detectors_pass.py has more
NAMES = {
    'rotated_retinanet oc': MMROTATE / 'rotated_retinanet/rotated-retinanet-hbox-oc_r50_fpn_1x_dota.py',
    'roi_trans': MMROTATE / 'roi_trans/roi-trans-le90_r50_fpn_1x_dota.py',
}


def build(path):
    """A detector of random weights, of ResNet-18 and with narrow heads, that finds something."""
    from mmdet.registry import MODELS
    from mmrotate.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    cfg = Config.fromfile(path)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    cfg.model.backbone = dict(type='mmdet.ResNet', depth=18, out_indices=(0, 1, 2, 3))
    if 'rpn_head' not in cfg.model:  # boxes of narrow heads of regions hardly move
        narrow_(cfg.model)
    cfg.model.neck.in_channels = [64, 128, 256, 512]
    test = cfg.model.test_cfg
    for part in (test, test.get('rcnn')):
        if part is not None:
            part.update(score_thr=0.001, max_per_img=4)
    if 'rpn' in test:
        test.rpn.update(nms_pre=60, max_per_img=20)
    torch.manual_seed(0)
    net = MODELS.build(cfg.model)
    net.init_weights()
    for module in net.modules():  # heads begin with weights of 0.01, which hide what a wrong derivative does
        if isinstance(module, nn.Conv2d) and module.out_channels < 100 and module.weight.std() < 0.02:
            nn.init.normal_(module.weight, std=0.05)
    return net.eval()


def sample():
    meta = dict(img_shape=(SIZE, SIZE), ori_shape=(SIZE, SIZE), pad_shape=(SIZE, SIZE), scale_factor=(1.0, 1.0))
    return [DetDataSample(metainfo={**meta, 'img_id': 0, 'flip': False, 'batch_input_shape': (SIZE, SIZE)})]


@pytest.fixture
def image():
    return torch.randn(1, 3, SIZE, SIZE)


def tensor(boxes):
    return getattr(boxes, 'tensor', boxes)


@pytest.mark.slow
@pytest.mark.parametrize('name', NAMES)
def test_detections_stay_and_get_deviations(name, image):
    net = build(NAMES[name])
    with torch.no_grad():
        plain = net.predict(image, sample())[0].pred_instances
    assert len(plain) > 2
    out = UncertainDetector(net, noise_variance=1e-4).predict(image, sample())[0].pred_instances
    assert torch.equal(tensor(out.bboxes), tensor(plain.bboxes)) and torch.equal(out.scores, plain.scores)
    assert not tensor(out.bboxes).requires_grad
    assert out.scores_std.shape == out.scores.shape and out.bboxes_std.shape == tensor(out.bboxes).shape
    assert torch.isfinite(out.bboxes_std).all() and (out.scores_std > 0).all()
    assert (out.bboxes_std.amax(1) > 0).all()  # a side clipped at the image's border does not move
    # the other two ways are independent of each other: backward passes to the pixels, and noisy images
    if name != 'roi_trans':  # its proposals are float32
        net, image = net.double(), image.double()  # deviations of 1e-8 are those of rounding in float32
    truth = UncertainDetector(net, noise_variance=1e-6, method='monte_carlo', num_samples=100)
    truth = truth.predict(image, sample())[0].pred_instances
    first = UncertainDetector(net, noise_variance=1e-6, method='jacobian').predict(image, sample())[0].pred_instances
    moves = truth.bboxes_std > 1e-5
    ratio = (first.bboxes_std / truth.bboxes_std)[moves]
    # 5 standard errors of a standard deviation of 100 samples, and what ReLUs and poolings that switch add
    assert (ratio.median() - 1).abs() < 5 / 200**0.5
    assert ((first.scores_std / truth.scores_std).median() - 1).abs() < 5 / 200**0.5


@pytest.fixture(scope='module')
def small():
    """The detector of the embedded data, of random weights."""
    from mmdet.registry import MODELS
    from mmrotate.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    cfg = Config.fromfile(Path(__file__).parents[3] / 'configs/adf/rotated-fcos_adfr18_fpn_synthetic.py')
    init_default_scope('mmrotate')
    cfg.model.test_cfg.update(score_thr=0.0, max_per_img=12)
    torch.manual_seed(0)
    net = MODELS.build(cfg.model)
    net.init_weights()
    nn.init.normal_(net.bbox_head.conv_cls.weight, std=0.1)
    nn.init.normal_(net.bbox_head.conv_angle.weight, std=0.1)
    return cfg, net.eval()


def test_config_and_checkpoint_of_the_plain_detector_fit(small, image):
    from mmdet.registry import MODELS

    cfg, net = small
    model = MODELS.build(dict(type='mmrotate_plugin.UncertainDetector', detector=copy.deepcopy(cfg.model))).eval()
    assert set(model.state_dict()) == set(net.state_dict())
    model.load_state_dict(net.state_dict())
    with torch.no_grad():
        plain = net.predict(image, sample())[0].pred_instances
    out = model.predict(image, sample())[0].pred_instances  # with the noise of the ADFResNet
    assert torch.equal(out.scores, plain.scores) and (out.scores_std > 0).all()
    assert model.train().detector.training and not model.eval().backbone.training
    model.enabled = False
    assert 'scores_std' not in model.predict(image, sample())[0].pred_instances


def test_noisy_half_is_less_certain(small, image):
    model = UncertainDetector(small[1], noise_std='estimate', score_map=True)
    flat = torch.zeros_like(image)
    flat[..., : SIZE // 2] = image[..., : SIZE // 2]
    found = model.predict(flat, sample())[0].score_std_map
    assert found.shape == (SIZE, SIZE)
    assert found[:, :20].mean() > 3 * found[:, -20:].mean()


def test_dropout_adds_the_models_part(small, image):
    cfg, _ = small
    dropping = copy.deepcopy(cfg.model)
    dropping.backbone.dropout = 0.1
    model = UncertainDetector(dropping, dropout_samples=8).eval()
    out = model.predict(image, sample())[0].pred_instances
    torch.testing.assert_close(out.scores_std**2, out.scores_std_data**2 + out.scores_std_model**2)
    assert (out.bboxes_std_model > 0).all()
    with pytest.raises(ValueError, match='has no active layer of the kind Dropout'):
        UncertainDetector(small[1], dropout_samples=8).predict(image, sample())


def test_calibration_goes_with_the_state_dict(small):
    model = UncertainDetector(copy.deepcopy(small[1]), noise_variance=1e-3)
    images = torch.randn(3, 3, SIZE, SIZE)
    model.set_detection_error(torch.ones(5, 2))  # of an earlier calibration
    report = calibrate_detector(
        model, images, sample() * 3, 1e-3, num_held_out=1, num_samples=64, min_score=0.0, progress=False
    )
    assert 'detection_error' not in model.state_dict()  # it was fitted to deviations under other gains
    # on the image that was not fitted: within the error of 64 samples of few detections, and worse before
    for before, after in zip(report.held_out_before, report.held_out_after, strict=True):
        assert 0.6 < after.median < 1.6
        assert abs(after.median - 1) < abs(before.median - 1) + 0.1
    assert 'angle' in str(report) and report.as_dict()['detections'][0]['name'] == 'x'
    other = UncertainDetector(copy.deepcopy(small[1]), noise_variance=1e-3)
    other.load_state_dict(model.state_dict())
    a, b = (m.predict(images[:1], sample())[0].pred_instances.bboxes_std for m in (model, other))
    assert torch.equal(a, b)
    other.load_state_dict(small[1].state_dict())
    assert not torch.equal(a, other.predict(images[:1], sample())[0].pred_instances.bboxes_std)
    far = UncertainDetector(copy.deepcopy(small[1]), noise_variance=1e-2)
    far.load_state_dict(model.state_dict())
    with pytest.warns(UserWarning, match=r'calibrated at a noise variance of 0.001, but the noise is 0.01'):
        far.predict(images[:1], sample())


@pytest.mark.parametrize(
    'options, text',
    [
        (dict(method='magic'), "method='magic' is unknown"),
        (dict(noise_std=8.0, noise_variance=1e-3), 'not both'),
        (dict(noise_std='guess'), "noise_std='guess' is unknown"),
        (dict(noise_std=-1.0), 'finite and non-negative'),
        (dict(noise_std=[1.0, 2.0]), 'one number for each of 3 channels'),
        (dict(dropout_samples=1), 'dropout_samples=1'),
        (dict(num_samples=1), 'num_samples=1'),
        (dict(method='jacobian', score_map=True), 'score_map=True'),
    ],
)
def test_bad_arguments(small, options, text):
    with pytest.raises(ValueError, match=text):
        UncertainDetector(small[1], **options)


def test_a_head_may_mix_gaussians_and_tensors(small, image):
    net = copy.deepcopy(small[1])
    whole = UncertainDetector(net, noise_variance=1e-3).predict(image, sample())[0].pred_instances
    classify = net.bbox_head.conv_cls.forward
    net.bbox_head.conv_cls.forward = lambda x: classify(x.mu if isinstance(x, Gaussian) else x)
    part = UncertainDetector(net, noise_variance=1e-3).predict(image, sample())[0].pred_instances
    assert torch.equal(part.scores, whole.scores) and torch.equal(part.bboxes_std, whole.bboxes_std)
    assert (part.scores_std < whole.scores_std).all()  # what is left comes from the centerness
    assert (part.bboxes_std > 0).any()


def test_operations_without_a_rule_name_their_module(small, image):
    net = copy.deepcopy(small[1])
    net.neck.fpn_convs[0].conv.forward = lambda x: torch.cumsum(x, 1)
    with pytest.raises(NoMomentRule, match=r"module 'neck.*cumsum.*has no moment rule"):
        UncertainDetector(net, noise_std=8.0).predict(image, sample())


def test_unsupported_heads_say_what_is_supported(small, image):
    net = copy.deepcopy(small[1])
    decode = net.bbox_head.bbox_coder.decode
    net.bbox_head.bbox_coder.decode = lambda *args, **kwargs: decode(*args, **kwargs).data
    with pytest.raises(TypeError, match='supported are single-stage'):
        UncertainDetector(net, noise_std=8.0).predict(image, sample())
    del net.bbox_head
    with pytest.raises(TypeError, match='has no head of a known kind: supported are'):
        UncertainDetector(net, noise_std=8.0)


def test_a_plain_backbone_needs_a_noise(small):
    net = copy.deepcopy(small[1])
    net.backbone = nn.Conv2d(3, 4, 3)
    with pytest.raises(ValueError, match='the noise of the image is missing'):
        UncertainDetector(net)


def test_fitted_errors_go_with_the_state_dict(small):
    """Ground truth at known distances from the detections: the standard deviation becomes that of the distance."""
    from mmengine.structures import InstanceData
    from mmrotate.structures import RotatedBoxes

    from mmrotate_plugin.evaluation.error_fit import fit_detector_errors

    model = UncertainDetector(copy.deepcopy(small[1]), noise_variance=1e-3)
    images = [torch.randint(0, 255, (3, SIZE, SIZE), dtype=torch.uint8) for _ in range(2)]
    batches = []
    for image in images:
        (found,) = model.test_step(dict(inputs=[image], data_samples=sample()))
        before = found.pred_instances
        truth = sample()
        boxes = tensor(before.bboxes).clone()
        boxes[:, 0] += torch.where(torch.arange(len(boxes)) % 2 == 0, 0.5, -0.5)
        truth[0].gt_instances = InstanceData(bboxes=RotatedBoxes(boxes), labels=before.labels)
        batches.append(dict(inputs=[image], data_samples=truth))
    with torch.no_grad():
        model.bbox_head.conv_cls.bias += 10  # else no score is one to count; the boxes stay
    error = fit_detector_errors(model, batches)
    assert error.shape == (5, 2)
    (found,) = model.test_step(batches[0])
    std = found.pred_instances.bboxes_std
    assert (std[:, 0] ** 2).mean().sqrt() == pytest.approx(0.5, rel=0.3)  # there may be pairs of other detections
    other = UncertainDetector(copy.deepcopy(small[1]), noise_variance=1e-3)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.test_step(batches[0])[0].pred_instances.bboxes_std, std)
    other.load_state_dict({key: value for key, value in model.state_dict().items() if key != 'detection_error'})
    plain = other.test_step(batches[0])[0].pred_instances
    assert not torch.allclose(plain.bboxes_std, std) and torch.equal(plain.scores_std, found.pred_instances.scores_std)
    assert torch.allclose(std[:, 0] ** 2, plain.bboxes_std[:, 0] ** 2 * error[0, 0] + error[0, 1], rtol=1e-4)
    with pytest.raises(ValueError, match='no batches'):
        fit_detector_errors(model, [])
