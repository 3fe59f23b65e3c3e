import numpy as np
import pytest

from mmrotate_plugin.datasets import AddNoise
from mmrotate_plugin.registry import TRANSFORMS


@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
def test_noise_has_its_deviation_and_is_another_each_time(dtype):
    np.random.seed(0)
    image = np.full((50, 50, 3), 128, dtype=dtype)
    add = TRANSFORMS.build(dict(type='AddNoise', std=6.0))
    first, second = (add(dict(img=image.copy()))['img'] for _ in range(2))
    assert first.dtype == dtype and not np.array_equal(first, second)
    rounding = 1 / 12 if dtype == np.uint8 else 0
    # five standard errors of a sample variance
    assert (first.astype(float) - 128).var() == pytest.approx(36 + rounding, rel=5 * (2 / image.size) ** 0.5)
    assert np.array_equal(AddNoise(0)(dict(img=image.copy()))['img'], image)


def test_pixels_are_clipped_not_wrapped():
    np.random.seed(0)
    out = AddNoise(30)(dict(img=np.full((20, 20, 3), 250, dtype=np.uint8)))['img']
    assert out.max() == 255 and out.min() > 100


@pytest.mark.parametrize('std', [-1, float('nan'), float('inf')])
def test_wrong_deviations(std):
    with pytest.raises(ValueError, match=r'must be finite and non-negative, in grey levels'):
        AddNoise(std)


def test_says_what_it_is():
    assert repr(AddNoise(8.0)) == 'AddNoise(std=8.0)'
