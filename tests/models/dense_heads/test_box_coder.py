"""What a head says at a point, and the box that it means."""

import math

import pytest
import torch

from mmrotate_plugin.models.dense_heads.box_coder import BoxFieldCoder, canonical, directors, elongation, overlaps
from mmrotate_plugin.structures import tensor_of

PRIORS = torch.tensor([[20.5, 36.5, 8], [33.5, 1.5, 16]])


def test_rotated_boxes_are_decoded():
    pytest.importorskip('mmrotate')
    logs = [math.log(5.0), math.log(0.25)]
    pred = torch.tensor([[0.5, -1, *logs, 0.6, 0.8], [0, 0, 0, 0, -2, 0]])
    boxes = tensor_of(BoxFieldCoder('rbox').decode(PRIORS, pred))
    angle = math.atan2(0.8, 0.6) / 2
    assert torch.allclose(boxes[0], torch.tensor([24.5, 28.5, 40, 2, angle]))
    assert torch.allclose(boxes[1].abs(), torch.tensor([33.5, 1.5, 16, 16, math.pi / 2]))


def test_horizontal_boxes_are_decoded_and_clipped():
    coder = BoxFieldCoder('hbox')
    pred = torch.tensor([[0.5, -1, 0, math.log(2.0)], [0, 0, 0, 0]])
    boxes = coder.decode(PRIORS, pred)
    assert torch.allclose(boxes[0], torch.tensor([24.5 - 8, 28.5 - 2, 24.5 + 8, 28.5 + 2]))
    assert coder.decode(PRIORS, pred, (30, 25)).tolist() == [[16.5, 26.5, 25, 30], [25, 0, 25, 9.5]]


@pytest.mark.parametrize('box_type', ['rbox', 'hbox'])
def test_wild_numbers_make_finite_boxes(box_type):
    if box_type == 'rbox':
        pytest.importorskip('mmrotate')
    coder = BoxFieldCoder(box_type)
    for wild in (1e4, -1e4):
        boxes = tensor_of(coder.decode(PRIORS, torch.full((2, coder.encode_size), wild)))
        assert boxes.isfinite().all()


def test_in_its_own_frame_a_right_box_is_its_target():
    coder = BoxFieldCoder('rbox')
    target = torch.tensor([[24.0, 30, 40, 8, 0.7], [30.0, 5, 9, 6, -1.1]])
    stride = PRIORS[:, 2:]
    pred = torch.cat([(target[:, :2] - PRIORS[:, :2]) / stride, (target[:, 2:4] / stride).log(), directors(target)], 1)
    found, true = coder.in_frame(PRIORS, pred, target)
    assert torch.allclose(found, true, atol=1e-4) and torch.allclose(overlaps(found, true), torch.ones(2))
    # one pixel along the first side, in the image
    pred[:, :2] += torch.stack([target[:, 4].cos(), target[:, 4].sin()], 1) / stride
    found, _ = coder.in_frame(PRIORS, pred, target)
    assert torch.allclose(found - true, torch.tensor([1.0, 0, 1, 0]).expand(2, 4), atol=1e-4)


def test_the_first_side_is_the_longer_one():
    boxes = torch.tensor([[1.0, 2, 3, 8, 0.2], [1, 2, 8, 3, 0.2], [1, 2, 4, 4, 0.2]])
    out = canonical(boxes)
    assert torch.allclose(out[0], torch.tensor([1, 2, 8, 3, 0.2 + math.pi / 2])) and out[1:].equal(boxes[1:])
    assert elongation(out).tolist() == [1, 1, 0]
    assert torch.allclose(
        overlaps(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 0, 3, 2]])), torch.tensor([1 / 3])
    )
