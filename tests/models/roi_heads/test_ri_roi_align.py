import math

import pytest
import torch
from mmcv.ops import RiRoIAlignRotated as MMCVOperator
from mmcv.ops import roi_align_rotated

from mmrotate_plugin.models import ReFPN, ReResNet
from mmrotate_plugin.models.roi_heads.ri_roi_align import RiRoIAlignRotated
from mmrotate_plugin.testing import randomize_norms_, relative_error


def bilinear(image, y, x):
    """One value of a map, as RoI align reads it: nothing outside, edges held for one pixel."""
    h, w = image.shape
    if y < -1 or y > h or x < -1 or x > w:
        return 0.0
    y, x = min(max(y, 0.0), h - 1), min(max(x, 0.0), w - 1)
    y0, x0 = min(int(y), h - 1), min(int(x), w - 1)
    y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
    a, b = y - y0, x - x0
    top = (1 - b) * image[y0, x0] + b * image[y0, x1]
    return ((1 - a) * top + a * ((1 - b) * image[y1, x0] + b * image[y1, x1])).item()


def published_formula(features, roi, size, scale, samples, n, clockwise):
    """The operator pixel by pixel, as the paper's kernel defines it."""
    index, cx, cy, w, h, theta = roi.tolist()
    cx, cy, w, h = cx * scale, cy * scale, max(w * scale, 1.0), max(h * scale, 1.0)
    shift = theta * n / (2 * math.pi)
    i = math.floor(shift)
    part = shift - i
    turn = -theta if clockwise else theta
    out = torch.zeros(features.shape[1], size, size, dtype=features.dtype)
    for c in range(features.shape[1]):
        field, o = divmod(c, n)
        first, second = (features[int(index), field * n + (o - i + k) % n] for k in (0, 1))
        for ph in range(size):
            for pw in range(size):
                total = 0.0
                for iy in range(samples):
                    for ix in range(samples):
                        yy = -h / 2 + (ph + (iy + 0.5) / samples) * h / size
                        xx = -w / 2 + (pw + (ix + 0.5) / samples) * w / size
                        y = yy * math.cos(turn) - xx * math.sin(turn) + cy
                        x = yy * math.sin(turn) + xx * math.cos(turn) + cx
                        total += (1 - part) * bilinear(first, y, x) + part * bilinear(second, y, x)
                out[c, ph, pw] = total / samples**2
    return out


ROIS = torch.tensor(
    [[0, 20, 16, 20, 8, 0.0], [1, 14, 18, 16, 10, 0.4], [0, 30, 30, 24, 6, -1.3], [1, 2, 3, 12, 12, 1.5]],
    dtype=torch.float64,
)


@pytest.mark.parametrize('orientations', [1, 4, 8, 16])
@pytest.mark.parametrize('clockwise', [True, False])
def test_is_the_published_formula(orientations, clockwise):
    features = torch.randn(2, 16, 9, 10, dtype=torch.float64)
    layer = RiRoIAlignRotated(2, 0.25, num_samples=2, num_orientations=orientations, clockwise=clockwise)
    out = layer(features, ROIS)
    for roi, actual in zip(ROIS, out, strict=True):
        expected = published_formula(features, roi, 2, 0.25, 2, orientations, clockwise)
        assert torch.allclose(actual, expected, atol=1e-12)
    plain = roi_align_rotated(features, ROIS, (2, 2), 0.25, 2, False, clockwise)
    assert torch.allclose(out[0], plain[0]), 'angle 0: nothing to cycle'
    assert orientations == 1 or not torch.allclose(out[1], plain[1], atol=0.01)


@pytest.mark.parametrize('group', ['C4', 'C8', 'C16', 'D4', 'D8'])
@pytest.mark.parametrize('published', [True, False])
def test_regions_of_a_turned_image_are_read_alike(group, published):
    """From the image to the region: turn both by 90 degrees, and nothing changes, whatever the region's angle."""
    net = torch.nn.Sequential(
        ReResNet(18, group=group, base_channels=16, num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(0, 1)),
        ReFPN([16, 32], 16, 2, group=group),
    ).eval()
    randomize_norms_(net)
    size, rotations = 65, int(group[1:])
    x = torch.randn(1, 3, size, size)
    rois = torch.tensor([[0, 30, 26, 24, 10, 0.0], [0, 20, 40, 20, 12, 0.7], [0, 40, 30, 16, 16, -1.1]])
    turned = (
        rois.clone()
    )  # pixel (x, y) goes to (y, size - 1 - x), and an angle that grows clockwise falls by 90 degrees
    turned[:, 1], turned[:, 2], turned[:, 5] = rois[:, 2], size - 1 - rois[:, 1], rois[:, 5] - math.pi / 2
    layer = RiRoIAlignRotated(5, 0.25, 2, rotations, clockwise=True, published=published)
    with torch.no_grad():
        before, after = net(x)[0], net(x.rot90(1, (-2, -1)))[0]
        error = relative_error(layer(after, turned), layer(before, rois))
        plain = [roi_align_rotated(f, r, (5, 5), 0.25, 2, False, True) for f, r in ((after, turned), (before, rois))]
    assert error < 1e-5
    assert relative_error(*plain) > 0.01, 'without cycling the orientations the region is not read alike'


@pytest.mark.parametrize('clockwise', [True, False])
@pytest.mark.parametrize('degrees', [0, 10, 22.5, 35, 45, 80, -30, -80])
def test_between_orientations(clockwise, degrees):
    """A field that varies as a cosine of the orientation, turned with its object by any angle."""
    n, turn = 8, math.radians(degrees)
    phase = 2 * math.pi * torch.arange(n, dtype=torch.float64) / n
    features = torch.cos(phase - turn).view(1, n, 1, 1).expand(1, n, 9, 9)  # the object was turned counter-clockwise
    roi = torch.tensor([[0, 4, 4, 4, 2, -turn if clockwise else turn]], dtype=torch.float64)
    layer = RiRoIAlignRotated(1, 1.0, 1, n, clockwise=clockwise, published=False)
    error = (layer(features, roi).flatten() - torch.cos(phase)).abs().max()
    assert error < 1 - math.cos(math.pi / n) + 1e-12, 'linear interpolation halfway between two samples of a cosine'
    published = RiRoIAlignRotated(1, 1.0, 1, n, clockwise=clockwise)(features, roi).flatten() - torch.cos(phase)
    if degrees == 0 or (degrees == 45 and clockwise):
        assert published.abs().max() < 1e-9, 'whole steps: the published operator is right'
    elif clockwise or not 0 < degrees < 45:
        assert published.abs().max() > 0.25


def test_is_found_by_name_in_mmrotates_extractor():
    from mmengine.registry import MODELS
    from mmrotate.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    extractor = MODELS.build(
        dict(
            type='mmrotate.RotatedSingleRoIExtractor',
            roi_layer=dict(type='mmrotate_plugin.RiRoIAlignRotated', out_size=3, num_samples=2, clockwise=True),
            out_channels=16,
            featmap_strides=[4, 8],
        )
    )
    assert all(type(layer) is RiRoIAlignRotated for layer in extractor.roi_layers)
    maps = [torch.randn(1, 16, 17, 17, requires_grad=True), torch.randn(1, 16, 9, 9, requires_grad=True)]
    rois = torch.tensor([[0, 20.0, 20, 12, 8, 0.3], [0, 30, 30, 300, 200, 0.1], [0, 30, 30, 0, 0, 0]])
    out = extractor(maps, rois)
    assert torch.equal(out[:1], extractor.roi_layers[0](maps[0], rois[:1]))
    assert torch.equal(out[1:2], extractor.roi_layers[1](maps[1], rois[1:2]))
    out.sum().backward()
    assert all(m.grad.isfinite().all() for m in maps)
    assert extractor(maps, rois[:0]).shape == (0, 16, 3, 3)


@pytest.mark.parametrize('samples', [0, 2])
@pytest.mark.parametrize('published', [True, False])
def test_gradcheck(samples, published):
    layer = RiRoIAlignRotated((2, 3), 0.5, samples, num_orientations=4, clockwise=True, published=published)
    features = torch.randn(2, 8, 6, 7, dtype=torch.float64, requires_grad=True)
    rois = ROIS * torch.tensor([1, 0.3, 0.3, 0.3, 0.3, 1])
    assert torch.autograd.gradcheck(lambda f: layer(f, rois), features)


def test_any_memory_format_is_read_right():
    layer = RiRoIAlignRotated(3, 0.25, num_samples=2, num_orientations=8)
    features, rois = torch.randn(2, 16, 9, 10), ROIS.float()
    expected = layer(features, rois)
    assert torch.equal(layer(features.to(memory_format=torch.channels_last), rois), expected)
    assert torch.equal(layer(features, rois.t().contiguous().t()), expected)


def test_malformed_input():
    layer = RiRoIAlignRotated(3, 1.0, num_orientations=8)
    features = torch.randn(1, 16, 9, 9, requires_grad=True)
    empty = layer(features, torch.zeros(0, 6))
    assert empty.shape == (0, 16, 3, 3)
    empty.sum().backward()
    flat = layer(features, torch.tensor([[0, 4, 4, 0, -3, 0.2]]))
    assert torch.equal(flat, layer(features, torch.tensor([[0, 4, 4, 1, 1, 0.2]]))), 'no size counts as one pixel'
    with pytest.raises(ValueError, match='1 of 2 rois are not finite'):
        layer(features, torch.tensor([[0, 4, 4, 2, 2, float('nan')], [0, 4, 4, 2, 2, 0.0]]))
    with pytest.raises(ValueError, match=r'rois of shape \(1, 5\)'):
        layer(features, torch.zeros(1, 5))
    with pytest.raises(ValueError, match='12 channels .*num_orientations=8'):
        layer(torch.zeros(1, 12, 9, 9), torch.zeros(1, 6))
    with pytest.raises(ValueError, match='num_orientations=0'):
        RiRoIAlignRotated(3, 1.0, num_orientations=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('clockwise', [True, False])
def test_agrees_with_mmcvs_cuda_operator(clockwise):
    features, rois = torch.randn(2, 16, 9, 10), ROIS.float()
    ours = RiRoIAlignRotated(7, 0.25, num_samples=2, clockwise=clockwise)
    theirs = MMCVOperator((7, 7), 0.25, num_samples=2, clockwise=clockwise)
    assert torch.allclose(ours(features, rois), theirs(features.cuda(), rois.cuda()).cpu(), atol=1e-5)
    assert torch.allclose(ours(features.cuda(), rois.cuda()).cpu(), ours(features, rois), atol=1e-5)
