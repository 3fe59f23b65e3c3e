"""Layers without coefficients that commute with every permutation of the orientations, or undo it.

Only `ennGroupPool` needs a group. The others are torch's own layers under names for configs.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .fields import DEFAULT_GROUP, count_fields


class ennReLU(nn.ReLU):
    """ReLU of every orientation channel. Args: `inplace`, as in `torch.nn.ReLU`."""


class ennMaxPool(nn.MaxPool2d):
    """Maximum over windows, per orientation channel. Arguments of `torch.nn.MaxPool2d`.

    Commutes with quarter turns where the windows tile the map symmetrically: ``(size + 2 * padding - kernel_size)``
    divisible by the stride.
    """


class ennAvgPool(nn.AvgPool2d):
    """Mean over windows, per orientation channel. Arguments of `torch.nn.AvgPool2d`.

    Commutes with quarter turns under the condition of `ennMaxPool`; `ceil_mode` breaks it where it adds a window.
    """


class ennInterpolate(nn.Module):
    """Resampling of every orientation channel.

    Args:
        scale_factor: Output size over input size. Give this or `size`.
        size: Output size in pixels.
        mode: 'bilinear', 'bicubic', 'nearest-exact', 'nearest' or 'area'. Plain 'nearest' rounds towards the upper
            left corner, so it commutes with quarter turns for whole scale factors only.
        align_corners: Whether corner pixels keep their place; for 'bilinear' and 'bicubic' only.

    Shape:
        - Input: (B, C, H, W). Output: (B, C, H', W').

    Raises:
        ValueError: If not exactly one of `scale_factor` and `size` is given, or `align_corners` does not fit the
            mode.
    """

    MODES = ('bilinear', 'bicubic', 'nearest-exact', 'nearest', 'area')

    def __init__(
        self,
        scale_factor: float | tuple[float, float] | None = None,
        size: int | tuple[int, int] | None = None,
        mode: str = 'bilinear',
        align_corners: bool | None = None,
    ) -> None:
        super().__init__()
        if (scale_factor is None) == (size is None):
            raise ValueError(f'give one of scale_factor and size, got scale_factor={scale_factor} and size={size}')
        if mode not in self.MODES:
            raise ValueError(f'mode={mode!r} is unknown: use one of {", ".join(self.MODES)}')
        if align_corners is not None and mode not in ('bilinear', 'bicubic'):
            raise ValueError(f"align_corners={align_corners} has no meaning for mode='{mode}': leave it out")
        self.scale_factor, self.size, self.mode, self.align_corners = scale_factor, size, mode, align_corners

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H', W')."""
        options: dict[str, Any] = {} if self.align_corners is None else {'align_corners': self.align_corners}
        return F.interpolate(x, size=self.size, scale_factor=self.scale_factor, mode=self.mode, **options)

    def extra_repr(self) -> str:
        size = f'size={self.size}' if self.size is not None else f'scale_factor={self.scale_factor}'
        corners = '' if self.align_corners is None else f', align_corners={self.align_corners}'
        return f"{size}, mode='{self.mode}'{corners}"


class ennGroupPool(nn.Module):
    """Maximum or mean over the orientations of each field, which leaves maps that only turn with the image.

    Weiler & Cesa, General E(2)-Equivariant Steerable CNNs, NeurIPS 2019 (group pooling).

    Args:
        num_features: Tensor channels of the input, a multiple of the group's order.
        mode: 'max' or 'mean'.
        group: Fiber group such as 'C8'.

    Shape:
        - Input: (B, num_features, H, W), orientation fastest. Output: (B, num_features / ``|G|``, H, W).

    Raises:
        ValueError: If the group's order does not divide `num_features`, or for another mode.
    """

    MODES = ('max', 'mean')

    def __init__(self, num_features: int, mode: str = 'max', *, group: str = DEFAULT_GROUP) -> None:
        super().__init__()
        if mode not in self.MODES:
            raise ValueError(f'mode={mode!r} is unknown: use one of {", ".join(self.MODES)}')
        self.num_features, self.mode, self.group = num_features, mode, group
        self.fields = count_fields(num_features, group, 'num_features')

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, num_features, H, W) to (B, fields, H, W)."""
        b, c, h, w = x.shape
        orientations = x.reshape(b, self.fields, c // self.fields, h, w)
        # torch's functions, not methods: `mean` of a Gaussian is its tensor
        return torch.amax(orientations, 2) if self.mode == 'max' else torch.mean(orientations, 2)

    def extra_repr(self) -> str:
        return f"{self.num_features} -> {self.fields}, mode='{self.mode}', group={self.group}"
