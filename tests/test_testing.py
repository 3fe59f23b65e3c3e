import pytest
import torch
from torch import nn

from mmrotate_plugin.equivariant import ennBN, ennConv
from mmrotate_plugin.models import ReResNet, ResNet
from mmrotate_plugin.testing import act_on_regular, equivariance_error, randomize_norms_, relative_error, turn


def test_act_on_regular_is_a_group_action():
    x = torch.randn(2, 16, 5, 5)
    assert torch.equal(act_on_regular(act_on_regular(x, 'D4', 1), 'D4', 2), act_on_regular(x, 'D4', 3))
    assert torch.equal(act_on_regular(x, 'C8', 4), x)
    flipped = act_on_regular(x, 'D4', 1, flip=True)
    assert torch.equal(act_on_regular(flipped, 'D4', 1, flip=True), x), 'a reflection is its own inverse'
    assert not torch.equal(flipped, act_on_regular(x, 'D4', 1))


def test_act_on_regular_cycles_by_hand():
    x = torch.arange(8.0).view(1, 8, 1, 1)  # one field of C8, one pixel
    assert act_on_regular(x, 'C8', 1).flatten().tolist() == [6, 7, 0, 1, 2, 3, 4, 5]
    grid = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert turn(grid, 1).tolist() == [[2, 4], [1, 3]]
    assert turn(grid, 0, flip=True).tolist() == [[2, 1], [4, 3]]


def test_checker_tells_equivariant_from_plain_and_constant():
    x = torch.randn(1, 3, 65, 65)
    good = equivariance_error(ReResNet(18, base_channels=16).eval(), x, 'C8')
    bad = equivariance_error(ResNet(18, base_channels=16).eval(), x, 'C8')
    constant = equivariance_error(lambda x: torch.ones(len(x), 8, 5, 5), x, 'C8')
    assert max(good.error) < 1e-5 and min(good.change) > 0.01
    assert min(bad.error) > 0.1
    assert constant.error == (0.0,) and constant.change == (0.0,), 'which is why `change` is reported'


def test_regular_inputs():
    layer = nn.Sequential(ennConv(16, 16, 3, padding=1, group='D4'), ennBN(16, group='D4'))
    result = equivariance_error(layer, torch.randn(2, 16, 9, 9), 'D4', quarter_turns=3, flip=True, regular_input=True)
    assert result.error[0] < 1e-5 < result.change[0]


def test_elements_outside_of_the_group_are_refused():
    x = torch.randn(1, 12, 5, 5)
    with pytest.raises(ValueError, match="'C6' has no rotation by 1 quarter turns"):
        act_on_regular(x, 'C6', 1)
    act_on_regular(x, 'C6', 2)
    with pytest.raises(ValueError, match="'C4' has no reflections: use 'D4'"):
        act_on_regular(x, 'C4', 0, flip=True)


def test_randomize_norms_reaches_every_norm_and_nothing_else():
    net = ReResNet(18, base_channels=16, norm_cfg=dict(type='GN', num_groups=1))
    before = {n: p.clone() for n, p in net.named_parameters()}
    randomize_norms_(net)
    changed = {n for n, p in net.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {n for n in before if '.norm.' in n}
    plain = randomize_norms_(nn.BatchNorm2d(4))
    assert relative_error(plain.running_var, torch.ones(4)) > 0.05
