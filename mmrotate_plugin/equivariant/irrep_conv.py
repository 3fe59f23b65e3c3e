"""Convolve regular fields to irreducible ones: scores, vectors and directors, as a detector's head says them."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._kept_tensors import KeptTensors
from ._kernel import named_padding, square
from .basis import REDET_CUTOFF, FrequenciesCutoff, SteerableBasis, band_limits
from .conv import PaddingMode, _without_autocast
from .fields import DEFAULT_GROUP, count_fields
from .irrep_basis import check_frequency, irrep_basis


class ennIrrepConv(KeptTensors):
    r"""Steerable convolution from regular fields to irreducible fields, in the axes of the image.

    An irreducible field of frequency 0 is one channel that does not change when the image turns: a score, a size. One
    of frequency k > 0 is two channels :math:`l (\cos k a, \sin k a)` that turn k times as fast as the image. The angle
    a is that of mmrotate's boxes, clockwise as seen, since y points down. So frequency 1 is a vector (dx, dy) in
    pixels, and frequency 2 the director :math:`(\cos 2a, \sin 2a)` of a box, whose angle counts up to half a turn. If
    the image turns counter-clockwise by :math:`\alpha`, then a becomes :math:`a - \alpha`; if it is reflected
    left-right (D_N), a becomes :math:`\pi - a` (`mmrotate_plugin.testing.act_on_irreps`).

    Up to these axes it is the same map as e2cnn's ``R2Conv`` into ``gspace.irrep(k)``, ``gspace.irrep(1, k)`` for D_N
    (Weiler & Cesa, NeurIPS 2019, arXiv:1911.08251).

    Args:
        in_channels: Tensor channels of the input, a multiple of the group's order.
        frequencies: Frequency of each output field, such as (0, 0, 1, 2).
        kernel_size: Odd size of the square kernel in pixels.
        stride: Step of the kernel. A stride of 2 commutes with quarter turns only where sizes are odd.
        padding: Pixels of zeros added on every side; 'valid' for none, or 'same' to keep the size (with stride 1).
        bias: Whether to learn a bias for each field of frequency 0. All other fields have none: it would not turn.
        device, dtype: As in `torch.nn.Conv2d`.
        group: Fiber group such as 'C8' or 'D8'; N of at least 2k + 1 for frequency k.
        frequencies_cutoff, maximum_offset: Band limit of the kernels, as in `ennConv`.
        init_std: Standard deviation of all coefficients at the start; None for the generalised He initialisation.

    Attributes:
        weight: (in_fields, sum of K over the output fields) coefficients; those of one field are side by side.
        bias: (number of fields of frequency 0,) or None.
        band_limits: The largest frequency on each ring, from the centre outwards.
        out_channels: 1 for each frequency 0, 2 for each other.

    Shape:
        - Input: (B, in_channels, H, W), orientation fastest.
        - Output: (B, out_channels, H', W'), the fields in the order of `frequencies`.

    Raises:
        ValueError: If the group's order does not divide `in_channels`, the group does not have a frequency, the kernel
            is even, or stride or padding differ between the axes. The message names the argument and its value.

    Example:
        >>> import torch
        >>> from mmrotate_plugin.equivariant import ennIrrepConv
        >>> layer = ennIrrepConv(16, (0, 1, 2), 3, padding=1, group='C8')  # a score, an offset and the angle of a box
        >>> x = torch.randn(1, 16, 9, 9)
        >>> x_turned = x.rot90(1, (2, 3)).view(1, 2, 8, 9, 9).roll(2, 2).flatten(1, 2)
        >>> score, dx, dy, cos, sin = layer(x).rot90(1, (2, 3))[0]
        >>> expected = torch.stack([score, dy, -dx, -cos, -sin])  # a quarter turn counter-clockwise, y down
        >>> bool(torch.allclose(layer(x_turned)[0], expected, atol=1e-5))
        True
    """

    dilation, groups = (1, 1), 1  # as a Conv2d has them
    padding_mode: PaddingMode = 'zeros'
    transposed = False
    bias: nn.Parameter | None

    def __init__(
        self,
        in_channels: int,
        frequencies: Sequence[int],
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        bias: bool = True,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        *,
        group: str = DEFAULT_GROUP,
        frequencies_cutoff: FrequenciesCutoff = REDET_CUTOFF,
        maximum_offset: int | None = None,
        init_std: float | None = None,
    ) -> None:
        super().__init__()
        self.group, self.in_channels = group, in_channels
        self.in_fields = count_fields(in_channels, group, 'in_channels')
        if isinstance(frequencies, int) or not len(frequencies):
            raise ValueError(
                f'frequencies={frequencies!r} must list the frequency of each output field, as in (0, 1, 2)'
            )
        for frequency in frequencies:
            check_frequency(frequency, group)
        self.frequencies = tuple(frequencies)
        self.kernel_size = square('kernel_size', kernel_size, 1)
        self.stride = square('stride', stride, 1)
        if isinstance(padding, str):
            padding = named_padding(padding, self.kernel_size, self.stride, (1, 1))
        self.padding = square('padding', padding, 0)
        self.band_limits = band_limits(frequencies_cutoff, self.kernel_size[0])
        self.maximum_offset = maximum_offset
        if init_std is not None and not 0 <= init_std < float('inf'):
            raise ValueError(f'init_std={init_std!r} must be None, or finite and non-negative')
        self.init_std = init_std
        self.bases = self._find_bases()
        self.out_channels = sum(1 if k == 0 else 2 for k in self.frequencies)
        where: dict[str, Any] = {'device': device, 'dtype': dtype}
        coefficients = sum(len(self.bases[k]) for k in self.frequencies)
        self.weight = nn.Parameter(torch.empty(self.in_fields, coefficients, **where))
        invariant = self.frequencies.count(0)
        self.bias = nn.Parameter(torch.empty(invariant, **where)) if bias and invariant else None
        self.reset_parameters()
        self._share_constants()

    def _find_bases(self) -> dict[int, SteerableBasis]:
        """Find the basis of each frequency, shared with all layers of this kind."""
        arguments = self.kernel_size[0], self.band_limits, self.maximum_offset
        return {k: irrep_basis(self.group, k, *arguments) for k in dict.fromkeys(self.frequencies)}

    def _share_constants(self) -> None:
        """Make the constants in the dtype and on the device of the coefficients before a compiler needs them."""
        for basis in self.bases.values():
            basis.samples_like(self.weight)

    def _apply(self, *args: Any, **options: Any) -> 'ennIrrepConv':
        super()._apply(*args, **options)
        self._share_constants()
        return self

    def reset_parameters(self) -> None:
        """Initialise the coefficients (`init_std`, or generalised He initialisation) and set the bias to zero."""
        std = torch.cat([self.bases[k].he_std for k in self.frequencies]).to(self.weight) / self.in_fields**0.5
        with torch.no_grad():
            self.weight.normal_().mul_(std if self.init_std is None else self.init_std)
            if self.bias is not None:
                self.bias.zero_()

    init_weights = reset_parameters

    def expand(self) -> Tensor:
        """Expand the coefficients to the filter, differentiably: (out_channels, in_channels, k, k)."""
        weight = self.weight
        filters = []
        counts = [len(self.bases[k]) for k in self.frequencies]
        with _without_autocast(weight.device.type):
            for k, coefficients in zip(self.frequencies, weight.split(counts, 1), strict=True):
                samples = self.bases[k].samples_like(weight)  # (K, n_out, n_in, k, k)
                blocks = (coefficients @ samples.flatten(1)).view(self.in_fields, *samples.shape[1:])
                filters.append(blocks.transpose(0, 1).flatten(1, 2))  # (n_out, in_channels, k, k)
        return torch.cat(filters)

    def filter(self) -> Tensor:
        """Return the filter to convolve with: expanded anew for gradients, kept between calls otherwise."""
        return self._keep('filter', self.expand)

    def expand_bias(self) -> Tensor | None:
        """Expand the bias to output channels, (out_channels,), zero for frequencies above 0; None without one."""
        if self.bias is None:
            return None
        numbers = iter(self.bias.unbind())
        nothing = self.bias.new_zeros(2)
        return torch.cat([nothing if k else next(numbers).view(1) for k in self.frequencies])

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H', W'), with the sizes of `torch.nn.Conv2d`."""
        return F.conv2d(x, self.filter(), self.expand_bias(), self.stride, self.padding)

    def extra_repr(self) -> str:
        text = f'{self.in_channels}, frequencies={self.frequencies}, group={self.group}'
        text += f', kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}'
        text += f', frequencies_cutoff={self.band_limits}, maximum_offset={self.maximum_offset}'
        return text + (', bias=False' if self.bias is None else '')

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), 'bases': None}  # found again, not copied

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.bases = self._find_bases()
        self._share_constants()
