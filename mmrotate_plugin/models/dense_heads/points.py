"""The lattice of points that a dense head predicts at."""

from collections.abc import Sequence

import torch
from torch import Tensor


class LatticePoints:
    """Points at the centres of the pixels that strided layers keep, so the lattice turns onto itself.

    A convolution of stride s keeps the pixels s * i. Their centres are at s * i + 0.5 in mmdet's coordinates, in which
    pixel 0 reaches from 0 to 1. An image whose sides are multiples of all strides plus one has its centre on the
    lattice's.

    Args:
        strides: Step of each level in pixels.
    """

    def __init__(self, strides: Sequence[int]) -> None:
        self.strides = [(stride, stride) for stride in strides]  # (x, y), as mmdet's generators have them
        self.num_levels = len(self.strides)
        self.num_base_priors = [1] * self.num_levels

    def grid_priors(
        self,
        featmap_sizes: Sequence[Sequence[int]],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = 'cpu',
    ) -> list[Tensor]:
        """List the points of all levels, row by row: (H * W, 3) each, x, y and stride in pixels.

        Args:
            featmap_sizes: (H, W) of each level.
            dtype, device: Of the points.
        """
        levels = []
        for (height, width), (stride, _) in zip(featmap_sizes, self.strides, strict=True):
            x = torch.arange(width, device=device, dtype=dtype) * stride + 0.5
            y = torch.arange(height, device=device, dtype=dtype) * stride + 0.5
            x, y = x.repeat(height), y[:, None].expand(height, width).reshape(-1)
            levels.append(torch.stack([x, y, torch.full_like(x, stride)], 1))
        return levels
