"""The variance of the noise of a detector's images."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor

from ...adf.input_noise import check_noise, fill_noise
from ...adf.noise_estimation import estimate_noise
from ...structures import content_slices
from ..backbones.adf_resnet import ADFResNet


def normalised_variance(noise_std: float | Sequence[float], preprocessor: Any) -> float | tuple[float, ...]:
    """Convert grey levels to a variance in squared units of the normalised image, a number or one per channel.

    Args:
        noise_std: Standard deviation, a number or one per channel.
        preprocessor: A detector's data preprocessor; its `std` is the unit, if it normalises.
    """
    scale = _scale(preprocessor)
    scales = [1.0] if scale is None else scale.flatten().tolist()
    levels = list(noise_std) if isinstance(noise_std, Sequence) else [noise_std] * len(scales)
    scales = scales * len(levels) if len(scales) == 1 else scales
    variance = tuple((level / s) ** 2 for level, s in zip(levels, scales, strict=True))
    return variance if len(variance) > 1 else variance[0]


class ImageNoise:
    """The noise of a detector's images: a constant, or estimated from each image.

    Args:
        detector: Its data preprocessor gives the unit of the normalised image, its `ADFResNet` the noise if neither of
            the two below does.
        noise_std, noise_variance: See `UncertainDetector`.

    Raises:
        ValueError: If both are given, or none and the backbone has none; for numbers out of range or of a wrong count.
    """

    def __init__(self, detector: BaseModel, noise_std: Any, noise_variance: Any) -> None:
        if noise_std is not None and noise_variance is not None:
            raise ValueError(f'give one of noise_std={noise_std} and noise_variance={noise_variance}, not both')
        if isinstance(noise_std, str) and noise_std != 'estimate':
            raise ValueError(f"noise_std={noise_std!r} is unknown: use a number of grey levels, or 'estimate'")
        self.detector, self.noise_std, self.noise_variance = detector, noise_std, noise_variance
        if noise_std is None and noise_variance is None:
            if not isinstance(getattr(detector, 'backbone', None), ADFResNet):
                raise ValueError(
                    "the noise of the image is missing: give noise_std in grey levels, noise_std='estimate', or "
                    'noise_variance; only an ADFResNet has one of its own'
                )
            return
        for name, value in (('noise_std', noise_std), ('noise_variance', noise_variance)):
            if value is None or isinstance(value, str):
                continue
            count = len(value) if isinstance(value, Sequence) else 1
            check_noise(value, count)  # names negative numbers
            scale = _scale(detector.data_preprocessor)
            channels = 1 if scale is None else scale.numel()
            if count > 1 and channels > 1 and count != channels:
                raise ValueError(f'{name}={value} must have one number for each of {channels} channels')

    @property
    def variance(self) -> float | tuple[float, ...] | None:
        """In squared units of the normalised image, a number or one per channel; None if it is estimated."""
        if self.noise_variance is not None:
            several = isinstance(self.noise_variance, Sequence)
            return tuple(self.noise_variance) if several else float(self.noise_variance)
        if self.noise_std is None:
            return self.detector.backbone.noise_variance
        if isinstance(self.noise_std, str):
            return None
        return normalised_variance(self.noise_std, self.detector.data_preprocessor)

    def __call__(self, inputs: Tensor, data_samples: Any) -> Tensor:
        """Variance of each pixel of normalised images, (B, C, H, W); padding has none."""
        known = self.variance
        variance = estimate_noise(inputs) if known is None else fill_noise(known, inputs)
        noisy = torch.zeros_like(variance)
        for i, sample in enumerate(data_samples):
            height, width = sample.metainfo.get('img_shape', inputs.shape[-2:])[:2]
            rows, columns = content_slices(sample.metainfo, (height, width))
            noisy[i, :, rows, columns] = variance[i, :, rows, columns]
        return noisy


def _scale(preprocessor: Any) -> Tensor | None:
    """Grey levels per unit of the normalised image."""
    return getattr(preprocessor, 'std', None) if getattr(preprocessor, '_enable_normalize', False) else None
