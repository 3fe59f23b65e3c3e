"""Find out before training whether the metrics that hooks wait for will be there.

`CheckpointHook(save_best='mAP')` ends with a KeyError after the first validation, hours later, where the evaluator
calls it 'dota/mAP'.
"""

import difflib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import CheckpointHook, EarlyStoppingHook
from mmengine.logging import MMLogger
from mmengine.runner import Runner

from .head_classes import classes_of

_COCO = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
_COCO_AR = ('AR@100', 'AR@300', 'AR@1000', 'AR_s@1000', 'AR_m@1000', 'AR_l@1000')


def unknown_metric(runner: Runner) -> tuple[str | None, list[str]]:
    """Compare what checkpoint hooks, early stopping and `ReduceOnPlateau` wait for with what the evaluator gives.

    Args:
        runner: Its validation loop, if it has one, is built.

    Returns:
        What is wrong, in one sentence, or None; and what cannot be known or has no effect.
    """
    wanted = list(_wanted(runner))
    if not wanted:
        return None, []
    if runner.val_loop is None:
        keys = ', '.join(f'{key}={name!r}' for key, name in wanted)
        return None, [f'{keys} has no effect: there is no validation, whose results it waits for']
    given, unknown = keys_of(runner.val_loop.evaluator.metrics, runner.val_loop.dataloader.dataset)
    for key, name in wanted:
        if name == 'auto' or name in given:
            continue
        if unknown:
            classes = ', '.join(type(metric).__name__ for metric in unknown)
            return None, [f'{key}={name!r}: the results of {classes} are known after the first validation only']
        close = _closest(name, given)
        hint = f"; did you mean '{close}'?" if close else ''
        return f'{key}={name!r}: the val_evaluator gives {", ".join(given) or "no numbers"}{hint}', []
    return None, []


def _wanted(runner: Runner) -> Iterator[tuple[str, str]]:
    """Yield keys of the config and the metric that each names."""
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook):
            for name in hook.save_best or ():
                yield 'default_hooks.checkpoint.save_best', name
        elif isinstance(hook, EarlyStoppingHook) and hook.monitor:
            yield f'custom_hooks: {type(hook).__name__}.monitor', hook.monitor
    for i, schedule in enumerate(_flat(runner.param_schedulers)):
        kind = schedule.get('type') if isinstance(schedule, Mapping) else ''
        if 'ReduceOnPlateau' in str(getattr(kind, '__name__', kind)):
            yield f'param_scheduler[{i}].monitor', schedule.get('monitor', 'loss')


def _flat(schedules: Any) -> list[Any]:
    if isinstance(schedules, Mapping) and 'type' not in schedules:
        return [schedule for part in schedules.values() for schedule in _flat(part)]
    return list(schedules) if isinstance(schedules, (list, tuple)) else [schedules] if schedules else []


def keys_of(metrics: Iterable[BaseMetric], dataset: Any) -> tuple[list[str], list[BaseMetric]]:
    """Return the names of all results, and the metrics whose results are not known beforehand."""
    given, unknown = [], []
    for metric in metrics:
        names = _by_arguments(metric)
        if names is None:
            names = _by_trial(metric, dataset)
        if names is None:
            unknown.append(metric)
        else:
            given += [f'{metric.prefix}/{name}' if metric.prefix else name for name in names]
    return given, unknown


def _by_arguments(metric: BaseMetric) -> list[str] | None:
    """Name the results of a metric of mmdet or mmrotate by its class and arguments."""
    names = {kind.__name__ for kind in type(metric).__mro__}
    own = type(metric).__dict__  # a class that computes otherwise is tried
    if 'compute_metrics' in own and type(metric).__name__ not in ('DOTAMetric', 'VOCMetric', 'CocoMetric',
                                                                  'RotatedCocoMetric'):  # fmt: skip
        return None
    if getattr(metric, 'format_only', False) or getattr(metric, 'merge_patches', False):
        return []
    if names & {'DOTAMetric', 'VOCMetric'} and getattr(metric, 'metric', None) == 'mAP':
        return ['mAP', *(f'AP{int(threshold * 100):02d}' for threshold in metric.iou_thrs)]
    if names & {'CocoMetric', 'RotatedCocoMetric'}:
        return _coco(metric)
    return None


def _coco(metric: Any) -> list[str] | None:
    found: list[str] = []
    if metric.metric_items is not None:
        return None  # the trial cannot be made either; said at the start
    for kind in metric.metrics:
        if kind == 'proposal_fast':
            found += [f'AR@{number}' for number in metric.proposal_nums]
        elif kind == 'proposal':
            found += _COCO_AR
        else:
            found += [f'{kind}_{name}' for name in _COCO]
    classes = (metric.dataset_meta or {}).get('classes') or ()
    return found + [f'{name}_precision' for name in classes if getattr(metric, 'classwise', False)]


def _by_trial(metric: BaseMetric, dataset: Any) -> list[str] | None:
    """Give a copy of a metric one image with one object, which is found; None if it cannot take it."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    try:
        trial = deepcopy(metric)
        meta = getattr(dataset, 'metainfo', None) or {}
        trial.dataset_meta = {**meta, 'classes': classes_of(dataset) or ('object',)}
        logger.setLevel('CRITICAL')
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            trial.process({}, [_sample()])
            return list(trial.compute_metrics(trial.results))
    except Exception:  # of any metric, in any way
        return None
    finally:
        logger.setLevel(level)


def _sample() -> dict[str, Any]:
    """Make a result as mmengine's evaluator passes it on, with rotated boxes."""
    from mmengine.structures import BaseDataElement, InstanceData

    boxes = torch.tensor([[50.0, 50.0, 20.0, 10.0, 0.3]])
    label, score = torch.zeros(1, dtype=torch.long), torch.tensor([0.9])
    sample = BaseDataElement(metainfo={'img_id': '0', 'ori_shape': (100, 100), 'img_shape': (100, 100)})
    sample.set_field(InstanceData(bboxes=boxes, labels=label), 'gt_instances')
    sample.set_field(InstanceData(bboxes=boxes[:0], labels=label[:0]), 'ignored_instances')
    stds = {'bboxes_std': torch.ones_like(boxes), 'scores_std': torch.ones_like(score)}
    sample.set_field(InstanceData(bboxes=boxes, labels=label, scores=score, **stds), 'pred_instances')
    return sample.to_dict()


def _closest(name: str, given: Sequence[str]) -> str | None:
    """Return the same name with another prefix, or a similarly spelled one."""
    tail = name.rpartition('/')[2].casefold()
    for full in given:
        if full.rpartition('/')[2].casefold() == tail:
            return full
    tails = {full.rpartition('/')[2].casefold(): full for full in reversed(given)}
    close = difflib.get_close_matches(tail, tails, n=1)
    return tails[close[0]] if close else None
