"""Scale all learning rates of a run with its batch: the optimizer's, and absolute ones in schedules."""

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from mmengine.dist import get_world_size
from mmengine.runner import Runner

# arguments of mmengine's schedules that are learning rates, not factors of one
ABSOLUTE = ('eta_min', 'eta_max', 'min_value', 'base_lr', 'max_lr', 'warmup_lr')


def scale_learning_rates(runner: Runner) -> str | None:
    """Do what mmengine's `auto_scale_lr` does, for the batch of a step instead of that of an iteration.

    The linear rule of Goyal et al., Accurate, large minibatch SGD (arXiv:1706.02677): the learning rate is proportional
    to the images per step of the optimizer: images per iteration and process, times processes, times accumulated
    iterations. mmengine leaves out the last, and scales the optimizer's rate alone: a cosine then
    ends at an `eta_min` that was meant for another rate.

    Args:
        runner: Not yet trained, so that its optimizer and schedules are still configs, which are changed.

    Returns:
        What was done, for the log; None if `auto_scale_lr` is not enabled.

    Raises:
        ValueError: If a number is missing or unusable; the message names the key.
    """
    scale = runner.auto_scale_lr or {}
    if not scale.get('enable'):
        return None
    base = scale.get('base_batch_size')
    if isinstance(base, bool) or not isinstance(base, (int, float)) or base <= 0:
        raise ValueError(f'auto_scale_lr.base_batch_size={base!r} must be the number of images that the lr is for')
    loader = runner.cfg.train_dataloader
    size = loader.get('batch_size') or (loader.get('batch_sampler') or {}).get('batch_size')
    if not isinstance(size, int):
        raise ValueError(f'train_dataloader.batch_size={size!r} must be a number for auto_scale_lr')
    processes, changes, ratios = get_world_size(), [], []
    wrappers = dict(_wrappers(runner.optim_wrapper))
    for name, wrapper in wrappers.items():
        accumulated = wrapper.get('accumulative_counts', 1)
        ratios.append(ratio := size * processes * accumulated / base)
        optimizer = wrapper.get('optimizer')
        if not isinstance(optimizer, MutableMapping) or not isinstance(optimizer.get('lr'), (int, float)):
            raise ValueError(f'optim_wrapper{name}.optimizer has no lr that auto_scale_lr could scale')
        changes.append(_scale(optimizer, 'lr', ratio, f'optim_wrapper{name}.optimizer'))
    for key, schedule in _schedules(runner.param_schedulers, 'param_scheduler'):
        ratio = next((r for r, name in zip(ratios, wrappers, strict=True) if name and name in key), ratios[0])
        if not _is_of_rates(schedule):
            continue
        changes += [_scale(schedule, name, ratio, key) for name in ABSOLUTE if schedule.get(name)]
    runner.auto_scale_lr = {**scale, 'enable': False}  # done
    counts = ' x '.join(
        f'{number} {what}' for number, what in ((size, 'images'), (processes, 'processes'), (accumulated, 'iterations'))
    )
    return (
        f'learning rates are scaled by {ratios[0]:g}: a step sees {counts}, and the config is meant for '
        f'{base} images ({", ".join(changes)})'
    )


def _wrappers(config: Any) -> Iterator[tuple[str, MutableMapping[str, Any]]]:
    """Return the wrappers by the part of the key that tells them apart; '' for a single one."""
    if 'optimizer' in config:
        yield '', config
    else:  # of several optimizers, each by its name
        parts = ((key, part) for key, part in config.items() if isinstance(part, MutableMapping))
        yield from ((f'.{key}', part) for key, part in parts if 'optimizer' in part)


def _schedules(config: Any, key: str) -> Iterator[tuple[str, MutableMapping[str, Any]]]:
    if isinstance(config, MutableMapping) and 'type' in config:
        yield key, config
    elif isinstance(config, Mapping):
        for name, part in config.items():
            yield from _schedules(part, f'{key}.{name}')
    elif isinstance(config, (list, tuple)):
        for i, part in enumerate(config):
            yield from _schedules(part, f'{key}[{i}]')


def _is_of_rates(schedule: Mapping[str, Any]) -> bool:
    kind = schedule['type']
    name = kind if isinstance(kind, str) else kind.__name__
    return schedule.get('param_name') == 'lr' if name.endswith('ParamScheduler') else not name.endswith('Momentum')


def _scale(config: MutableMapping[str, Any], name: str, ratio: float, key: str) -> str:
    before = config[name]
    config[name] = [value * ratio for value in before] if isinstance(before, (list, tuple)) else before * ratio
    return f'{key}.{name} {_short(before)} -> {_short(config[name])}'


def _short(value: Any) -> str:
    return f'{value:.4g}' if isinstance(value, (int, float)) else str([float(f'{part:.4g}') for part in value])
