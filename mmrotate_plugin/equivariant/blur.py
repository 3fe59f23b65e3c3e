r"""Change the stride without aliasing: blur by a Gaussian before pixels are left out, or after they are added.

A stride repeats the spectrum of a map at half of its frequencies; what is finer folds onto what is coarser, and turns
the other way. A blur removes most of it before (Zhang, Making Convolutional Networks Shift-Invariant Again, ICML 2019,
arXiv:1904.11486). Blurs treat all channels alike, so the layers commute with every permutation of orientations and need
no group. They are plain torch without coefficients, and stay as they are in an export.
"""

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..kernels.following import is_compiling, is_plain, is_tracing
from ._constants import Constant, is_batched, untraced
from ._fixed import FixedLayer
from ._kernel import square


class _Blur(FixedLayer):
    """Base of the layers here: a fixed Gaussian filter."""

    reach: int  # standard deviations that the filter covers on each side

    def __init__(self, sigma: float, stride: int, kernel_size: int | None, stride_name: str, least_stride: int) -> None:
        super().__init__()
        if not isinstance(sigma, (int, float)) or isinstance(sigma, bool) or not 0 < sigma < float('inf'):
            raise ValueError(f'sigma={sigma!r} must be a finite number of pixels above 0')
        self.sigma = float(sigma)
        self.stride = square(stride_name, stride, least_stride)[0]
        half = round(self.reach * self.sigma)
        if kernel_size is None and half < 1:
            raise ValueError(f'sigma={sigma} blurs nothing, its kernel has one pixel: use {0.6 / self.reach:g} or more')
        self.blur_size = 2 * half + 1 if kernel_size is None else kernel_size
        if not isinstance(self.blur_size, int) or self.blur_size < 3 or self.blur_size % 2 == 0:
            raise ValueError(
                f'kernel_size={kernel_size!r} must be an odd number of pixels >= 3, or None for one by sigma'
            )
        self.share_constant()

    def find_constant(self) -> Constant:
        return gaussian_filter(self.sigma, self.blur_size)

    def _filter(self, x: Tensor) -> tuple[Tensor, int]:
        """Return the filter for each channel of `x`, (C, 1, k, k), and their number C."""
        with untraced():
            channels = x.shape[1]  # a plain number: a filter of unknown size cannot be exported
        return self.constant.like(x).expand(channels, 1, self.blur_size, self.blur_size), channels


class ennBlurPool(_Blur):
    r"""Gaussian blur of every channel, followed by a stride.

    With padding and `count_include_pad` it is the same map as e2cnn's ``PointwiseAvgPoolAntialiased(sigma, stride)``.
    Zeros around a map would darken its border, which a network can learn to see. So by default each output is divided
    by the part of the filter that lies within the map: constants stay constant.

    With the default padding, 2m + 1 pixels become m + 1 at stride 2, and the centre stays: quarter turns are exact.

    Args:
        sigma: Standard deviation of the Gaussian in pixels of the input.
        stride: Step in pixels; 1 for a blur alone.
        kernel_size: Odd size of the filter; None for three standard deviations to each side, as in e2cnn.
        padding: Pixels added on every side, at most half of the filter; None for that half.
        count_include_pad: Whether the padding counts as zeros, as in `torch.nn.AvgPool2d` (where it is the default).

    Shape:
        - Input: (B, C, H, W). Output: (B, C, H', W'), with the sizes of `torch.nn.Conv2d`.

    Raises:
        ValueError: If an argument is not as above.

    Example:
        >>> import torch
        >>> from mmrotate_plugin.equivariant import ennBlurPool
        >>> out = ennBlurPool(sigma=1.0, stride=2)(torch.ones(1, 8, 9, 9))
        >>> tuple(out.shape), bool(torch.allclose(out, torch.ones_like(out)))
        ((1, 8, 5, 5), True)
    """

    reach = 3

    def __init__(
        self,
        sigma: float = 1.0,
        stride: int = 2,
        kernel_size: int | None = None,
        padding: int | None = None,
        count_include_pad: bool = False,
    ) -> None:
        super().__init__(sigma, stride, kernel_size, 'stride', 1)
        half = self.blur_size // 2
        self.padding = half if padding is None else square('padding', padding, 0)[0]
        if self.padding > half:
            raise ValueError(
                f'padding={padding} must be at most {half}, half of the {self.blur_size} pixels of the filter'
            )
        self.count_include_pad = bool(count_include_pad)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H', W')."""
        return self._blur(x)

    def _blur(self, x: Tensor) -> Tensor:
        filter, channels = self._filter(x)
        out = F.conv2d(x, filter, None, self.stride, self.padding, 1, channels)
        if self.padding == 0 or self.count_include_pad:
            return out
        if _has_known_size(x):
            return _scaled(
                out, x, *(edge_gains(self.sigma, self.blur_size, n, self.stride, self.padding) for n in x.shape[-2:])
            )
        inside = torch.ones(1, 1, *x.shape[-2:], dtype=x.dtype, device=x.device)
        return out * F.conv2d(inside, filter[:1], None, self.stride, self.padding).reciprocal()

    def extra_repr(self) -> str:
        text = f'sigma={self.sigma:g}, stride={self.stride}, kernel_size={self.blur_size}, padding={self.padding}'
        return text + (', count_include_pad=True' if self.count_include_pad else '')


class ennMaxBlurPool(ennBlurPool):
    """Maximum over windows at every pixel, then a Gaussian blur with the stride.

    Without padding, and with `count_include_pad`, it is the same map as e2cnn's ``PointwiseMaxPoolAntialiased``. With
    padding, e2cnn pads the maxima a second time, which adds a pixel at the border; here 2m + 1 pixels become m + 1 for
    ``kernel_size=3, stride=2, padding=1``, as in `torch.nn.MaxPool2d`.

    Args:
        kernel_size: Odd size of the windows in pixels.
        stride: Step in pixels; None for `kernel_size`.
        padding: Pixels of minus infinity added on every side before the maximum, at most half of a window.
        sigma: Standard deviation of the Gaussian in pixels; its filter covers four to each side, as in e2cnn.
        count_include_pad: Whether the blur counts what lies outside of the maxima as zeros; see `ennBlurPool`.

    Shape:
        - Input: (B, C, H, W). Output: (B, C, H', W'), with the sizes of `torch.nn.MaxPool2d`.

    Raises:
        ValueError: If an argument is not as above.
    """

    reach = 4

    def __init__(
        self,
        kernel_size: int = 3,
        stride: int | None = None,
        padding: int = 0,
        sigma: float = 0.6,
        count_include_pad: bool = False,
    ) -> None:
        self_size = square('kernel_size', kernel_size, 1)[0]
        if self_size % 2 == 0:
            raise ValueError(f'kernel_size={kernel_size} has no centre pixel: windows at every pixel need an odd size')
        super().__init__(sigma, self_size if stride is None else stride, count_include_pad=count_include_pad)
        self.kernel_size, self.window_padding = self_size, square('padding', padding, 0)[0]
        if self.window_padding > self_size // 2:
            raise ValueError(f'padding={padding} must be at most {self_size // 2}, half of a window')

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H', W')."""
        ordinary = not (is_tracing() or is_compiling()) and is_plain(x) and x.dim() == 4 and x.device.type == 'cpu'
        if ordinary:  # CPUs pool it in half of the time, conversions included
            x = x.contiguous(memory_format=torch.channels_last)
        maxima = F.max_pool2d(x, self.kernel_size, 1, self.window_padding)
        out = self._blur(maxima)
        return out.contiguous() if ordinary else out

    def extra_repr(self) -> str:
        text = f'kernel_size={self.kernel_size}, stride={self.stride}, padding={self.window_padding}'
        return text + f', sigma={self.sigma:g}' + (', count_include_pad=True' if self.count_include_pad else '')


class ennBlurUpsample(_Blur):
    """Larger map without aliasing: zeros between the pixels, a Gaussian blur, and division by the blur of the pixels.

    The counterpart of `ennBlurPool` for pyramids: m + 1 pixels become 2m + 1 at a scale of 2, pixel i goes to pixel 2i,
    the centre stays, and constants stay constant up to the border.

    Args:
        sigma: Standard deviation of the Gaussian in pixels of the output.
        scale_factor: Pixels of the output per pixel of the input, an integer >= 2.
        kernel_size: Odd size of the filter, above `scale_factor`; None for three standard deviations to each side.

    Shape:
        - Input: (B, C, H, W). Output: (B, C, s (H - 1) + 1, s (W - 1) + 1) for the scale s, or the size asked for.

    Raises:
        ValueError: If an argument is not as above; in `forward`, for a size out of reach.
    """

    reach = 3

    def __init__(self, sigma: float = 1.0, scale_factor: int = 2, kernel_size: int | None = None) -> None:
        super().__init__(sigma, scale_factor, kernel_size, 'scale_factor', 2)
        self.scale_factor = self.stride
        if self.blur_size < 2 * self.scale_factor - 1:
            raise ValueError(
                f'a filter of {self.blur_size} pixels leaves gaps at scale_factor={scale_factor}: use a larger sigma, '
                f'or kernel_size={2 * self.scale_factor - 1} or more'
            )

    def forward(self, x: Tensor, output_size: tuple[int, int] | None = None) -> Tensor:
        """Map (B, C, H, W) to (B, C, s (H - 1) + 1, s (W - 1) + 1).

        Args:
            x: (B, C, H, W).
            output_size: Height and width of the output, up to s - 1 pixels more than that, which are added at the lower
                and right border: even sizes have no lattice that keeps the centre.
        """
        extra = (0, 0) if output_size is None else self._extra(x, output_size)
        filter, channels = self._filter(x)
        half = self.blur_size // 2
        out = F.conv_transpose2d(x, filter, None, self.stride, half, extra, channels)
        if _has_known_size(x):
            sizes = zip(x.shape[-2:], extra, strict=True)
            return _scaled(
                out, x, *(edge_gains_upwards(self.sigma, self.blur_size, n, self.stride, more) for n, more in sizes)
            )
        inside = torch.ones(1, 1, *x.shape[-2:], dtype=x.dtype, device=x.device)
        return out * F.conv_transpose2d(inside, filter[:1], None, self.stride, half, extra).reciprocal()

    def _extra(self, x: Tensor, output_size: tuple[int, int]) -> tuple[int, int]:
        with untraced():  # plain numbers, which an exported operator needs
            smallest = [self.stride * (n - 1) + 1 for n in x.shape[-2:]]
            extra = [int(n) - least for n, least in zip(output_size, smallest, strict=True)]
        if any(not 0 <= e < self.stride for e in extra):
            raise ValueError(
                f'output_size={tuple(map(int, output_size))} is out of reach of {tuple(x.shape[-2:])} pixels at '
                f'scale_factor={self.stride}: it can be {tuple(smallest)}, and up to {self.stride - 1} more each way'
            )
        return extra[0], extra[1]

    def extra_repr(self) -> str:
        return f'sigma={self.sigma:g}, scale_factor={self.scale_factor}, kernel_size={self.blur_size}'


def _has_known_size(x: Tensor) -> bool:
    """Tell whether height and width are plain numbers, which no tracer or compiler has to follow."""
    return not (is_tracing() or is_compiling()) and all(isinstance(n, int) for n in x.shape[-2:])


def _scaled(out: Tensor, x: Tensor, rows: Constant, columns: Constant) -> Tensor:
    """Multiply the blur of `x` by the gains of its rows and columns; an ordinary tensor in place."""
    gains = rows.like(x)[:, None] * columns.like(x)
    return out.mul_(gains) if is_plain(x) and not is_batched(x) else out * gains


@cache
def gaussian_filter(sigma: float, size: int) -> Constant:
    """Return a Gaussian of sum one, (size, size), equal to the bit under turns and reflections; one per process."""
    square_radius = np.add.outer(*[np.square(np.arange(size) - size // 2)] * 2)
    values = np.exp(-square_radius / (2 * sigma**2))
    return Constant(values / values.sum())


def _gaussian(sigma: float, size: int) -> np.ndarray:
    """Return one row of `gaussian_filter`, of sum one; the filter is its product with itself."""
    values = np.exp(-np.square(np.arange(size) - size // 2) / (2 * sigma**2))
    return values / values.sum()


@cache
def edge_gains(sigma: float, size: int, length: int, stride: int, padding: int) -> Constant:
    """Return one by the part of the filter within a map of `length` pixels, for each pixel of a strided blur."""
    ones = np.pad(np.ones(length), padding)
    return Constant(1 / np.convolve(ones, _gaussian(sigma, size), 'valid')[::stride])


@cache
def edge_gains_upwards(sigma: float, size: int, length: int, stride: int, extra: int) -> Constant:
    """Return one by the blur of the pixels, for each pixel of a map `stride` times as long, with `extra` at its end."""
    pixels = np.zeros(stride * (length - 1) + 1)
    pixels[::stride] = 1
    start = size // 2
    return Constant(1 / np.convolve(pixels, _gaussian(sigma, size))[start : start + len(pixels) + extra])
