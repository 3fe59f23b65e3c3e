"""Compare the run that wrote a checkpoint with the config that resumes it.

mmengine restores the learning rates, the schedules with all their numbers and the optimizer's options from the
checkpoint, and silently ignores what the config says of them: a longer cosine stays at its old end. The
number of epochs, the batch size and the accumulation are the config's.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.optim.scheduler.param_scheduler import INF

PROCESSES, BATCH_SIZE, ACCUMULATE = 'processes', 'batch_size', 'accumulative_counts'
_LIMIT = 4  # differences in one message


def schedule_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """List where two configs differ in learning rates and options of the optimizer, ``key: before -> now``.

    Args:
        before: The config of the checkpoint's training.
        now: The config that resumes it.
    """
    return [
        *_changes(_optimizer(before), _optimizer(now), 'optim_wrapper'),
        *_changes(_schedules(before), _schedules(now), 'param_scheduler'),
        *_changes(_scaling(before), _scaling(now), 'auto_scale_lr'),
    ]


def changed_optimizer(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Return both types if the optimizer has another type, whose state would not fit."""
    kinds = [(part.get('optim_wrapper') or {}).get('optimizer') or {} for part in (before, now)]
    old, new = (str(getattr(k.get('type'), '__name__', k.get('type'))).rpartition('.')[2] for k in kinds)
    return f'{old} in the checkpoint, {new} in the config' if old != new else None


def ends_early(before: Mapping[str, Any], now: Mapping[str, Any]) -> int | None:
    """Return the epoch after which the schedules of `before` change nothing, if `now` trains beyond it."""
    epochs = (now.get('train_cfg') or {}).get('max_epochs')
    given = [schedule.get('end') for schedule in _schedules(before) if schedule.get('by_epoch', True)]
    ends = [end for end in given if isinstance(end, int)]
    if epochs is None or not ends or len(ends) < len(given):
        return None
    return max(ends) if max(ends) < epochs else None


def restored_schedules(before: Mapping[str, Any]) -> Any:
    """Return the checkpoint's `param_scheduler`, each schedule with the end that it had."""
    several = before.get('param_scheduler')
    return several if isinstance(several, Mapping) and 'type' not in several else _schedules(before)


def types_of_schedules(cfg: Mapping[str, Any]) -> list[str]:
    kinds = (schedule.get('type') for schedule in _schedules(cfg))
    return [str(getattr(kind, '__name__', kind)) for kind in kinds]


def batch_differences(meta: Mapping[str, Any], before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> list[str]:
    """List what changes the steps of the optimizer, such as ``batch size 2 -> 4``.

    Args:
        meta: The checkpoint's, with what `ExactResumeHook` notes of the run.
        before: The config of its training, for checkpoints without those notes; may be None.
        now: `run_facts` of the resumed run.
    """
    old = {**(run_facts(before, None) if before is not None else {}), **(meta.get('run') or {})}
    names = {BATCH_SIZE: 'batch size', ACCUMULATE: 'accumulated iterations', PROCESSES: 'processes'}
    return [
        f'{text} {old[key]} -> {now[key]}'
        for key, text in names.items()
        if old.get(key) is not None and now.get(key) is not None and old[key] != now[key]
    ]


def run_facts(cfg: Mapping[str, Any], processes: int | None) -> dict[str, Any]:
    """Return batch size per process, accumulation and processes of a run."""
    loader, wrapper = cfg.get('train_dataloader') or {}, cfg.get('optim_wrapper') or {}
    size = loader.get('batch_size') or (loader.get('batch_sampler') or {}).get('batch_size')
    return {BATCH_SIZE: size, ACCUMULATE: wrapper.get('accumulative_counts', 1), PROCESSES: processes}


def listed(differences: Sequence[str]) -> str:
    more = len(differences) - _LIMIT
    return '; '.join(differences[:_LIMIT]) + (f'; and {more} more' if more > 0 else '')


def _optimizer(cfg: Mapping[str, Any]) -> dict[str, Any]:
    wrapper = cfg.get('optim_wrapper') or {}
    return {key: wrapper[key] for key in ('optimizer', 'paramwise_cfg') if wrapper.get(key)}


def _scaling(cfg: Mapping[str, Any]) -> dict[str, Any]:
    scale = cfg.get('auto_scale_lr') or {}
    return dict(scale) if scale.get('enable') else {'enable': False}


def _schedules(cfg: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Add the end that mmengine gives to a schedule without one, unless it has no effect."""
    listed = cfg.get('param_scheduler') or []
    listed = [listed] if isinstance(listed, Mapping) and 'type' in listed else listed
    if isinstance(listed, Mapping):  # of several optimizers
        listed = [schedule for part in listed.values() for schedule in ([part] if 'type' in part else part)]
    train = cfg.get('train_cfg') or {}
    full = []
    for schedule in listed:
        by_epoch = schedule.get('by_epoch', True)
        total = train.get('max_epochs' if by_epoch else 'max_iters')
        filled = {key: value for key, value in schedule.items() if key != 'verbose'}
        if total is not None:
            filled.setdefault('end', total)
        full.append(filled)
    return full


def _changes(before: Any, now: Any, key: str) -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        if _same_steps(before, now):
            return
        for name in dict.fromkeys([*before, *now]):
            if name == 'type' and _kind(before.get(name)) == _kind(now.get(name)):
                continue  # written with a scope, or as a class
            if name != '_scope_':  # noted where a config is inherited from another package
                yield from _changes(before.get(name), now.get(name), f'{key}.{name}')
    elif _is_list(before) and _is_list(now) and len(before) == len(now) and any(isinstance(x, Mapping) for x in now):
        for i, (old, new) in enumerate(zip(before, now, strict=True)):
            yield from _changes(old, new, f'{key}[{i}]')
    elif _plain(before) != _plain(now):
        yield f'{key}: {_short(before)} -> {_short(now)}'


def _same_steps(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Tell whether two MultiStepLR differ only in an end beyond their milestones, which changes nothing."""
    steps = before.get('milestones')
    if not steps or 'MultiStep' not in str(before.get('type')):
        return False
    ends = [part.get('end', INF) for part in (before, now)]
    rest = [
        {key: _plain(value) for key, value in part.items() if key not in ('end', '_scope_')} for part in (before, now)
    ]
    return rest[0] == rest[1] and min(ends) > max(steps)


def _kind(value: Any) -> str:
    return str(getattr(value, '__name__', value)).rpartition('.')[2]


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if _is_list(value) else value


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        value = value.get('type', dict(value))
    elif _is_list(value) and any(isinstance(part, Mapping) for part in value):
        value = [part.get('type') for part in value]
    text = 'none' if value is None else str(value)
    return text if len(text) <= 60 else f'{text[:57]}...'
