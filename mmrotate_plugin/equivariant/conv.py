"""Steerable convolutions on plain tensors."""

import re
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels.following import is_compiling, is_tracing
from ._constants import autocasts_cpu
from ._e2cnn import GeometricTensor
from ._kept_tensors import KeptTensors
from ._kernel import named_padding, square
from .basis import REDET_CUTOFF, FrequenciesCutoff, SteerableBasis, band_limits, steerable_basis
from .dihedral import IrrepBlocks, dihedral_conv, gains, irrep_blocks
from .fields import DEFAULT_GROUP, count_fields
from .fourier import Spectrum, circulant_conv, every, spectrum

PaddingMode = Literal['zeros', 'reflect', 'replicate', 'circular']
PADDING_MODES = get_args(PaddingMode)
# keys that e2cnn's R2Conv saves, but that we derive: expanded filters, sampled bases and their indices
DERIVED_KEYS = re.compile(r'(filter|expanded_bias|bias_expansion|_?basisexpansion\..*)')


class _SteerableConv(KeptTensors):
    """Base of `ennConv` and `ennTrivialConv`, which differ in the input's field type."""

    trivial_input: bool
    bias: nn.Parameter | None
    fourier = True  # see `ennConv`
    transposed = False  # mmcv's ConvModule reads these two of any convolution
    output_padding = (0, 0)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = 'zeros',
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        *,
        group: str = DEFAULT_GROUP,
        frequencies_cutoff: FrequenciesCutoff = REDET_CUTOFF,
        maximum_offset: int | None = None,
    ) -> None:
        super().__init__()
        if padding_mode not in PADDING_MODES:
            raise ValueError(f'padding_mode={padding_mode!r} is unknown: use one of {", ".join(PADDING_MODES)}')
        self.group = group
        self.in_channels, self.out_channels = in_channels, out_channels
        self.in_fields = in_channels if self.trivial_input else count_fields(in_channels, group, 'in_channels')
        self.out_fields = count_fields(out_channels, group, 'out_channels')
        if groups < 1 or self.in_fields % groups or self.out_fields % groups:
            raise ValueError(
                f'groups={groups} does not divide the fields: {self.in_fields} in, {self.out_fields} out '
                f"({in_channels} and {out_channels} channels of group '{group}')"
            )
        self.kernel_size = square('kernel_size', kernel_size, 1)
        self.stride = square('stride', stride, 1)
        self.dilation = square('dilation', dilation, 1)
        if isinstance(padding, str):
            padding = named_padding(padding, self.kernel_size, self.stride, self.dilation)
        self.padding = square('padding', padding, 0)
        self.groups = groups
        self.padding_mode: PaddingMode = padding_mode

        self.band_limits = band_limits(frequencies_cutoff, self.kernel_size[0], self.dilation[0])
        self.maximum_offset = maximum_offset
        self.basis = self._find_basis()
        where: dict[str, Any] = {'device': device, 'dtype': dtype}
        self.weight = nn.Parameter(torch.empty(self.out_fields, self.in_fields // groups, len(self.basis), **where))
        self.bias = nn.Parameter(torch.empty(self.out_fields, **where)) if bias else None
        self.has_spectrum = (
            not self.trivial_input
            and (self.kernel_size, self.padding, self.groups) == ((1, 1), (0, 0), 1)
            and group[0] in 'CD'
        )
        self.reset_parameters()
        self._share_constants()

    def _find_basis(self) -> SteerableBasis:
        """Find the steerable basis, shared with all layers of this kind."""
        return self.basis_for(self.group)

    def basis_for(self, group: str) -> SteerableBasis:
        """Return the steerable basis that this layer would have with another group."""
        return steerable_basis(
            group,
            self.kernel_size[0],
            dilation=self.dilation[0],
            trivial_input=self.trivial_input,
            limits=self.band_limits,
            maximum_offset=self.maximum_offset,
        )

    def _share_constants(self) -> None:
        """Make the constants in the dtype and on the device of the coefficients before a compiler needs them."""
        self.basis.samples_like(self.weight)
        if self.bias is not None:
            self.basis.bias_like(self.bias)

    def _apply(self, *args: Any, **options: Any) -> '_SteerableConv':
        super()._apply(*args, **options)
        self._share_constants()
        return self

    def reset_parameters(self) -> None:
        """Initialise the coefficients (generalised He initialisation) and set the bias to zero."""
        std = self.basis.he_std.to(self.weight) / self.weight.shape[1] ** 0.5
        with torch.no_grad():
            self.weight.normal_().mul_(std)
            if self.bias is not None:
                self.bias.zero_()

    # without it, mmcv's ConvModule would initialise the coefficients as if they were pixels of a filter
    init_weights = reset_parameters

    def expand(self) -> Tensor:
        """Expand the coefficients in the basis to the convolution filter, differentiably.

        Returns:
            (out_channels, in_channels / groups, k, k), in the dtype of the coefficients also under autocast.
        """
        weight = self.weight
        basis = self.basis.samples_like(weight)  # (K, n_out, n_in, k, k)
        fields_out, fields_in, elements = weight.shape
        _, n_out, n_in, k, _ = basis.shape
        with _without_autocast(weight.device.type):
            blocks = weight.reshape(-1, elements) @ basis.reshape(elements, -1)
        blocks = blocks.view(fields_out, fields_in, n_out, n_in, k, k)
        return blocks.transpose(1, 2).reshape(fields_out * n_out, fields_in * n_in, k, k)

    def filter(self) -> Tensor:
        """Return the filter to convolve with: expanded anew for gradients, kept between calls otherwise."""
        return self._keep('filter', self.expand)

    def spectrum(self) -> Spectrum | IrrepBlocks:
        """Return the blocks of a 1x1 kernel over irreducible representations (for C_N: frequencies), as `filter`."""
        return self._keep('spectrum', self._transform)

    def _transform(self) -> Spectrum | IrrepBlocks:
        if self.group[0] == 'D':
            with _without_autocast(self.weight.device.type):
                return irrep_blocks(self.weight, self.basis, self.group)
        columns = self.basis.samples_like(self.weight)[:, :, 0, 0, 0]  # (K, N): first column of each element
        with _without_autocast(self.weight.device.type):
            return spectrum(self.weight @ columns)

    def expand_bias(self) -> Tensor | None:
        """Expand the bias to output channels, (out_channels,); None without one."""
        if self.bias is None:
            return None
        return torch.outer(self.bias, self.basis.bias_like(self.bias)).flatten()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H', W'), with the sizes of `torch.nn.Conv2d`."""
        if isinstance(x, GeometricTensor):
            raise TypeError(
                f'{type(self).__name__} takes a plain tensor, got an e2cnn GeometricTensor. Does it come from '
                "mmrotate's own ReResNet? Then write type='mmrotate_plugin.ReResNet', or pass x.tensor"
            )
        if self._goes_by_fourier(x):
            bias = None if self.bias is None else self.bias * self.basis.bias_like(self.bias)[0]
            x, blocks = every(x, self.stride), self.spectrum()
            if isinstance(blocks, IrrepBlocks):
                return dihedral_conv(x, *blocks, bias, group=self.group)
            return circulant_conv(x, *blocks, bias)
        padding = self.padding
        if self.padding_mode != 'zeros':
            vertical, horizontal = padding
            x = F.pad(x, (horizontal, horizontal, vertical, vertical), mode=self.padding_mode)
            padding = (0, 0)
        return F.conv2d(x, self.filter(), self.expand_bias(), self.stride, padding, self.dilation, self.groups)

    def _goes_by_fourier(self, x: Tensor) -> bool:
        """Tell whether the Fourier path applies and gains time: wide 1x1 layers in full precision on a CPU."""
        return (
            self.has_spectrum
            and self.fourier
            and type(x) is Tensor
            and x.device.type == 'cpu'
            and x.dtype == self.weight.dtype
            and x.dtype in (torch.float32, torch.float64)
            and not autocasts_cpu()
            and not (is_compiling() or is_tracing())  # these cannot follow the hand-written derivatives
            and gains(self.group, self.in_fields, self.out_fields, training=self._learns())
        )

    def extra_repr(self) -> str:
        fields = f'{self.in_fields} {"trivial" if self.trivial_input else "regular"} -> {self.out_fields} regular'
        text = f'{self.in_channels}, {self.out_channels}, group={self.group}, fields=({fields})'
        text += f', kernel_size={self.kernel_size}, stride={self.stride}'
        for name, usual in (('padding', (0, 0)), ('dilation', (1, 1)), ('groups', 1), ('padding_mode', 'zeros')):
            if getattr(self, name) != usual:
                text += f', {name}={getattr(self, name)}'
        if self.band_limits != band_limits(REDET_CUTOFF, self.kernel_size[0], self.dilation[0]):
            text += f', frequencies_cutoff={self.band_limits}'
        text += '' if self.maximum_offset is None else f', maximum_offset={self.maximum_offset}'
        return text + (', bias=False' if self.bias is None else '')

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), 'basis': None}  # found again, not copied

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.basis = self._find_basis()
        self._share_constants()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Accept e2cnn's keys too: ``weights`` (flat), and derived tensors, which are ignored."""
        for key in [k for k in state_dict if k.startswith(prefix) and DERIVED_KEYS.fullmatch(k[len(prefix) :])]:
            del state_dict[key]
        flat = state_dict.pop(prefix + 'weights', None)
        if flat is not None:
            # a flat vector of another length belongs to another layer; torch's message then names both shapes
            state_dict[prefix + 'weight'] = flat.view_as(self.weight) if flat.numel() == self.weight.numel() else flat
        super()._load_from_state_dict(state_dict, prefix, *args)


class ennConv(_SteerableConv):
    """Steerable convolution from regular to regular fields.

    The most general linear map that commutes with translations and the group: the filter is a learned combination
    of the kernels of a steerable basis (Weiler & Cesa, NeurIPS 2019, arXiv:1911.08251). With equal coefficients,
    `frequencies_cutoff` and `maximum_offset`, it is the same map as e2cnn's ``R2Conv``.

    On a CPU, a Fourier transform over the orientations computes wide 1x1 layers in half the time (`fourier.pays`; for
    D_N, `dihedral` says how); the result differs by round-off. Set the attribute `fourier` to False, of a layer or of
    the class, for an ordinary convolution everywhere.

    Args:
        in_channels: Tensor channels of the input, a multiple of the group's order.
        out_channels: Tensor channels of the output, likewise.
        kernel_size: Odd size of the square kernel in pixels.
        stride: Step of the kernel. A stride of 2 commutes with quarter turns only where sizes are odd.
        padding: Pixels added on every side; 'valid' for none, or 'same' to keep the size (with stride 1).
        dilation: Spacing of the kernel's pixels.
        groups: Number of blocks of fields that are convolved separately; divides the fields of input and output.
        bias: Whether to learn one number per output field (the group leaves only the constant vector unchanged).
        padding_mode: 'zeros', 'reflect', 'replicate' or 'circular'.
        device, dtype: As in `torch.nn.Conv2d`.
        group: Fiber group such as 'C8' or 'D4'.
        frequencies_cutoff: Largest angular frequency of the kernels on each ring, see `band_limits`: a number of times
            the ring's radius, one integer per ring, a function of the radius, or None for e2cnn's own rule. ReDet's 3.0
            is the default, which its weights need. Between quarter turns, lower limits turn better: a 3 x 3 kernel
            holds frequency 1 well and 2 fairly.
        maximum_offset: 0 leaves out kernels that turn right at the group's own angles only; None keeps them.

    Attributes:
        band_limits: The largest frequency on each ring, from the centre outwards.
        weight: (out_fields, in_fields / groups, K) coefficients of the K kernels of the basis.
        bias: (out_fields,) or None.
        basis: The steerable basis, shared with all layers of this kind.
        has_spectrum: Whether the layer is a 1x1 convolution without padding and groups, whose blocks are sparse over
            the irreducible representations of the group.
        fourier: Whether such a layer may take the Fourier path.

    Shape:
        - Input: (B, in_channels, H, W), orientation fastest.
        - Output: (B, out_channels, H', W'), orientation fastest.

    Raises:
        ValueError: If the group's order does not divide a width, `groups` does not divide the fields, the kernel is
            even, or stride, padding or dilation differ between the axes. The message names the argument and its value.
        TypeError: In `forward`, for an e2cnn GeometricTensor.
    """

    trivial_input = False


class ennTrivialConv(_SteerableConv):
    """Steerable convolution from trivial fields, such as image channels, to regular fields.

    Arguments, attributes and errors as in `ennConv`, but `in_channels` may be any number.

    Shape:
        - Input: (B, in_channels, H, W), channels that the group does not mix.
        - Output: (B, out_channels, H', W'), orientation fastest.
    """

    trivial_input = True


def _without_autocast(device_type: str) -> AbstractContextManager:
    """Switch autocast off, on devices that have it."""
    return torch.autocast(device_type, enabled=False) if device_type in ('cpu', 'cuda') else nullcontext()
