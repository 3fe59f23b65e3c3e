"""Corrupt images repeatably: by noise, blur, compression, or loss of contrast."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

MIDDLE = 127.5  # grey level half way between black and white


@dataclass(frozen=True)
class Kind:
    """A kind of corruption.

    Attributes:
        function: Takes an image (H, W, C), a level and a random generator, and returns values to round and clip.
        smallest, largest: Range of levels.
        level: Meaning of the level.
        noisy: Whether the level is a standard deviation of noise, in grey levels.
    """

    function: Callable[[Image, float, np.random.Generator], NDArray[Any]]
    smallest: float
    largest: float
    level: str
    noisy: bool = False


@dataclass(frozen=True)
class Corruption:
    """One kind at one level; the same image, seed and index give the same result.

    Attributes:
        kind: A key of `KINDS`.
        level: Level, see `KINDS`.
    """

    kind: str
    level: float

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"corruption '{self.kind}' is unknown: use one of {', '.join(KINDS)}")
        kind = KINDS[self.kind]
        if not kind.smallest <= self.level <= kind.largest:
            raise ValueError(
                f"corruption '{self.kind}:{self.level:g}': the level, {kind.level}, must be from {kind.smallest:g} to "
                f'{kind.largest:g}'
            )

    @classmethod
    def parse(cls, text: str) -> 'Corruption':
        """Parse 'KIND:LEVEL', such as 'gaussian:8'.

        Raises:
            ValueError: For an unknown kind, or a level that is not a number or out of range.
        """
        kind, _, level = text.partition(':')
        try:
            value = float(level)
        except ValueError:
            raise ValueError(f"corruption '{text}' must be KIND:LEVEL, such as gaussian:8") from None
        return cls(kind, value)

    @property
    def name(self) -> str:
        """Name of the corruption, as `parse` takes it."""
        return f'{self.kind}:{self.level:g}'

    @property
    def noise_std(self) -> float | None:
        """Standard deviation of its noise in grey levels; None if the corruption is not noise."""
        return self.level if KINDS[self.kind].noisy else None

    def __call__(self, image: Image, *, seed: int, index: int) -> Image:
        """Corrupt an image.

        Args:
            image: (H, W, C), 8 bit.
            seed: Seed of the run.
            index: Index of the image in the run; each image gets noise of its own.
        """
        if image.dtype != np.uint8 or image.ndim != 3:
            raise ValueError(f'image is {image.dtype} of shape {image.shape}; it must be uint8, (H, W, channels)')
        generator = np.random.default_rng([seed, index, zlib.crc32(self.name.encode())])
        values = KINDS[self.kind].function(image, self.level, generator)
        return np.rint(values).clip(0, 255).astype(np.uint8)


def gaussian(image: Image, level: float, generator: np.random.Generator) -> NDArray[Any]:
    """Add white noise of this standard deviation."""
    return image + generator.normal(0, level, image.shape)


def impulse(image: Image, level: float, generator: np.random.Generator) -> NDArray[Any]:
    r"""Add salt and pepper: each value becomes black or white with probability :math:`(\sigma / 127.5)^2`.

    That gives a middle grey pixel noise of standard deviation :math:`\sigma`, which makes it comparable with Gaussian
    noise of that level. Brighter and darker pixels have a little more.
    """
    hit = generator.random(image.shape) < (level / MIDDLE) ** 2
    return np.where(hit, 255 * generator.integers(0, 2, image.shape), image)


def blur(image: Image, level: float, _: np.random.Generator) -> NDArray[Any]:
    """Blur with a Gaussian of this standard deviation in pixels."""
    blurred = cv2.GaussianBlur(image.astype(np.float32), (0, 0), level, borderType=cv2.BORDER_REFLECT_101)
    return blurred.reshape(image.shape)  # OpenCV drops a single channel


def contrast(image: Image, level: float, _: np.random.Generator) -> NDArray[Any]:
    """Multiply the differences from the image's mean by this factor."""
    mean = image.mean()
    return mean + level * (image - mean)


def jpeg(image: Image, level: float, _: np.random.Generator) -> NDArray[Any]:
    """Compress at this quality; unless there are three channels, each of them as a grey image."""

    def compressed(part: Image, flag: int) -> NDArray[Any]:
        decoded = cv2.imdecode(cv2.imencode('.jpg', part, [cv2.IMWRITE_JPEG_QUALITY, round(level)])[1], flag)
        assert decoded is not None, 'OpenCV wrote it itself'
        return decoded

    if image.shape[2] == 3:
        return compressed(image, cv2.IMREAD_COLOR)
    bands = [np.ascontiguousarray(image[..., i]) for i in range(image.shape[2])]
    return np.dstack([compressed(band, cv2.IMREAD_GRAYSCALE) for band in bands])


KINDS = {
    'gaussian': Kind(gaussian, 1e-3, MIDDLE, 'a standard deviation in grey levels', noisy=True),
    'impulse': Kind(impulse, 1e-3, MIDDLE, 'a standard deviation in grey levels at middle grey', noisy=True),
    'blur': Kind(blur, 0.1, 20, 'a standard deviation in pixels'),
    'contrast': Kind(contrast, 0.01, 10, 'a factor'),
    'jpeg': Kind(jpeg, 1, 100, 'a quality'),
}
