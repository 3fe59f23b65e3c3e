"""Estimate the noise of an image from the image itself."""

import math
from contextlib import suppress

import torch
from torch import Tensor

from ._compiler import may_read

MAD = 0.6744897501960817  # median of |z| for a standard normal z
VALUES = 2**18  # of windows that are looked at together
GAIN = 6.0  # root of the sum of squares of the mask [1, -2, 1] x [1, -2, 1]


def estimate_noise(x: Tensor, *, window: int = 32) -> Tensor:
    r"""Estimate the variance of white Gaussian noise at each pixel of an image, without a clean copy.

    The mask of second differences along both axes removes whatever is linear along an axis, and turns noise of
    standard deviation :math:`\sigma` into :math:`6 \sigma`. The few pixels at edges hardly move the median of its
    absolute value over a window:

    .. math::
        r = \begin{bmatrix} 1 & -2 & 1 \\ -2 & 4 & -2 \\ 1 & -2 & 1 \end{bmatrix} * x, \qquad
        \hat\sigma = \frac{\mathrm{median} |r|}{6 \cdot 0.6745}

    Windows overlap by half; between their centres the variance is interpolated bilinearly. The mask is from Immerkær,
    Fast Noise Variance Estimation, Computer Vision and Image Understanding 64, 1996; the median is from Donoho &
    Johnstone, Biometrika 81, 1994.

    A window of n pixels gives :math:`\sigma` with a relative standard error of at most :math:`2.27 / \sqrt n`, 7% for
    32 x 32. Known biases:

    - Texture finer than a few pixels counts as noise. DOTA's images without added noise give 3 to 5 grey levels,
      partly from the camera; with noise of 10 added, the estimate is 10% to 16% too high.
    - Where pixels do not vary, as in padded borders, saturated or painted areas, the estimate is 0; in partly padded
      windows it is too low. Cut the padding off first.
    - Noise must be white. Resizing, demosaicing and JPEG remove what the mask responds to: estimate before resizing.
    - Rounding to whole grey levels hides noise below about one level; clipping to 0 and 255 reduces it.

    Args:
        x: Images (B, C, H, W) in any unit, grey levels or normalised; each side at least 3 pixels.
        window: Side of the windows in pixels, at least 3; a smaller image is one window.

    Returns:
        The variance in squared units of `x`, with its shape, dtype and device and without a gradient. On small images
        it is a rough guess: 3 x 3 pixels have a single response.

    Raises:
        TypeError: If `x` does not hold floating-point numbers.
        ValueError: If `x` is not a batch of images, or too small, or `window` is too small.

    Example:
        >>> import torch
        >>> from mmrotate_plugin.adf import estimate_noise
        >>> generator = torch.Generator().manual_seed(0)
        >>> image = torch.linspace(0, 255, 64).expand(1, 1, 64, 64)
        >>> noisy = image + 8 * torch.randn(image.shape, generator=generator)
        >>> round(estimate_noise(noisy).mean().sqrt().item())
        8
    """
    if not x.is_floating_point():
        raise TypeError(f'x holds {x.dtype}: convert it with x.float()')
    if x.dim() != 4 or min(x.shape[-2:]) < 3:
        raise ValueError(f'x must be images (B, C, H, W) of 3 x 3 pixels or more, but has shape {tuple(x.shape)}')
    if window < 3:
        raise ValueError(f'window={window} must be 3 pixels or more')
    size = _second_difference(_second_difference(x.detach().to(torch.promote_types(x.dtype, torch.float32)), 2), 3)
    size = size.abs_()
    down, up_rows = _windows(size.shape[2], window, size)
    across, up_columns = _windows(size.shape[3], window, size)
    quick = may_read(size) and bool(size.sum().isfinite())
    medians = []
    for rows in down.split(max(1, VALUES // max(1, size[:, :, 0, 0].numel() * down.shape[1] * across.numel()))):
        strips = size.index_select(2, rows.flatten()).unflatten(2, rows.shape)  # (B, C, n, window, W)
        strips = strips.transpose(3, 4).contiguous().index_select(3, across.flatten())
        medians.append(_medians(strips.unflatten(3, across.shape).flatten(4), quick=quick))  # (B, C, n, n_w)
    variance = (torch.cat(medians, 2) / (GAIN * MAD)).square()  # (B, C, n_h, n_w)
    return (up_rows @ variance @ up_columns.mT).to(x.dtype)


def _medians(values: Tensor, *, quick: bool) -> Tensor:
    """Take the lower median along the last dimension.

    `quick` lets numpy sort the values into lower and upper ones, in place: a fifth of the time of torch's median, which
    keeps indices, too, and the same number unless there are NaNs.
    """
    middle = (values.shape[-1] - 1) // 2
    if quick:
        with suppress(RuntimeError):  # torch without numpy
            values.numpy().partition(middle, axis=-1)
            return values[..., middle]
    return values.median(-1).values


def _second_difference(x: Tensor, dim: int) -> Tensor:
    """Take second differences: two pixels shorter, and exactly 0 for equal neighbours, unlike a convolution."""
    n = x.shape[dim] - 2
    return (x.narrow(dim, 0, n) + x.narrow(dim, 2, n)).sub_(x.narrow(dim, 1, n), alpha=2)


def _windows(length: int, window: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Place windows along one axis of `length` responses, and interpolate between them.

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
