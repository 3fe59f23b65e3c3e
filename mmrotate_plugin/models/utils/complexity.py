"""Counting multiply-adds: of what a detector computes, and in the counters of mmcv and mmengine.

What counts is each product of a convolution or a matrix product with its addition, once, as mmcv and mmengine count.
An equivariant layer counts as the convolution with its expanded filter, which is what it is after export and on a GPU:
as much as a plain layer of its width. Where it goes by Fourier on a CPU it computes fewer (`circulant_macs`);
`count_macs` gives either number. Expanding the filter is no part of inference and is not counted.

mmcv's counter looks at the classes of modules and passes over those it does not know; mmengine's traces the network,
where equivariant layers in eval mode are convolutions, and does not see the variances of an `UncertainDetector`.
`mend_counters` mends the two by name.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import ModuleType
from typing import Any

import torch
from mmcv.cnn.utils import flops_counter as mmcv_counter
from mmengine.analysis import complexity_analysis as mmengine_counter
from torch import Tensor, nn

from ...equivariant import ennAvgPool, ennConv, ennGroupPool, ennInterpolate, ennMaxPool, ennReLU, ennTrivialConv
from ...equivariant.conv import _SteerableConv
from ...equivariant.fourier import FourierConv2d

UNCERTAIN = 'mmrotate_plugin.models.detectors.uncertain_detector'  # the module of UncertainDetector; it imports mmdet
try:
    from torch.utils import flop_counter as torch_counter
except ImportError:  # torch 2.0
    torch_counter: ModuleType | None = None  # type: ignore[no-redef]


def count_macs(net: nn.Module, run: Callable[[], Any], *, fourier: bool = False) -> int:
    """Multiply-adds of all convolutions and matrix products that a function computes, by torch's own counter.

    Args:
        net: What it computes with; filters are made before, once, as in inference.
        run: Computes; called once, without gradients.
        fourier: Let equivariant layers take the Fourier path where they would; otherwise each is a convolution.

    Raises:
        NotImplementedError: Before torch 2.1, which has no counter.
    """
    if torch_counter is None:
        raise NotImplementedError(f'torch {torch.__version__} cannot count operations: torch 2.1 or later is needed')
    with torch.no_grad(), paths(fourier):
        _keep_filters(net)
        with torch_counter.FlopCounterMode(display=False, custom_mapping=_IN_PLACE) as counter:
            run()
    return counter.get_total_flops() // 2  # which counts products and sums apart


def circulant_macs(in_fields: int, out_fields: int, order: int, pixels: int) -> int:
    """Multiply-adds of a 1x1 layer between regular fields of C_N by Fourier; a convolution has N² for a pair of fields.

    N of them and 2P more are products of coefficients, P frequencies having a cosine and a sine; each channel of input
    and output is a sum of N in the transforms.
    """
    pairs = (order - 1) // 2
    return pixels * (in_fields * out_fields * (order + 2 * pairs) + (in_fields + out_fields) * order**2)


@contextmanager
def paths(fourier: bool) -> Iterator[None]:
    """With False, equivariant layers are convolutions, on CPUs too."""
    before = _SteerableConv.fourier
    _SteerableConv.fourier = before and fourier
    try:
        yield
    finally:
        _SteerableConv.fourier = before


def _keep_filters(net: nn.Module) -> None:
    """Make the filters and spectra that inference keeps, so that making them is not counted."""
    for layer in net.modules():
        if isinstance(layer, _SteerableConv):
            layer.filter()
            if layer.has_spectrum:
                layer.spectrum()


def _baddbmm(_out: Any, a: Any, b: Any, **_: Any) -> int:
    batch, rows, inner = a
    return 2 * batch * rows * inner * b[-1]


_IN_PLACE = {torch.ops.aten.baddbmm_: _baddbmm}  # of the Fourier path; torch knows the one that is not in place


# --- in the counters of mmcv and mmengine


def mend_counters() -> None:
    """Let the counters of mmcv and mmengine, hence the hosts' get_flops.py, know the layers of this package."""
    if not hasattr(mmcv_counter.get_modules_mapping, '__wrapped__'):
        mmcv_counter.get_modules_mapping = _with_layers(mmcv_counter.get_modules_mapping)
    analyzer = mmengine_counter.FlopAnalyzer
    if not hasattr(analyzer._analyze, '__wrapped__'):
        analyzer._analyze = _with_variances(analyzer._analyze)


def _with_layers(mapping: Callable[[], dict]) -> Callable[[], dict]:
    relu, pool = mmcv_counter.relu_flops_counter_hook, mmcv_counter.pool_flops_counter_hook
    ours: dict[type, Callable] = {
        **dict.fromkeys((ennConv, ennTrivialConv), mmcv_counter.conv_flops_counter_hook),
        FourierConv2d: _count_fourier,
        ennReLU: relu,
        **dict.fromkeys((ennMaxPool, ennAvgPool, ennGroupPool), pool),
        ennInterpolate: relu,  # as many as values
    }

    @wraps(mapping)
    def with_ours() -> dict:
        uncertain = getattr(sys.modules.get(UNCERTAIN), 'UncertainDetector', None)
        return {**mapping(), **ours, **({uncertain: _count_variance} if uncertain is not None else {})}

    return with_ours


def _count_fourier(module: FourierConv2d, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ARG001
    module.__flops__ += output.numel() * module.in_channels + (output.numel() if module.bias is not None else 0)


def _count_variance(module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:  # noqa: ARG001
    # the parts that compute it count too, when the hooks on them see it
    counts = {m: m.__flops__ for m in module.modules() if hasattr(m, '__flops__')}
    extra = variance_macs(module, inputs[0])
    for m, count in counts.items():
        m.__flops__ = count
    module.__flops__ += extra


def _with_variances(analyze: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """With what an `UncertainDetector` computes beyond the detector within it."""

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
    """Multiply-adds of an `UncertainDetector` beyond the detector within it, up to the outputs of the heads.

    Carrying the deviations on to boxes and scores, which depends on how many are found, is left out, and so is what
    follows the regions in a detector of two stages.

    Args:
        detector: An `UncertainDetector`.
        images: (B, C, H, W).
    """
    inner = detector.detector
    if detector.method == 'jacobian':
        return 0  # a backward pass for each number that is found
    with detector.plain():
        plain = count_macs(inner, lambda: _outputs(inner, images))
    again = detector.dropout_samples * plain
    if detector.method == 'monte_carlo':
        return again + detector.num_samples * plain
    x = detector._gaussian(images, torch.full_like(images, 0.01))
    with detector.propagating():
        return again + count_macs(inner, lambda: _outputs(inner, x)) - plain


def _outputs(detector: nn.Module, x: Any) -> Any:
    """Of backbone, neck and first head."""
    maps = detector.extract_feat(x)
    head = getattr(detector, 'rpn_head', None) or getattr(detector, 'bbox_head', None)
    return maps if head is None else head(maps)
