"""Check that the parts of a config have the types that the runner takes: dicts, lists of dicts, or None."""

from collections.abc import Iterator, Mapping
from typing import Any

_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
_DICTS = (
    *_LOADERS, 'train_cfg', 'val_cfg', 'test_cfg', 'optim_wrapper', 'auto_scale_lr', 'env_cfg', 'default_hooks',
    'log_processor', 'randomness', 'custom_imports', 'visualizer',
)  # fmt: skip
_LISTS = ('param_scheduler', 'val_evaluator', 'test_evaluator', 'custom_hooks')


def wrong_types(cfg: Mapping[str, Any]) -> Iterator[str]:
    """Say what cannot be right at the top of a config and in its dataloaders, one sentence each.

    Args:
        cfg: A whole config.
    """
    for key in _DICTS:
        if cfg.get(key) is not None and not isinstance(cfg[key], Mapping):
            yield f'{key} must be a dict, not {_short(cfg[key])}'
            return
    for key in _LISTS:
        value = cfg.get(key)
        parts = value if isinstance(value, (list, tuple)) else [] if value is None else [value]
        if any(not isinstance(part, Mapping) for part in parts):
            yield f'{key} must be a dict or a list of dicts, not {_short(value)}'
    for key in _LOADERS:
        loader = cfg.get(key)
        if not loader:
            continue
        if not isinstance(loader.get('dataset'), Mapping):
            yield f"{key}.dataset must be a dict with a 'type', not {_short(loader.get('dataset'))}"
        for name, least in (('batch_size', 1), ('num_workers', 0)):
            value = loader.get(name, least)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                yield f'{key}.{name}={value!r} must be an integer of {least} or more'
    wrapper = cfg.get('optim_wrapper') or {}
    optimizer = wrapper.get('optimizer')
    if isinstance(optimizer, Mapping):
        rate = optimizer.get('lr', 0.01)
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate < float('inf'):
            yield f'optim_wrapper.optimizer.lr={rate!r} must be finite and non-negative'


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f'{text[:77]}...'
