"""Detections turn with the image; losses do not depend on the angle; an ordinary head has the same outputs."""

import copy
import math

import pytest
import torch
from mmengine.model import ExponentialMovingAverage

pytest.importorskip('mmdet')
from mmdet.registry import MODELS
from small_detector import SIZE, WIDTH, detect, detector, sample, turned

import mmrotate_plugin  # noqa: F401
from mmrotate_plugin.engine.checks.head_classes import wrong_count
from mmrotate_plugin.models.dense_heads.re_fcos_head import ReFCOSHead
from mmrotate_plugin.models.utils.group_check import check_groups
from mmrotate_plugin.testing import relative_error


def far_apart(first, second):
    """Largest differences of boxes (pixels; chords of angles) and scores between sets of detections, paired."""
    (a, s, labels), (b, t, others) = first, second
    assert len(a) == len(b)
    box = (a[:, None, :4] - b[None, :, :4]).abs().amax(2)
    if a.shape[1] == 5:
        box = torch.maximum(box, (a[:, None, 4] - b[None, :, 4]).sin().abs())
    box = box + 1e6 * (labels[:, None] != others[None])
    partner = box.argmin(1)
    assert len(partner.unique()) == len(a)
    return box.amin(1).max(), (s - t[partner]).abs().max()


ELEMENTS = [(1, False), (2, False), (3, False)]
CASES = [('C8', 'rbox', ELEMENTS), ('C8', 'hbox', ELEMENTS), ('D8', 'rbox', [*ELEMENTS, (0, True), (3, True)])]


@pytest.mark.parametrize('group, box_type, elements', CASES)
def test_detections_turn_with_the_image(group, box_type, elements):
    net = detector(group, box_type)
    image = torch.randn(1, 3, SIZE, SIZE)
    boxes, scores, labels = detect(net, image)
    assert len(boxes) >= 15
    for quarter_turns, flip in elements:
        view = (image.flip(-1) if flip else image).rot90(quarter_turns, (-2, -1))
        apart, score = far_apart((turned(boxes, quarter_turns, flip), scores, labels), detect(net, view))
        assert apart < 1e-3 and score < 1e-5


@pytest.mark.parametrize('group, size', [(None, SIZE), ('C8', SIZE - 1)])
def test_an_ordinary_head_and_an_even_size_fail_that_check(group, size):
    net, image = detector(group), torch.randn(1, 3, size, size)
    boxes, scores, labels = detect(net, image)
    assert len(boxes)
    with pytest.raises(AssertionError):
        apart, score = far_apart((turned(boxes, 1, False), scores, labels), detect(net, image.rot90(1, (-2, -1))))
        assert apart < 1e-3 and score < 1e-5
    with torch.no_grad():
        found, again = (net.bbox_head(net.extract_feat(x))[0][0] for x in (image, image.rot90(1, (-2, -1))))
    assert (found.rot90(1, (-2, -1)) - again).abs().max() > 0.1


OBJECTS = torch.tensor([
    [60.0, 50, 40, 16, 0.3], [64, 70, 40, 15, 0.35], [120, 90, 70, 5, -1.2], [150, 150, 20, 21, 0.7],
    [30, 150, 9, 4, 2.0], [33, 158, 9, 4, 2.0], [100, 20, 4, 3, 0.1],
])  # fmt: skip
LABELS = torch.tensor([0, 1, 0, 2, 3, 3, 4])


@pytest.mark.parametrize('group, flip', [('C8', False), ('D8', True)])
def test_losses_do_not_depend_on_the_angle(group, flip):
    net = detector(group)
    image = torch.randn(1, 3, SIZE, SIZE)
    losses = net(image, [sample(OBJECTS, LABELS, OBJECTS[:1] + 40)], mode='loss')
    assert set(losses) == {'loss_cls', 'loss_bbox', 'loss_angle'}
    view = (image.flip(-1) if flip else image).rot90(1, (-2, -1))
    again = net(view, [sample(turned(OBJECTS, 1, flip), LABELS, turned(OBJECTS[:1] + 40, 1, flip))], mode='loss')
    other = net(view, [sample(OBJECTS, LABELS, OBJECTS[:1] + 40)], mode='loss')
    for name, loss in losses.items():
        assert torch.allclose(loss, again[name], rtol=2e-5), name
        assert not torch.allclose(loss, other[name], rtol=1e-4), name


@pytest.mark.parametrize('fields, group', [(True, 'C8'), (True, None), (False, None)])
@pytest.mark.parametrize('kind', ['FCOS', 'SingleStageDetector', 'RetinaNet'])
def test_every_kind_of_detector_learns_and_detects(fields, group, kind):
    net = detector(group, kind=kind, fields=fields).train()
    images = torch.randn(3, 3, SIZE, SIZE)
    samples = [sample(OBJECTS, LABELS), sample(), sample(OBJECTS[:2], LABELS[:2], OBJECTS[2:])]
    loss, _ = net.parse_losses(net(images, samples, mode='loss'))
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.bbox_head.parameters())
    found = net.eval()(images, samples, mode='predict')
    assert len(found) == 3


def test_a_few_steps_learn_place_size_and_angle():
    net = detector('C8').train()
    image = torch.zeros(1, 3, SIZE, SIZE)
    boxes, labels = OBJECTS[[0, 2, 3]], LABELS[[0, 2, 3]]
    y, x = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing='ij')
    for i, (cx, cy, w, h, a) in enumerate(boxes.tolist()):
        u, v = (x - cx) * math.cos(a) + (y - cy) * math.sin(a), (y - cy) * math.cos(a) - (x - cx) * math.sin(a)
        image[0, i][(u.abs() < w / 2) & (v.abs() < h / 2)] = 3.0
    optimizer = torch.optim.AdamW(net.parameters(), lr=4e-3)
    history = []
    for _ in range(40):
        losses = net(image, [sample(boxes, labels)], mode='loss')
        loss, _ = net.parse_losses(losses)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 35)
        optimizer.step()
        history.append({name: float(value) for name, value in losses.items()})
    for name in ('loss_cls', 'loss_bbox', 'loss_angle'):
        assert history[-1][name] < history[0][name] / 3, name


def test_no_objects_anywhere_leave_only_the_loss_of_classes():
    net = detector('C8').train()
    losses = net(torch.randn(2, 3, SIZE, SIZE), [sample(), sample()], mode='loss')
    assert losses['loss_cls'] > 0
    assert all(losses[name] == 0 for name in ('loss_bbox', 'loss_angle'))
    net.parse_losses(losses)[0].backward()
    assert all(p.grad is not None for p in net.bbox_head.parameters())  # or processes would wait for each other


def test_objects_that_no_point_can_reach_are_background():
    net = detector('C8').train()
    losses = net(torch.randn(1, 3, SIZE, SIZE), [sample(OBJECTS[:2] + 5000, LABELS[:2])], mode='loss')
    assert losses['loss_bbox'] == 0 and losses['loss_cls'].isfinite()


def test_points_in_ignored_objects_do_not_count():
    net = detector('C8')
    torch.nn.init.zeros_(net.bbox_head.conv_cls.bias)  # background costs something
    image = torch.randn(1, 3, SIZE, SIZE)
    everywhere = torch.tensor([[96.5, 96.5, 400, 400, 0.2]])
    losses = net(image, [sample(OBJECTS[:1], LABELS[:1], everywhere)], mode='loss')
    without = net(image, [sample(OBJECTS[:1], LABELS[:1])], mode='loss')
    assert losses['loss_cls'] < without['loss_cls'] / 3 and losses['loss_bbox'] == without['loss_bbox']


def test_horizontal_boxes_have_no_angle():
    net = detector('C8', 'hbox').train()
    boxes = torch.tensor([[20.0, 30, 60, 50], [100, 90, 120, 150]])
    losses = net(torch.randn(1, 3, SIZE, SIZE), [sample(boxes, LABELS[:2], box_type='hbox')], mode='loss')
    assert set(losses) == {'loss_cls', 'loss_bbox'}
    with pytest.raises(ValueError, match="box_type='hbox' needs boxes of 4 numbers.*have 5.*box_type='rbox'"):
        net(torch.randn(1, 3, SIZE, SIZE), [sample(OBJECTS, LABELS)], mode='loss')


@pytest.mark.parametrize('group', ['C8', None])
def test_each_level_keeps_statistics_of_its_own(group):
    """Evaluated on the images it has just seen, a batch norm says what it said in training."""
    options = dict(strides=(8, 16), regress_ranges=((-1, 48), (48, 1e8)), norm_cfg=dict(type='BN', momentum=1.0))
    head = ReFCOSHead(2, 16, 16, 1, group=group, **options).train()
    levels = [torch.randn(4, 16, 25, 25), 3 + 5 * torch.randn(4, 16, 13, 13)]
    trained = head(levels)
    for ours, theirs in zip(head.eval()(levels), trained, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert relative_error(a, b) < 0.01  # the running variance is the unbiased one: 1/1000 at 13 x 13 x 4
    for tower in (head.cls_convs, head.reg_convs):
        for block in tower:
            block.norms = block.norms[-1:]  # one norm for all levels, which has seen the last one
    assert relative_error(head(levels)[1][0], trained[1][0]) > 0.1


@pytest.mark.parametrize(('norm', 'count'), [(dict(type='BN'), 2), (dict(type='GN', num_groups=2), 1), (None, 0)])
def test_norms_without_running_statistics_are_shared_by_the_levels(norm, count):
    head = ReFCOSHead(2, 16, 16, 1, (8, 16), ((-1, 48), (48, 1e8)), group='C8', norm_cfg=norm)
    (block,) = head.cls_convs
    assert len(block.norms) == count and (block.conv.bias is None) == (count > 0)


@pytest.mark.parametrize('norm', [dict(type='BN'), dict(type='GN', num_groups=2), None])
def test_recomputed_towers_give_the_same_gradients(norm):
    net = detector('C8', norm_cfg=norm).train()
    again = copy.deepcopy(net)
    again.bbox_head.with_cp = True
    image = torch.randn(1, 3, SIZE, SIZE)
    for one in (net, again):
        one.parse_losses(one(image, [sample(OBJECTS, LABELS)], mode='loss'))[0].backward()
    for (name, p), q in zip(net.named_parameters(), again.parameters(), strict=True):
        if p.grad is not None:
            assert torch.allclose(p.grad, q.grad, atol=1e-5), name
    for (name, p), q in zip(net.named_buffers(), again.buffers(), strict=True):
        assert torch.allclose(p, q), name


def test_autocast_keeps_losses_and_boxes_in_float32():
    net = detector('C8')
    image = torch.randn(1, 3, SIZE, SIZE)
    with torch.autocast('cpu', torch.bfloat16):
        outs = net.bbox_head(net.extract_feat(image))
        losses = net(image, [sample(OBJECTS, LABELS)], mode='loss')
    assert {level.dtype for out in outs for level in out} == {torch.float32}
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())


def test_averaged_weights_detect():
    net = detector('C8')
    average = ExponentialMovingAverage(net)
    average.update_parameters(net)
    image = torch.randn(1, 3, SIZE, SIZE)
    assert all(torch.equal(a, b) for a, b in zip(detect(net, image), detect(average.module, image), strict=True))


def test_bad_arguments_are_named():
    for options, words in (
        (dict(group='C4'), "group='C4' has 4 rotations.*5 or more.*'C8'"),
        (dict(in_channels=20), 'in_channels=20.*order 8'),
        (dict(feat_channels=20), 'feat_channels=20.*order 8'),
        (dict(strides=(8, 16, 32)), 'regress_ranges has 2 pairs, but there are 3 strides'),
        (dict(regress_ranges=((0, 3), (3, 3))), 'regress_ranges=.*pairs'),
        (dict(box_type='qbox'), "box_type='qbox'.*'rbox'"),
        (dict(box_type='hbox', loss_angle=dict(type='mmdet.MSELoss')), 'loss_angle is given'),
        (dict(num_classes=0), 'num_classes=0'),
        (dict(center_sample_radius=0), 'center_sample_radius=0'),
        (dict(stacked_convs=-1), 'stacked_convs=-1'),
        (dict(topk=0), 'topk=0'),
        (dict(beta=-1), 'beta=-1'),
        (dict(strides=(8, 0)), r'strides=\(8, 0\)'),
        (dict(loss_cls=dict(type='mmdet.CrossEntropyLoss')), 'loss_cls.*use_sigmoid'),
    ):
        given = dict(type='mmrotate_plugin.ReFCOSHead', num_classes=5, in_channels=32, feat_channels=32, group='C8')
        given.update(strides=(8, 16), regress_ranges=((-1, 24), (24, 1e8)), norm_cfg=None)
        with pytest.raises(ValueError, match=words):
            MODELS.build({**given, **options})


def test_maps_that_do_not_fit_are_named():
    head = detector('C8').bbox_head
    with pytest.raises(ValueError, match=r'got 3 feature maps, but strides=\(8, 16\) has 2'):
        head([torch.randn(1, WIDTH, 9, 9)] * 3)
    with pytest.raises(ValueError, match="feature map 1 has 64 channels.*'C8'.*in_channels=32"):
        head([torch.randn(1, WIDTH, 9, 9), torch.randn(1, 64, 5, 5)])


def test_the_checks_before_a_run_see_the_head():
    net = detector('C8')
    check_groups(net)
    assert wrong_count(net, ['a', 'b', 'c', 'd', 'e'], 'x') is None
    assert 'model.bbox_head.num_classes=5' in wrong_count(net, ['a', 'b'], 'x')


def test_weights_of_another_group_are_refused():
    given = dict(type='mmrotate_plugin.ReFCOSHead', num_classes=5, in_channels=32, feat_channels=32, norm_cfg=None)
    heads = {group: MODELS.build({**given, 'group': group}) for group in ('C16', 'D8', None)}
    state = heads['C16'].state_dict()
    heads['C16'].load_state_dict(state)
    for group in ('D8', None):
        with pytest.raises(RuntimeError, match=f"ReFCOSHead of group C16; the model is one of group {group}.*'C16'"):
            heads[group].load_state_dict(state)
    with pytest.raises(RuntimeError, match='of group None; the model is one of group C16'):
        heads['C16'].load_state_dict(heads[None].state_dict())


def test_any_angle_is_the_preset_of_the_towers():
    head = ReFCOSHead(2, 64, 64, 1, strides=(8,), regress_ranges=((-1, 1e8),), group='C8', any_angle=True)
    (block,) = head.reg_convs
    assert block.conv.band_limits == (0, 2) and block.conv.maximum_offset == 0
    assert type(block.activate).__name__ == 'ennFourierReLU'
    for wrong, message in (
        (dict(group=None), 'give a group'),
        (dict(group='C8', conv_cfg=dict(frequencies_cutoff=3.0)), 'any_angle=True sets frequencies_cutoff'),
        (dict(group='C8', act_cfg=dict(type='ReLU')), 'any_angle=True sets type'),
    ):
        with pytest.raises(ValueError, match=message):
            ReFCOSHead(2, 64, 64, 1, strides=(8,), regress_ranges=((-1, 1e8),), any_angle=True, **wrong)
