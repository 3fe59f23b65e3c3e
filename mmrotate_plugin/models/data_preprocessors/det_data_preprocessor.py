"""mmdet's data preprocessor for images of any number of channels. Imports mmdet."""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor as HostDetDataPreprocessor

from ...registry import MODELS


@MODELS.register_module()
class DetDataPreprocessor(HostDetDataPreprocessor):
    """mmdet's, with one mean and one standard deviation for each channel; mmengine's takes 1 or 3 of them.

    ``type='mmrotate_plugin.DetDataPreprocessor'`` finds it from every scope.

    Args:
        mean, std: Of each channel in the order of the image, or one for all; None for no normalisation.
        bgr_to_rgb, rgb_to_bgr: For images of three channels only.
        kwargs: Of mmdet's class.

    Shape:
        - Input: `inputs`, (C, H, W) each. Output: (B, C, H', W'), normalised and padded.

    Raises:
        ValueError: If `mean` and `std` differ in length, an image has another number of channels, or colours are
            swapped where there are not three.
    """

    def __init__(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        *,
        bgr_to_rgb: bool = False,
        rgb_to_bgr: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(bgr_to_rgb=bgr_to_rgb, rgb_to_bgr=rgb_to_bgr, **kwargs)
        if mean is None and std is None:
            return
        lengths = [0 if values is None else len(values) for values in (mean, std)]
        if lengths[0] != lengths[1] or not lengths[0]:
            raise ValueError(f'mean={mean} and std={std} must have one number for each channel, both of them')
        if not all(value > 0 for value in std):
            raise ValueError(f'std={std} must be above 0')
        if lengths[0] not in (1, 3) and self._channel_conversion:
            raise ValueError(f'bgr_to_rgb and rgb_to_bgr are for three channels, but mean has {lengths[0]} values')
        self._enable_normalize = True
        self.register_buffer('mean', torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1), False)
        self.register_buffer('std', torch.tensor(std, dtype=torch.float32).view(-1, 1, 1), False)

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Normalise, pad and stack a batch."""
        for image in data['inputs']:
            if self._enable_normalize and len(self.mean) not in (1, image.shape[0]):
                raise ValueError(f'an image has {image.shape[0]} channels, but mean has {len(self.mean)} values')
            if self._channel_conversion and image.shape[0] != 3:
                raise ValueError(f'bgr_to_rgb and rgb_to_bgr are for three channels, an image has {image.shape[0]}')
        return super().forward(data, training)
