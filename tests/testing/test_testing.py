import math

import pytest
import torch
from torch import nn

from mmrotate_plugin.equivariant import ennBN, ennConv, ennTrivialConv
from mmrotate_plugin.models import ReFPN, ReResNet, ResNet
from mmrotate_plugin.testing import (
    Fields,
    act,
    act_on_regular,
    compare_fields,
    disc,
    equivariance_curve,
    equivariance_error,
    exact_elements,
    feature_fields,
    full_precision,
    randomize_norms_,
    relative_error,
    rotate,
    turn,
)


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
    with pytest.raises(ValueError, match="'C6' has no turn by 90 degrees: its turns are multiples of 60"):
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


def blob(x, y, size=65, width=4.0):
    """A Gaussian centred `x` right and `y` above the centre."""
    along = torch.arange(size) - (size - 1) / 2
    return torch.exp(-((along - x) ** 2 + (-along[:, None] - y) ** 2) / (2 * width**2))[None, None]


@pytest.mark.parametrize('degrees', [30, 45, 100, 222.5, -60])
def test_rotate_is_counter_clockwise_about_the_centre(degrees):
    angle = math.radians(degrees)
    actual = rotate(blob(14, 5), degrees)
    expected = blob(14 * math.cos(angle) - 5 * math.sin(angle), 14 * math.sin(angle) + 5 * math.cos(angle))
    # linear interpolation errs by f'' / 8 at most, along each axis; a Gaussian has f'' <= 1 / width^2
    assert (actual - expected).abs().max() < 2 / 8 / 4**2
    clockwise = rotate(blob(14, 5), -degrees)
    assert (clockwise - expected).abs().max() > 0.5


def test_rotate_by_quarter_turns_moves_pixels():
    x = torch.randn(1, 2, 4, 7)
    for k in range(-2, 5):
        assert torch.equal(rotate(x, 90.0 * k), turn(x, k))
    assert rotate(x, 45).shape == x.shape


def test_act_permutes_by_the_groups_angles_and_interpolates_between():
    x = torch.arange(8.0).view(1, 8, 1, 1)  # one field of C8, one pixel
    assert act(x, 'C8', 45).flatten().tolist() == [7, 0, 1, 2, 3, 4, 5, 6]
    assert act(x, 'C8', -45).flatten().tolist() == [1, 2, 3, 4, 5, 6, 7, 0]
    assert act(x, 'C8', 22.5).flatten().tolist() == [3.5, 0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5]
    assert torch.equal(act(x, None, 45), x), 'trivial fields have no orientations'
    maps = torch.randn(2, 16, 5, 7)
    for group in ('C8', 'D4'):
        for k in (1, 2, 3):
            assert torch.equal(act(maps, group, 90 * k), act_on_regular(maps, group, k))
    assert torch.equal(act(maps, 'D8', 90, flip=True), act_on_regular(maps, 'D8', 1, flip=True))
    with pytest.raises(ValueError, match="'C8' has no reflections: use 'D8'"):
        act(maps, 'C8', 45, flip=True)


def test_exact_elements_are_those_of_the_pixel_grid():
    assert exact_elements('C16') == ((1, False), (2, False), (3, False))
    assert exact_elements('C6') == ((2, False),)
    assert exact_elements('C3') == ()
    assert len(exact_elements('D4')) == 7 and (0, True) in exact_elements('D4')


def test_disc_is_inside_and_never_empty():
    assert disc((5, 9), 1.0).sum() == 13  # |p| <= 2 on the grid of integers
    assert disc((9, 9), 0.0).nonzero().tolist() == [[4, 4]]
    assert disc((2, 2), 0.1).all()


def test_curve_tells_a_steerable_filter_from_an_ordinary_one():
    x = sum(blob(x, y, width=5) * s for x, y, s in [(9, 4, 1), (-8, 11, -1), (3, -14, 0.7)])
    steerable = ennTrivialConv(1, 32, 7, padding=3, group='C8')
    degrees = (45, 90, 135)
    curve = equivariance_curve(steerable, x, 'C8', degrees=degrees)
    assert curve.degrees == degrees and list(curve.error) == ['0']
    assert curve.error['0'][1] < 1e-5
    assert max(curve.error['0']) < 0.15 < 0.5 < min(curve.change['0'])
    permuted_wrongly = equivariance_curve(lambda y: steerable(y).flip(1), x, 'C8', degrees=degrees)
    plain = equivariance_curve(nn.Conv2d(1, 32, 7, padding=3), x, degrees=degrees)
    for wrong in (permuted_wrongly, plain):
        assert min(wrong.error['0']) > 0.15


def test_curve_of_a_network_and_of_one_of_even_size():
    net = randomize_norms_(ReResNet(18, base_channels=16)).eval()
    odd = equivariance_curve(net, torch.randn(1, 3, 65, 65), 'C8', degrees=(90, 180))
    even = equivariance_curve(net, torch.randn(1, 3, 64, 64), 'C8', degrees=(90, 180))
    assert list(odd.error) == ['0', '1', '2', '3']
    for name in odd.error:
        assert max(odd.error[name]) < 1e-5 and min(odd.change[name]) > 0.01
        assert min(even.error[name]) > 0.01


def test_maps_that_are_no_numbers_are_no_match():
    x = torch.full((1, 8, 5, 5), math.nan)
    assert compare_fields([Fields('a', x, 'C8')], [Fields('a', x, 'C8')], 90).error == (math.inf,)


def test_maps_of_other_shapes_are_no_match():
    before, after = (Fields('a', torch.randn(1, 8, *size), 'C8') for size in ((3, 5), (3, 5)))
    result = compare_fields([before], [after], 90)
    assert result.error == (math.inf,)
    assert math.isnan(result.change[0])


class Detector(nn.Module):
    def __init__(self, backbone, neck=None):
        super().__init__()
        self.backbone, self.neck = backbone, neck


@pytest.mark.parametrize('pool', [None, 'max'])
def test_detectors_maps_know_their_groups(pool):
    backbone = ReResNet(18, 'D4', base_channels=16, out_indices=(1, 3))
    model = Detector(backbone, ReFPN([32, 128], 16, 3, group='D4', group_pool=pool))
    randomize_norms_(model).eval()
    x = torch.randn(1, 3, 65, 65)
    with torch.no_grad():
        before = feature_fields(model, x)
        assert [y.name for y in before] == ['stage1', 'stage3', 'level0', 'level1', 'level2']
        assert {y.group for y in before} == {'D4'}
        assert [y.trivial for y in before] == [False, False, *[pool is not None] * 3]
        for quarter_turns, flip in exact_elements('D4'):
            result = compare_fields(
                before, feature_fields(model, turn(x, quarter_turns, flip)), 90 * quarter_turns, flip
            )
            assert max(result.error) < 1e-5 and min(result.change) > 0.01


def test_a_plain_neck_claims_nothing():
    class Neck(nn.Module):
        def forward(self, stages):
            return stages[-1:]

    model = Detector(ReResNet(18, base_channels=16), Neck())
    found = feature_fields(model, torch.randn(1, 3, 33, 33))
    assert [y.group for y in found] == ['C8'] * 4 + [None]
    with pytest.raises(TypeError, match='the backbone Identity puts out str'):
        feature_fields(nn.Identity(), ['a map'])


def test_full_precision_is_given_back():
    allowed = torch.backends.cudnn.allow_tf32
    try:
        for before in (True, False):
            torch.backends.cudnn.allow_tf32 = before
            with full_precision():
                assert not torch.backends.cudnn.allow_tf32
            assert torch.backends.cudnn.allow_tf32 == before
    finally:
        torch.backends.cudnn.allow_tf32 = allowed
