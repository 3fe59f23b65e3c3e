"""Warn when the limits of a detector's post-processing may have cut off detections.

At most `max_per_img` detections per image are kept, and `nms_pre` candidates per level before suppression. Crowded
images can reach both; what is beyond them counts as missed.
"""

import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel
from mmengine.runner import Runner
from torch import nn

from ...registry import HOOKS, register

_TOPK = 'filter_scores_and_topk'


class Limits:
    """Count the images whose detections reach `max_per_img`, or whose candidates reach `nms_pre`.

    `max_per_img` is compared with the number of detections in each result. The candidates of a level are seen where
    mmdet's and mmrotate's dense heads choose them, in `filter_scores_and_topk`: if that returns as many as it may, some
    may have been left out. This costs a comparison per level. Heads that choose in another way are
    not seen; nor are region proposals, of which there are always more than enough, and detectors without suppression,
    which always return `max_per_img` boxes.

    Args:
        model: A detector, maybe within `UncertainDetector` or a wrapper for several processes.
        score_thr: Detections and candidates below it do not count, as in a picture that does not show them.
    """

    def __init__(self, model: nn.Module, *, score_thr: float = 0.0) -> None:
        self.model, self.score_thr = getattr(model, 'module', model), score_thr
        detector, prefix = self.model, 'model'
        while (inner := detector.__dict__.get('detector')) is not None:
            detector, prefix = inner, f'{prefix}.detector'
        test, self.prefix = getattr(detector, 'test_cfg', None) or {}, f'{prefix}.test_cfg'
        self.one_stage = 'rcnn' not in test
        if not self.one_stage:
            test, self.prefix = test['rcnn'] or {}, f'{self.prefix}.rcnn'
        limits = test if test.get('nms') else {}
        self.max_per_img, self.nms_pre = _count(limits, 'max_per_img'), _count(limits, 'nms_pre')
        self.images = self.full = self.cut = 0
        self._levels: list[bool] = []
        self._told = False

    @contextmanager
    def watching(self) -> Iterator['Limits']:
        """Count what the model predicts inside the context."""
        handle = self.model.register_forward_hook(lambda _module, _inputs, outputs: self._count(outputs))
        places = [module for module in list(sys.modules.values()) if _is_of_heads(module)]
        originals = {place: vars(place)[_TOPK] for place in places}
        try:
            for place, original in originals.items():
                setattr(place, _TOPK, self._noting(original))
            yield self
        finally:
            handle.remove()
            for place, original in originals.items():
                setattr(place, _TOPK, original)

    def _noting(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def choose(scores: Any, score_thr: float, topk: int, *args: Any, **kwargs: Any) -> Any:
            chosen = original(scores, score_thr, topk, *args, **kwargs)
            kept = chosen[0]  # the best first; what was left out is no better than the last
            reached = len(kept) == topk == self.nms_pre and float(kept[-1].detach()) >= self.score_thr
            self._levels.append(reached)
            return chosen

        return choose

    def _count(self, outputs: Any) -> None:
        levels, self._levels = self._levels, []
        if not isinstance(outputs, Sequence) or not all(hasattr(sample, 'pred_instances') for sample in outputs):
            return  # losses, or raw maps
        each = max(1, len(levels) // max(1, len(outputs)))  # image after image
        for i, sample in enumerate(outputs):
            found = sample.pred_instances
            self.images += 1
            if self.max_per_img is not None:
                self.full += int((found.scores >= self.score_thr).sum()) == self.max_per_img
            self.cut += self.one_stage and any(levels[i * each : (i + 1) * each])

    def hint(self, what: str = 'images') -> str | None:
        """Say in one sentence what was reached, the first time that something was; else return None.

        In a run of several processes all have to ask, as their images are added up.
        """
        if self._told:
            return None
        counts = torch.tensor([self.images, self.full, self.cut])
        all_reduce(counts)
        images, full, cut = counts.tolist()
        parts = []
        if full:
            parts.append(
                f'{full} of {images} {what} have as many detections as {self.prefix}.max_per_img={self.max_per_img}'
            )
        if cut:
            parts.append(
                f'in {cut} of {images} {what} a level has as many candidates as {self.prefix}.nms_pre={self.nms_pre}'
            )
        self._told = bool(parts)
        keys = [key for key, number in (('max_per_img', full), ('nms_pre', cut)) if number]
        options = ' '.join(f'{self.prefix}.{key}={2 * getattr(self, key)}' for key in keys)
        return f'{"; ".join(parts)}: others may be missing. More: --cfg-options {options}' if parts else None


def _count(limits: Mapping[str, Any], key: str) -> int | None:
    value = limits.get(key)
    return value if isinstance(value, int) and value > 0 else None


def _is_of_heads(module: Any) -> bool:
    """Tell whether a module of mmdet, mmrotate or a package built on them has the function by this name."""
    names = getattr(module, '__dict__', {})
    return callable(names.get(_TOPK)) and str(names.get('__name__', '')) not in ('mmdet.models.utils.misc', __name__)


@register(HOOKS)
class LimitsHook(Hook):
    """Warn once per run if the detections of an image reach `max_per_img`, or its candidates `nms_pre`.

    See `Limits`. `tools/train.py` and `tools/test.py` add it.
    """

    def __init__(self) -> None:
        self.limits: Limits | None = None
        self._watching: Any = None

    def before_val_epoch(self, runner: Runner) -> None:
        """Begin to count."""
        self.limits = self.limits or Limits(runner.model)
        self._watching = self.limits.watching()
        self._watching.__enter__()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Tell."""
        if self._watching is None or self.limits is None:
            return
        watching, self._watching = self._watching, None
        watching.__exit__(None, None, None)
        what = 'views' if isinstance(runner.model, BaseTTAModel) else 'images'
        if (text := self.limits.hint(what)) is not None:
            runner.logger.warning(text)

    def before_test_epoch(self, runner: Runner) -> None:
        """Begin to count."""
        self.before_val_epoch(runner)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Tell."""
        self.after_val_epoch(runner, metrics)
