"""How noisy an image is, told from the image itself."""

import math

import torch
from torch import Tensor

MAD = 0.6744897501960817  # median of |z| for a standard normal z
GAIN = 6.0  # root of the sum of squares of the mask [1, -2, 1] x [1, -2, 1]


def estimate_noise(x: Tensor, *, window: int = 32) -> Tensor:
    r"""Variance of white Gaussian noise at each place of an image, of which no clean copy is there.

    The mask of second differences along both axes takes away what is linear along an axis, and turns noise of
    standard deviation :math:`\sigma` into :math:`6 \sigma`; the median of its size over a window is hardly moved by the
    few pixels at edges:

    .. math::
        r = \begin{bmatrix} 1 & -2 & 1 \\ -2 & 4 & -2 \\ 1 & -2 & 1 \end{bmatrix} * x, \qquad
        \hat\sigma = \frac{\mathrm{median} |r|}{6 \cdot 0.6745}

    Windows overlap by half; between their centres the variance is interpolated bilinearly. The mask is from Immerkær,
    Fast Noise Variance Estimation, Computer Vision and Image Understanding 64, 1996; the median is from Donoho &
    Johnstone, Biometrika 81, 1994.

    A window of n pixels tells :math:`\sigma` with a relative standard error of at most :math:`2.27 / \sqrt n`, 7% for
    32 x 32. What else moves it:

    - Texture finer than a few pixels counts as noise. DOTA's images without added noise give 3 to 5 grey levels, of
      which a part is the camera's; with noise of 10 added, they give 10% to 16% too much.
    - Where pixels do not vary, as in a padded border, in saturated or in painted areas, the estimate is 0; windows
      that are padded in part tell too little. Cut the padding off before.
    - Noise must be white. Resizing, demosaicing and JPEG take away what the mask sees: estimate before resizing.
    - Whole numbers hide noise below about one grey level; clipping to 0 and 255 makes it smaller.

    Args:
        x: Images (B, C, H, W) of any unit, grey levels or normalised, each side 3 pixels or more.
        window: Side of the windows in pixels, 3 or more; smaller images are one window.

    Returns:
        The variance in squared units of `x`, of its shape, dtype and device; without a gradient. On small images it is
        a rough guess: 3 x 3 pixels have a single response.

    Raises:
        TypeError: If `x` does not hold floating-point numbers.
        ValueError: If `x` is no batch of images, or too small, or `window` too small.
    """
    if not x.is_floating_point():
        raise TypeError(f'x holds {x.dtype}: convert it with x.float()')
    if x.dim() != 4 or min(x.shape[-2:]) < 3:
        raise ValueError(f'x must be images (B, C, H, W) of 3 x 3 pixels or more, but came as {tuple(x.shape)}')
    if window < 3:
        raise ValueError(f'window={window} must be 3 pixels or more')
    size = _second_difference(_second_difference(x.detach().to(torch.promote_types(x.dtype, torch.float32)), 2), 3)
    size = size.abs_()
    down, up_rows = _windows(size.shape[2], window, size)
    across, up_columns = _windows(size.shape[3], window, size)
    medians = [
        size[:, :, rows][..., across].permute(0, 1, 3, 2, 4).flatten(3).median(-1).values  # (B, C, n_w)
        for rows in down
    ]
    variance = (torch.stack(medians, 2) / (GAIN * MAD)).square()  # (B, C, n_h, n_w)
    return (up_rows @ variance @ up_columns.mT).to(x.dtype)


def _second_difference(x: Tensor, dim: int) -> Tensor:
    """Two pixels shorter, and exactly 0 where three neighbours are equal, which a convolution is not."""
    n = x.shape[dim] - 2
    return x.narrow(dim, 0, n) + x.narrow(dim, 2, n) - 2 * x.narrow(dim, 1, n)


def _windows(length: int, window: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Windows along one axis of `length` responses, and how to interpolate between them.

    Returns:
        Indices (n, window), and weights (length + 2, n) of the linear interpolation from the centres to the pixels.
    """
    window = min(window, length)
    number = 1 + math.ceil((length - window) / max(1, window // 2))
    starts = torch.linspace(0, length - window, number, dtype=torch.float64).round()
    indices = starts[:, None] + torch.arange(window)
    pixel = torch.arange(length + 2, dtype=torch.float64) - 1  # responses lack a pixel on either side
    centres = starts + (window - 1) / 2
    right = torch.searchsorted(centres, pixel).clamp(1, max(1, number - 1))
    weights = torch.zeros(length + 2, number, dtype=torch.float64)
    if number == 1:
        weights += 1
    else:
        low, high = centres[right - 1], centres[right]
        share = ((pixel - low) / (high - low)).clamp(0, 1)[:, None]
        weights.scatter_(1, right[:, None] - 1, 1 - share).scatter_(1, right[:, None], share)
    return indices.long().to(like.device), weights.to(like)
