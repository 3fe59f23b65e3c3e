"""Variance through compiled operators against their dense matrices, got by unit impulses."""

from itertools import pairwise

import pytest
import torch
from mmcv.ops import DeformConv2d, ModulatedDeformConv2d, RoIAlign, RoIAlignRotated, rotated_feature_align
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from torch import nn

from mmrotate_plugin.adf import Gaussian, NoMomentRule
from mmrotate_plugin.models.roi_heads.ri_roi_align import RiRoIAlignRotated
from mmrotate_plugin.models.uncertainty import operator_rules as operators
from mmrotate_plugin.models.uncertainty import rules_deform_conv, rules_roi_align
from mmrotate_plugin.models.uncertainty.operator_rules import operator_rules

# corner cases: over the border, outside, smaller than a pixel, of no extent, another image
BOXES = [[0, 4, 6, 30, 21], [1, -9, -7, 12, 20], [0, 17, 9, 19, 10], [1, 60, 60, 80, 90], [0, 8, 8, 8, 8],
         [1, 3, 1, 45, 38], [0, 0, 0, 36, 36]]  # fmt: skip
TURNED = [[0, 17, 14, 26, 15, 0.4], [1, 2, 30, 20, 30, -1.3], [0, 18, 9, 2, 1, 2.0], [1, 70, 75, 10, 10, 0.3],
          [1, 20, 20, 44, 38, 0.0], [0, 16, 18, 36, 12, 3.0]]  # fmt: skip


def rois_of(rows):
    return torch.tensor(rows, dtype=torch.float64)


def matrix_of(module, shape, others):
    """The operator as a matrix, (outputs, inputs)."""
    columns = []
    for impulse in torch.eye(shape.numel(), dtype=torch.float64):
        columns.append(module(impulse.view(shape), *others).detach().flatten())
    return torch.stack(columns, 1)


def random_gaussian(*shape, **traits):
    return Gaussian(torch.randn(*shape, dtype=torch.float64), torch.rand(*shape, dtype=torch.float64) + 0.1, **traits)


def check(module, x, others):
    """`module` must be linear; a bias goes into its mean alone."""
    plain = module(x.mean, *others)
    with operator_rules(module), torch.no_grad():
        out = module(x, *others)
        assert torch.equal(module(x.mean, *others), plain)  # tensors pass as ever
    assert torch.equal(out.mean, plain)
    matrix = matrix_of(module, x.shape, others) - module(torch.zeros_like(x.mean), *others).detach().view(-1, 1)
    expected = (matrix.square() @ x.var.flatten()).view_as(out.var)
    assert expected.max() > 0
    # float64 sums of some hundred terms
    torch.testing.assert_close(out.var, expected, rtol=1e-10, atol=1e-13)
    return out


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 2])
def test_roi_align_is_its_squared_matrix(aligned, ratio):
    layer = RoIAlign((3, 2), 0.25, ratio, aligned=aligned)
    check(layer, random_gaussian(2, 2, 9, 8), [rois_of(BOXES)])


def test_roi_align_of_torchvision_is_its_squared_matrix():
    layer = RoIAlign(3, 0.25, 0, use_torchvision=True)
    check(layer, random_gaussian(2, 2, 9, 8), [rois_of(BOXES)])


@pytest.mark.parametrize('clockwise', [True, False])
@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 2])
def test_rotated_roi_align_is_its_squared_matrix(clockwise, aligned, ratio):
    layer = RoIAlignRotated((2, 3), 0.25, ratio, aligned, clockwise)
    check(layer, random_gaussian(2, 2, 9, 8), [rois_of(TURNED)])


@pytest.mark.parametrize('published', [True, False])
@pytest.mark.parametrize('orientations, clockwise', [(4, True), (2, False), (1, True)])
def test_rotation_invariant_roi_align_is_its_squared_matrix(published, orientations, clockwise):
    layer = RiRoIAlignRotated(2, 0.25, 2, orientations, clockwise, published=published)
    check(layer, random_gaussian(2, 4, 9, 8), [rois_of(TURNED)])


@pytest.mark.parametrize(
    'options, size',
    [
        (dict(kernel_size=3, padding=1), (6, 7)),
        (dict(kernel_size=3, padding=1, groups=2, deform_groups=2), (6, 7)),
        (dict(kernel_size=(3, 2), stride=(2, 1), padding=(0, 1), dilation=(1, 2), deform_groups=2), (7, 6)),
        (dict(kernel_size=3, padding=1), (2, 5)),  # smaller than the kernel
    ],
)
@pytest.mark.parametrize('spread', [0.4, 3.0])
def test_deformable_convolution_is_its_squared_matrix(options, size, spread):
    module = DeformConv2d(4, 2, **options).double()
    shape = nn.functional.conv2d(  # of the plain convolution
        torch.zeros(1, 4, *size), torch.zeros(2, 4 // module.groups, *module.kernel_size), None, module.stride,
        module.padding, module.dilation, module.groups
    ).shape[2:]  # fmt: skip
    taps = module.kernel_size[0] * module.kernel_size[1]
    offset = spread * torch.randn(2, 2 * module.deform_groups * taps, *shape, dtype=torch.float64)
    check(module, random_gaussian(2, 4, *size), [offset])


@pytest.mark.parametrize('options', [dict(padding=1), dict(stride=2, padding=1, groups=2, deform_groups=2)])
@pytest.mark.parametrize('spread', [0.4, 3.0])
def test_modulated_deformable_convolution_is_its_squared_matrix(options, spread):
    module = ModulatedDeformConv2d(4, 2, 3, **options).double()
    torch.nn.init.normal_(module.bias)
    shape = (3, 4) if 'stride' in options else (6, 7)
    offset = spread * torch.randn(2, 18 * module.deform_groups, *shape, dtype=torch.float64)
    mask = torch.rand(2, 9 * module.deform_groups, *shape, dtype=torch.float64)
    check(module, random_gaussian(2, 4, 6, 7), [offset, mask])


def refinement(sizes=((5, 6), (3, 3))):
    """R3Det's module, and boxes for two images: some at their own place, some outside."""
    from mmrotate.models.layers.align import FRM

    module = FRM(2, [8, 16]).double()
    boxes = [[torch.rand(h * w, 5, dtype=torch.float64) * 64 - 8 for h, w in sizes] for _ in range(2)]
    for image in boxes:
        image[0][:, :2] = torch.cartesian_prod(torch.arange(5.0), torch.arange(6.0)) * 8 + 8 * torch.rand(30, 2)
    return module, boxes, [random_gaussian(2, 2, h, w) for h, w in sizes]


def test_alignment_of_refined_features_is_its_squared_matrix():
    """Without the convolutions that mix pixels: one pixel read at the box, one here, and the map once more."""
    module, boxes, maps = refinement()
    with torch.no_grad():
        for conv in (module.conv_5_1, module.conv_1_5):
            conv.weight.zero_()
        module.conv_1_1.weight.copy_(torch.eye(2)[:, :, None, None])
        plain = module([x.mean for x in maps], boxes)
        with operator_rules(module):
            out = module(maps, boxes)
        uncombined = []
        for level, (x, stride) in enumerate(zip(maps, module.strides, strict=True)):
            rows = torch.cat([image[level] for image in boxes])
            align = matrix_of(lambda f, rows=rows, s=stride: rotated_feature_align(f, rows, 1 / s), x.shape, [])
            expected = (align.square() @ x.var.flatten()).view_as(x.var) + x.var
            torch.testing.assert_close(out[level].var, expected, rtol=1e-10, atol=1e-13)
            assert torch.equal(out[level].mean, plain[level])
            single = (align - torch.eye(len(align), dtype=align.dtype)).square() @ x.var.flatten()
            uncombined.append((single.view_as(x.var) + 2 * x.var - expected).abs().max() / expected.max())
    assert max(uncombined) > 0.1  # negative control: the pixel itself, squared apart from the point


def test_refined_features_have_the_variance_of_their_parts():
    """The module of torch functions, over Gaussians, where the boxes lie outside: the alignment adds nothing."""
    module, boxes, maps = refinement()
    boxes = [[torch.full_like(level, -999) for level in image] for image in boxes]
    with torch.no_grad(), operator_rules(module):
        out = module(maps, boxes)
        for x, y in zip(maps, out, strict=True):
            parts = x + (module.conv_5_1(module.conv_1_5(x)) + module.conv_1_1(x))
            torch.testing.assert_close(y.var, parts.var, rtol=1e-12, atol=0)


def test_only_the_feature_maps_may_be_gaussian():
    """A Gaussian offset must not pass for a constant one, nor a constant map for its own variance."""
    conv, x = DeformConv2d(1, 1, 3, padding=1).double(), random_gaussian(1, 1, 5, 5)
    offset = random_gaussian(1, 18, 5, 5)
    extractor, _ = extractor_of('straight')
    feats, rois = pyramid(), rois_of([[0, 4, 4, 40, 40]])  # of the second level
    with operator_rules(nn.ModuleList([conv, extractor])):
        for maps in (x, x.mean):
            with pytest.raises(NoMomentRule, match="'offset' is Gaussian"):
                conv(maps, offset)
        assert extractor(feats, rois).var.min() > 0
        assert extractor([feats[0], feats[1].mean], rois).var.max() == 0


def test_variances_are_the_same_in_small_pieces(monkeypatch):
    layer, x = RoIAlignRotated(2, 0.25, 0, True, True), random_gaussian(2, 2, 9, 8)
    conv, offset = DeformConv2d(2, 2, 3, padding=1).double(), torch.randn(2, 18, 9, 8, dtype=torch.float64)

    def both():
        return rules_roi_align.roi_align_rotated(layer, x.var, rois_of(TURNED)), rules_deform_conv.deform_conv(
            conv, x.var, offset
        )

    with torch.no_grad():
        whole = both()
        monkeypatch.setattr(operators, 'ENTRIES', 600)
        parts = both()
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=0)


@pytest.mark.parametrize('extent, shared', [(4.0, True), (40.0, False)])
def test_squares_of_single_weights_are_too_little_where_points_share_pixels(extent, shared):
    """Negative control: the operator at twice the bins, whose four values a bin averages, taken as independent."""
    fine, coarse = RoIAlign(4, 1.0, 1), RoIAlign(2, 1.0, 2)
    x, rois = random_gaussian(1, 1, 44, 44), rois_of([[0, 1.3, 1.6, 1.3 + extent, 1.6 + extent]])
    with operator_rules(nn.ModuleList([fine, coarse])):
        single = nn.functional.avg_pool2d(fine(x, rois).var, 2) / 4
        combined = coarse(x, rois).var
    torch.testing.assert_close(coarse(x.mean, rois), nn.functional.avg_pool2d(fine(x.mean, rois), 2))
    assert ((single - combined).abs().max() > 0.1 * combined.max()) == shared


def test_taps_that_share_pixels_are_not_independent():
    """Negative control: with all taps at one point, the kernel's sum counts, not its squares."""
    module = DeformConv2d(1, 1, 3, padding=1).double()
    step = torch.arange(3, dtype=torch.float64) - 1
    here = -torch.stack([step.repeat_interleave(3), step.repeat(3)], 1)  # (taps, 2), back to the middle
    offset = here.flatten()[None, :, None, None].expand(1, 18, 5, 5).contiguous()
    x = random_gaussian(1, 1, 5, 5)
    with operator_rules(module), torch.no_grad():
        out = module(x, offset)
        torch.testing.assert_close(out.var, module.weight.sum().square() * x.var)
        assert not torch.allclose(out.var, module.weight.square().sum() * x.var, rtol=0.1)


def pyramid(**traits):
    return [random_gaussian(2, 2, size, size, **traits) for size in (16, 8)]


def extractor_of(kind):
    common = dict(out_channels=2, featmap_strides=[4, 8], finest_scale=10)
    if kind == 'straight':
        return SingleRoIExtractor(dict(type='RoIAlign', output_size=2, sampling_ratio=0), **common), BOXES
    layer = dict(type='RoIAlignRotated', output_size=2, sampling_ratio=2, clockwise=True)
    from mmrotate.models.roi_heads.roi_extractors import RotatedSingleRoIExtractor

    return RotatedSingleRoIExtractor(layer, **common), TURNED


@pytest.mark.parametrize('kind', ['straight', 'rotated'])
@pytest.mark.parametrize('container', [list, tuple])
@pytest.mark.parametrize('factor', [None, 1.5])
def test_extractor_is_its_squared_matrix(kind, container, factor):
    extractor, rows = extractor_of(kind)
    rois, feats = rois_of(rows), container(pyramid(min_variance=0.0, plain_mean=True, rule='rank1'))
    assert len(extractor.map_roi_levels(rois, 2).unique()) == 2

    def flat(x):
        ends = torch.tensor([f.numel() for f in feats]).cumsum(0).tolist()
        parts = [x[a:b].view(f.shape) for f, (a, b) in zip(feats, pairwise([0, *ends]), strict=True)]
        return extractor(parts, rois, roi_scale_factor=factor)

    plain = extractor([f.mean for f in feats], rois, factor)
    with operator_rules(extractor):
        out = extractor(feats, rois, roi_scale_factor=factor)
    var = torch.cat([f.var.flatten() for f in feats])
    expected = matrix_of(flat, var.shape, []).square() @ var
    torch.testing.assert_close(out.var, expected.view_as(out.var), rtol=1e-10, atol=1e-13)
    assert torch.equal(out.mean, plain)
    assert out.plain_mean and out.rule == 'rank1'


@pytest.mark.parametrize('levels', [1, 2])
def test_no_regions_give_an_empty_gaussian(levels):
    extractor, rows = extractor_of('rotated')
    with operator_rules(extractor):
        out = extractor(pyramid()[:levels], rois_of(rows)[:0])
    assert isinstance(out, Gaussian) and out.shape == (0, 2, 2, 2)


def test_the_floor_holds():
    extractor, rows = extractor_of('rotated')
    with operator_rules(extractor):
        out = extractor(pyramid(min_variance=0.5), rois_of(rows))
    assert out.var.min() == 0.5 and out.min_variance == 0.5


def test_variances_learn():
    layer, x = RoIAlignRotated(2, 0.25, 2, True, True), random_gaussian(2, 2, 9, 8)
    x.var.requires_grad_()
    with operator_rules(layer):
        out = layer(x, rois_of(TURNED))
    (grad,) = torch.autograd.grad(out.var.sum(), x.var)
    expected = matrix_of(layer, x.shape, [rois_of(TURNED)]).square().sum(0)
    torch.testing.assert_close(grad.flatten(), expected)


@pytest.mark.parametrize(
    'dtype',
    [torch.float32, pytest.param(torch.float16, marks=pytest.mark.needs_torch('2.1', 'float16 on CPUs'))],
)
def test_lower_precision_stays_close(dtype):
    layer, x = RoIAlign(2, 0.25, 2), random_gaussian(1, 2, 9, 8)
    rois = rois_of(BOXES[:1])
    expected = rules_roi_align.roi_align(layer, x.var, rois)
    actual = operators._propagate(
        layer, rules_roi_align.roi_align, layer.forward, Gaussian(x.mean.to(dtype), x.var.to(dtype)), rois.to(dtype)
    )
    assert actual.dtype == dtype
    # a position near 10 has a rounding error of 5 units of 2^-11 or 2^-24 and the weights change as much
    torch.testing.assert_close(actual.var.double(), expected, rtol=50 * torch.finfo(dtype).eps, atol=0)


def test_modules_are_as_before_also_after_an_exception():
    class Own(RoIAlign):
        def forward(self, *args):
            return super().forward(*args)

    model = nn.ModuleList([extractor_of('straight')[0], DeformConv2d(1, 1, 3), RoIAlign(2), Own(2)])
    kept = model[2].forward = model[2].forward  # one that somebody else has put there
    with operator_rules(model):
        assert all('forward' in m.__dict__ for m in (*model[:3], *model[0].roi_layers))
        assert 'forward' not in model[3].__dict__  # a subclass with another forward is something else
    with pytest.raises(KeyError), operator_rules(model):
        raise KeyError
    assert model[2].__dict__['forward'] is kept
    assert not ['forward' for m in model.modules() if 'forward' in m.__dict__ and m is not model[2]]


def test_what_has_no_rule_is_named():
    with operator_rules(layer := RoIAlign(2, pool_mode='max')), pytest.raises(NoMomentRule, match="pool_mode='max'"):
        layer(random_gaussian(1, 1, 9, 9), rois_of(BOXES[:1]))
    extractor = SingleRoIExtractor(dict(type='RoIPool', output_size=2), 2, [4])
    extractor.roi_layers[0].forward = lambda feats, rois: feats.new_zeros(len(rois), 2, 2, 2)
    with operator_rules(extractor), pytest.raises(NoMomentRule, match='RoIPool'):
        extractor(pyramid()[:1], rois_of(BOXES))


def test_one_more_rule_takes_a_few_lines(monkeypatch):
    monkeypatch.setattr(operators, 'RULES', dict(operators.RULES))

    @operators.operator_rule('torch.nn:Identity')
    def identity(module, var):
        return 4 * var if isinstance(module, nn.Identity) else var

    x = random_gaussian(3)
    with operator_rules(module := nn.Identity()):
        out = module(x)
    assert torch.equal(out.var, 4 * x.var) and torch.equal(out.mean, x.mean)
