"""Layers that treat channels alike, so that they commute with every permutation of the orientations.

They need no group. On regular fields they are torch's own; the names exist for configs.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


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
        scale_factor: Output over input size. Give this or `size`.
        size: Output size, pixels.
        mode: 'bilinear', 'bicubic', 'nearest-exact', 'nearest' or 'area'. Plain 'nearest' rounds towards the upper
            left corner, so it commutes with quarter turns for whole scale factors only.
        align_corners: Whether corner pixels keep their place; for 'bilinear' and 'bicubic' only.

    Shape:
        - Input: (B, C, H, W). Output: (B, C, H', W').

    Raises:
        ValueError: If not exactly one of `scale_factor` and `size` is given, or `align_corners` has no meaning.
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
        """(B, C, H, W) to (B, C, H', W')."""
        options: dict[str, Any] = {} if self.align_corners is None else {'align_corners': self.align_corners}
        return F.interpolate(x, size=self.size, scale_factor=self.scale_factor, mode=self.mode, **options)

    def extra_repr(self) -> str:
        size = f'size={self.size}' if self.size is not None else f'scale_factor={self.scale_factor}'
        corners = '' if self.align_corners is None else f', align_corners={self.align_corners}'
        return f"{size}, mode='{self.mode}'{corners}"
