"""Count the multiply-adds of a detector, and teach the counters of mmcv and mmengine its layers.

Each product in a convolution or a matrix product counts once, with its addition, as in mmcv and mmengine. An
equivariant layer counts as the convolution with its expanded filter, which it is after export and on a GPU: as much as
a plain layer of its width. The Fourier path of a CPU computes fewer (`irrep_macs`); `count_macs` gives either
number. Expanding the filter is not part of inference, and does not count.

mmcv's counter goes by the classes of modules and skips those it does not know. mmengine's traces the network, where
equivariant layers in eval mode are convolutions; it does not see the variances of an `UncertainDetector`.
`mend_counters` adds what they miss.
"""

import sys
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from functools import wraps
from types import ModuleType
from typing import Any

import torch
from mmcv.cnn.utils import flops_counter as mmcv_counter
from mmengine.analysis import complexity_analysis as mmengine_counter
from mmengine.model import BaseModel
from torch import Tensor, nn

from ...equivariant import ennAvgPool, ennConv, ennGroupPool, ennInterpolate, ennMaxPool, ennReLU, ennTrivialConv
from ...equivariant.dihedral import products
from ...equivariant.fields import group_order
from ...equivariant.fourier import FourierConv2d
from ...utils.contexts import temporary_attributes
from ..uncertainty.contexts import without_variance
from .fourier_path import without_fourier

FLOPS = '__flops__'  # attribute in which mmcv's counter adds up
Hooks = dict[type, Callable[..., None]]  # forward hooks by the class of a module
UNCERTAIN = 'mmrotate_plugin.models.detectors.uncertain_detector'  # the module of UncertainDetector; it imports mmdet
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


# --- in the counters of mmcv and mmengine


def mend_counters() -> None:
    """Teach the counters of mmcv and mmengine, hence the hosts' get_flops.py, the layers of this package."""
    if not hasattr(mmcv_counter.get_modules_mapping, '__wrapped__'):
        mmcv_counter.get_modules_mapping = _with_layers(mmcv_counter.get_modules_mapping)
    analyzer = mmengine_counter.FlopAnalyzer
    if not hasattr(analyzer._analyze, '__wrapped__'):
        analyzer._analyze = _with_variances(analyzer._analyze)


def _with_layers(mapping: Callable[[], Hooks]) -> Callable[[], Hooks]:
    relu, pool = mmcv_counter.relu_flops_counter_hook, mmcv_counter.pool_flops_counter_hook
    ours: Hooks = {
        **dict.fromkeys((ennConv, ennTrivialConv), mmcv_counter.conv_flops_counter_hook),
        FourierConv2d: _count_fourier,
        ennReLU: relu,
        **dict.fromkeys((ennMaxPool, ennAvgPool, ennGroupPool), pool),
        ennInterpolate: relu,  # as many as values
    }

    @wraps(mapping)
    def with_ours() -> Hooks:
        uncertain = getattr(sys.modules.get(UNCERTAIN), 'UncertainDetector', None)
        return {**mapping(), **ours, **({uncertain: _count_variance} if uncertain is not None else {})}

    return with_ours


def _count_fourier(module: FourierConv2d, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ARG001
    _add_flops(module, output.numel() * module.in_channels + (output.numel() if module.bias is not None else 0))


def _count_variance(module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:  # noqa: ARG001
    # the hooks on the parts that compute the variance would count it a second time
    with ExitStack() as stack:
        for part in module.modules():
            if hasattr(part, FLOPS):
                stack.enter_context(temporary_attributes(part, **{FLOPS: getattr(part, FLOPS)}))
        extra = variance_macs(module, inputs[0])
    _add_flops(module, extra)


def _add_flops(module: nn.Module, count: int) -> None:
    setattr(module, FLOPS, getattr(module, FLOPS) + count)


def _with_variances(analyze: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Add what an `UncertainDetector` computes beyond the detector within it."""

    @wraps(analyze)
    def with_ours(self: Any) -> Any:
        if self._stats is not None:
            return self._stats
        stats = analyze(self)
        if type(self._model).__module__ == UNCERTAIN:
            stats.counts[''] += Counter(variance=variance_macs(self._model, self._inputs[0]))
        return stats

    return with_ours


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
