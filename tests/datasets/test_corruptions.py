import numpy as np
import pytest

from mmrotate_plugin.datasets.transforms.corruptions import KINDS, Corruption

GREY = np.full((64, 64, 3), 128, dtype=np.uint8)
N = GREY.size


@pytest.mark.parametrize('text, excess', [('gaussian:8', 3.0), ('impulse:16', (127.5 / 16) ** 2)])
def test_noise_has_the_level_that_it_names(text, excess):
    corruption = Corruption.parse(text)
    assert corruption.name == text and corruption.noise_std == corruption.level
    residual = corruption(GREY, seed=0, index=0).astype(float) - GREY
    # five standard errors of a sample variance of this kurtosis, relative
    tolerance = 5 * ((excess - 1) / N) ** 0.5
    assert residual.var() == pytest.approx(corruption.level**2, rel=tolerance)
    assert residual.var() != pytest.approx((corruption.level / 2) ** 2, rel=tolerance)


def test_impulses_are_black_or_white():
    out = Corruption('impulse', 16)(GREY, seed=0, index=0)
    assert set(np.unique(out)) == {0, 128, 255}


def test_other_corruptions_do_what_they_say():
    image = np.random.default_rng(0).integers(60, 190, GREY.shape, dtype=np.uint8)
    assert Corruption('blur', 2)(image, seed=0, index=0).std() < image.std() / 3
    # rounding moves a value by a half at most
    grey = Corruption('contrast', 0.5)(image, seed=0, index=0)
    assert np.abs(grey - (image.mean() + (image - image.mean()) / 2)).max() <= 0.5 + 1e-9
    smooth = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[:, None], 64, 1)[..., None].repeat(3, 2)
    coarse, fine = (Corruption('jpeg', quality)(smooth, seed=0, index=0).astype(float) for quality in (2, 100))
    assert np.abs(coarse - smooth).mean() > 20 * np.abs(fine - smooth).mean()
    assert all(Corruption(kind, 5 if kind != 'contrast' else 1.5).noise_std is None for kind in ('blur', 'jpeg'))


@pytest.mark.parametrize('kind', ['gaussian', 'impulse'])
def test_repeatable_and_other_for_other_images(kind):
    corruption = Corruption(kind, 8)
    first = corruption(GREY, seed=0, index=3)
    assert np.array_equal(first, corruption(GREY, seed=0, index=3))
    assert not np.array_equal(first, corruption(GREY, seed=0, index=4))
    assert not np.array_equal(first, corruption(GREY, seed=1, index=3))
    assert first.dtype == np.uint8 and (GREY == 128).all()


@pytest.mark.parametrize('text, message', [
    ('fog:1', "corruption 'fog' is unknown: use one of gaussian"),
    ('gaussian', 'must be KIND:LEVEL, such as gaussian:8'),
    ('gaussian:much', 'must be KIND:LEVEL'),
    ('gaussian:nan', 'must be from 0.001 to 127.5'),
    ('jpeg:200', 'the level, a quality, must be from 1 to 100'),
])  # fmt: skip
def test_wrong_names(text, message):
    with pytest.raises(ValueError, match=message):
        Corruption.parse(text)


def test_wrong_images():
    with pytest.raises(ValueError, match='it must be uint8'):
        Corruption(next(iter(KINDS)), 8)(GREY.astype(float), seed=0, index=0)
