import pytest
import torch

from mmrotate_plugin.adf import estimate_noise
from mmrotate_plugin.adf.noise_estimation import _medians


def picture(size=256):
    """Planes and an edge, without noise: (1, 3, H, W) grey levels."""
    y, x = torch.meshgrid(*[torch.arange(size, dtype=torch.float32)] * 2, indexing='ij')
    return (60 + 0.3 * x + 0.2 * y + 40 * (x > size / 3)).expand(1, 3, -1, -1)


@pytest.mark.parametrize('sigma', [1.0, 8.0, 25.0])
def test_known_noise_is_recovered(sigma):
    noisy = picture() + sigma * torch.randn(1, 3, 256, 256)
    found = estimate_noise(noisy).sqrt()
    assert found.shape == noisy.shape
    # 7 % standard error a window, of which the mean of at least 100 is taken; 2 % for the edge that some contain
    assert abs(found.mean() / sigma - 1) < 5 * 0.07 / 10 + 0.02
    assert ((found / sigma - 1).abs() < 5 * 0.07).float().mean() > 0.95
    assert estimate_noise(picture()).max() < 1e-3  # nothing is found where nothing is


def test_noisy_half_is_told_from_the_clean_one():
    image = picture()
    image = torch.cat([image[..., :128] + 10 * torch.randn(1, 3, 256, 128), image[..., 128:]], 3)
    found = estimate_noise(image)
    assert found[..., :96].mean() > 80 and found[..., 160:].mean() < 1


def test_units_and_types():
    noisy = picture(64) + 8 * torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(estimate_noise(noisy / 50), estimate_noise(noisy) / 2500)
    assert estimate_noise(noisy.double()).dtype == torch.float64
    assert estimate_noise(noisy[..., :3, :3]).shape == (1, 3, 3, 3)


@pytest.mark.parametrize('x, error, text', [
    (torch.zeros(1, 3, 2, 9), ValueError, '3 x 3 pixels or more'),
    (torch.zeros(3, 9, 9), ValueError, r'\(B, C, H, W\)'),
    (torch.zeros(1, 3, 9, 9, dtype=torch.uint8), TypeError, 'x.float'),
])  # fmt: skip
def test_bad_images(x, error, text):
    with pytest.raises(error, match=text):
        estimate_noise(x)


@pytest.mark.parametrize('count', [9, 1024])
def test_sorting_in_part_gives_the_median(count):
    values = torch.randn(3, 2, count)
    values[0, 0, ::2] = values[0, 0, 0]  # ties
    expected = values.sort(-1).values[..., (count - 1) // 2]
    for quick in (True, False):
        assert torch.equal(_medians(values.clone(), quick=quick), expected)
    values[1, 0, 3] = torch.nan
    assert not torch.equal(_medians(values.clone(), quick=True), _medians(values, quick=False))


def test_noise_of_pixels_that_are_no_numbers_is_none():
    image = torch.randn(1, 3, 80, 80)
    image[0, 1, 70, 70] = torch.nan
    noise = estimate_noise(image)
    assert noise[:, ::2].isfinite().all() and noise[0, 1, 70, 70].isnan()
