"""Teach the counters of mmcv and mmengine, hence the hosts' get_flops.py, the layers of this package.

mmcv's counter goes by the classes of modules and skips those it does not know. mmengine's traces the network, where
equivariant layers in eval mode are convolutions; it does not see the variances of an `UncertainDetector`.
`mend_counters` adds what they miss. It imports neither mmengine's counter, which is mended when something else imports
it, nor `complexity`.
"""

import sys
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from types import ModuleType
from typing import Any

from mmcv.cnn.utils import flops_counter as mmcv_counter
from torch import Tensor, nn

from ...equivariant import ennAvgPool, ennConv, ennGroupPool, ennInterpolate, ennMaxPool, ennReLU, ennTrivialConv
from ...equivariant.fourier import FourierConv2d
from ...hosts.mends import mend_when_imported
from ...utils.contexts import temporary_attributes

FLOPS = '__flops__'  # attribute in which mmcv's counter adds up
Hooks = dict[type, Callable[..., None]]  # forward hooks by the class of a module
UNCERTAIN = 'mmrotate_plugin.models.detectors.uncertain_detector'  # the module of UncertainDetector; it imports mmdet


def mend_counters() -> None:
    """Teach both counters."""
    if not hasattr(mmcv_counter.get_modules_mapping, '__wrapped__'):
        mmcv_counter.get_modules_mapping = _with_layers(mmcv_counter.get_modules_mapping)
    mend_when_imported('mmengine.analysis.complexity_analysis', _mend_analyzer)


def _mend_analyzer(module: ModuleType) -> None:
    analyzer = module.FlopAnalyzer
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
    from .complexity import variance_macs

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
            from .complexity import variance_macs

            stats.counts[''] += Counter(variance=variance_macs(self._model, self._inputs[0]))
        return stats

    return with_ours
