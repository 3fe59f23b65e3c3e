"""The head in an ONNX file, and in an `UncertainDetector`."""

import pytest
import torch

pytest.importorskip('mmdet')

from small_detector import SIZE, detect, detector, sample

from mmrotate_plugin.export import Unsupported, export_onnx, plain_config
from mmrotate_plugin.models.detectors.uncertain_detector import UncertainDetector

ATAN2 = pytest.mark.needs_torch('2.1', 'atan2 in ONNX')


@pytest.mark.parametrize(
    'group, box_type',
    [pytest.param('C8', 'rbox', marks=ATAN2), pytest.param(None, 'rbox', marks=ATAN2), ('C8', 'hbox')],
)
@pytest.mark.parametrize('dynamic', [False, True])
def test_an_onnx_file_decodes_the_boxes(group, box_type, dynamic):
    pytest.importorskip('onnxruntime')
    net = detector(group, box_type)
    image = torch.randn(1, 3, SIZE, SIZE)
    made = export_onnx(net, image, heads=True, dynamic=dynamic)
    points, columns = 25 * 25 + 13 * 13, 5 if box_type == 'rbox' else 4
    assert made.names == ['bbox_head_boxes', 'bbox_head_scores']
    assert made.shapes == [(1, points, columns), (1, points, 5)] and made.difference < 1e-4
    import onnxruntime

    session = onnxruntime.InferenceSession(made.data, providers=['CPUExecutionProvider'])
    boxes, scores = (torch.from_numpy(y)[0] for y in session.run(None, {'image': image.numpy()}))
    found, score, label = detect(net, image)
    best = scores[:, label[0]].sub(score[0]).abs().argmin()  # the first detection is one of them
    assert torch.allclose(boxes[best], found[0], atol=1e-2) or box_type == 'hbox'  # which is clipped


def test_there_is_no_such_head_in_mmdet():
    cfg = dict(type='mmdet.FCOS', bbox_head=dict(type='mmrotate_plugin.ReFCOSHead', num_classes=1, in_channels=8))
    with pytest.raises(Unsupported, match='bbox_head: ReFCOSHead has no counterpart.*ONNX'):
        plain_config(cfg, lambda: [(SIZE, SIZE)])


@pytest.mark.parametrize('method', ['propagated', 'jacobian', 'monte_carlo'])
def test_standard_deviations_turn_with_the_box(method):
    net = detector('C8')
    net.test_cfg.max_per_img = net.bbox_head.test_cfg['max_per_img'] = 4
    image = torch.randn(1, 3, SIZE, SIZE)
    model = UncertainDetector(net, method=method, noise_variance=1e-4, num_samples=40).eval()
    found, turned = (model.predict(x, [sample()])[0].pred_instances for x in (image, image.rot90(1, (-2, -1))))
    boxes, scores, _ = detect(net, image)
    assert torch.equal(scores, found.scores) and len(found) == 4
    std, again = found.bboxes_std, turned.bboxes_std
    assert (std > 0).all() and (found.scores_std > 0).all()
    expected = std[:, [1, 0, 2, 3, 4]]
    tolerance = 0.6 if method == 'monte_carlo' else 1e-2  # 40 samples: five standard errors of a deviation
    assert torch.allclose(again, expected, rtol=tolerance)
    assert torch.allclose(turned.scores_std, found.scores_std, rtol=tolerance)
    if method != 'monte_carlo':
        assert not torch.allclose(again[:, :2], std[:, :2], rtol=tolerance)
