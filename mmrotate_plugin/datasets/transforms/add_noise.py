"""Add noise to the images of a data set, to train with it."""

import math
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from ...registry import TRANSFORMS, register


@register(TRANSFORMS)
class AddNoise(BaseTransform):
    """Add white Gaussian noise to the pixels, new noise each time an image is loaded.

    Put it after all transforms that resize and before `PackDetInputs`, so that the noise is that of the image which the
    network gets (`noise_std` of `UncertainDetector`). It draws from numpy's global random state, which mmengine seeds
    in each worker.

    Args:
        std: Standard deviation in grey levels, the unit of the image's values.

    Required keys: img, of any number of channels, integers or floating point.

    Modified keys: img, of the same dtype; integers are rounded and clipped, as a camera does.

    Raises:
        ValueError: If `std` is negative or not finite.
    """

    def __init__(self, std: float) -> None:
        if not 0 <= std < math.inf:
            raise ValueError(f'std={std} must be finite and non-negative, in grey levels')
        self.std = std

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add noise to ``results['img']``."""
        image = results['img']
        noisy = image + np.random.normal(0, self.std, image.shape)
        if image.dtype.kind in 'iu':
            limits = np.iinfo(image.dtype)
            noisy = np.rint(noisy).clip(limits.min, limits.max)
        results['img'] = noisy.astype(image.dtype)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(std={self.std})'
