"""Count the multiply-adds of a detector.

Each product in a convolution or a matrix product counts once, with its addition, as in mmcv and mmengine. An
equivariant layer counts as the convolution with its expanded filter, which it is after export and on a GPU: as much as
a plain layer of its width. The Fourier path of a CPU computes fewer (`irrep_macs`); `count_macs` gives either
number. Expanding the filter is not part of inference, and does not count. `counter_mends` makes the counters of mmcv
and mmengine agree.
"""

from collections.abc import Callable
from contextlib import nullcontext
from types import ModuleType
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from ...equivariant import ennConv, ennTrivialConv
from ...equivariant.dihedral import products
from ...equivariant.fields import group_order
from ..uncertainty.contexts import without_variance
from .fourier_path import without_fourier

try:
    from torch.utils import flop_counter as torch_counter
except ImportError:  # torch 2.0
    torch_counter: ModuleType | None = None  # type: ignore[no-redef]


def count_macs(net: nn.Module, run: Callable[[], Any], *, fourier: bool = False) -> int:
    """Count the multiply-adds of all convolutions and matrix products in a function, by torch's own counter.

    Args:
        net: The network that `run` uses; its filters are made before the count, as in inference.
        run: The function; called once, without gradients.
        fourier: Let equivariant layers take the Fourier path where they would; otherwise each is a convolution.

    Raises:
        NotImplementedError: Before torch 2.1, which has no counter.
    """
    if torch_counter is None:
        raise NotImplementedError(f'torch {torch.__version__} cannot count operations: torch 2.1 or later is needed')
    with torch.no_grad(), nullcontext() if fourier else without_fourier(net):
        _keep_filters(net)
        with torch_counter.FlopCounterMode(display=False, custom_mapping=_IN_PLACE) as counter:
            run()
    return counter.get_total_flops() // 2  # torch counts products and sums apart


def irrep_macs(group: str, in_fields: int, out_fields: int, pixels: int) -> int:
    """Multiply-adds of a 1x1 layer between regular fields on the Fourier path.

    A convolution has the square of the group's order for each pair of fields and pixel. Here each pair takes one
    product of coefficients for each number of its sparse block; in the transforms, each channel of input and output is
    a sum of as many terms as the order.
    """
    n = int(group[1:])
    count = products(group) if group[0] == 'D' else n + 2 * ((n - 1) // 2)
    return pixels * (in_fields * out_fields * count + (in_fields + out_fields) * group_order(group) ** 2)


def _keep_filters(net: nn.Module) -> None:
    """Make the filters and spectra that inference keeps, so that making them does not count."""
    for layer in net.modules():
        if isinstance(layer, (ennConv, ennTrivialConv)):
            layer.filter()
            if layer.has_spectrum:
                layer.spectrum()


def _baddbmm(_out: Any, a: Any, b: Any, **_: Any) -> int:
    batch, rows, inner = a
    return 2 * batch * rows * inner * b[-1]


_IN_PLACE = {torch.ops.aten.baddbmm_: _baddbmm}  # of the Fourier path; torch knows the one that is not in place


def variance_macs(detector: Any, images: Tensor) -> int:
    """Count the multiply-adds of an `UncertainDetector` beyond the detector within it, up to the outputs of the heads.

    The step from there to boxes and scores, which depends on their number, is left out, and so is everything behind
    the regions of a two-stage detector.

    Args:
        detector: An `UncertainDetector`.
        images: (B, C, H, W).
    """
    inner = detector.detector
    if detector.method == 'jacobian':
        return 0  # it takes a backward pass for each number of each detection
    with without_variance(inner):
        plain = count_macs(inner, lambda: _outputs(inner, images))
    again = detector.dropout_samples * plain
    if detector.method == 'monte_carlo':
        return again + detector.num_samples * plain
    x = detector.gaussian(images, torch.full_like(images, 0.01))
    with detector.propagating():
        return again + count_macs(inner, lambda: _outputs(inner, x)) - plain


def _outputs(detector: BaseModel, x: Any) -> Any:
    """Run backbone, neck and first head."""
    maps = detector.extract_feat(x)
    head = getattr(detector, 'rpn_head', None) or getattr(detector, 'bbox_head', None)
    return maps if head is None else head(maps)
