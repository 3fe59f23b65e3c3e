"""Name what a config or `--cfg-options` sets without any effect.

A config is a program: what stands at its top level is an argument of the runner, or a variable that was used while the
file was read. mmengine keeps both. It ignores variables that are changed afterwards, the keys of mmdet 2 and
mmrotate 0.x, and misspelt keys.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .checkpoint_classes import KEY as RENAMES

# read by mmengine's Runner, and by the programs of this package
READ = frozenset(
    'model work_dir train_dataloader val_dataloader test_dataloader train_cfg val_cfg test_cfg auto_scale_lr '
    'optim_wrapper param_scheduler val_evaluator test_evaluator default_hooks custom_hooks data_preprocessor load_from '
    'resume launcher env_cfg log_processor log_level visualizer default_scope randomness experiment_name '
    'custom_imports find_unused_parameters model_wrapper_cfg sync_bn activation_checkpointing efficient_conv_bn_eval '
    f'compile runner_type strategy tta_model tta_pipeline {RENAMES}'.split()
)
# top-level keys of mmcv 1, and what takes their place
OLD = {
    'total_epochs': 'train_cfg.max_epochs',
    'runner': 'train_cfg',
    'evaluation': 'val_evaluator and train_cfg.val_interval',
    'checkpoint_config': 'default_hooks.checkpoint',
    'log_config': 'default_hooks.logger and visualizer.vis_backends',
    'optimizer': 'optim_wrapper.optimizer',
    'optimizer_config': 'optim_wrapper.clip_grad',
    'lr_config': 'param_scheduler',
    'momentum_config': 'param_scheduler',
    'fp16': "optim_wrapper.type='AmpOptimWrapper' (--amp)",
    'data': 'train_dataloader, val_dataloader and test_dataloader',
    'samples_per_gpu': 'train_dataloader.batch_size',
    'workers_per_gpu': 'train_dataloader.num_workers',
    'img_norm_cfg': 'model.data_preprocessor.mean and .std',
    'dist_params': 'env_cfg.dist_cfg',
    'workflow': 'train_cfg.val_interval',
    'cudnn_benchmark': 'env_cfg.cudnn_benchmark',
    'resume_from': '--resume',
    'seed': '--seed (randomness.seed)',
    'gpu_ids': '--launcher',
    'auto_resume': '--resume',
}
# where a variable of that name is in use in configs of today: equal to the value there, it has its effect already
_IN_USE = {
    'total_epochs': ('train_cfg', 'max_epochs'),
    'optimizer': ('optim_wrapper', 'optimizer'),
    'img_norm_cfg': ('model', 'data_preprocessor'),
    'seed': ('randomness', 'seed'),
    'cudnn_benchmark': ('env_cfg', 'cudnn_benchmark'),
    'samples_per_gpu': ('train_dataloader', 'batch_size'),
    'workers_per_gpu': ('train_dataloader', 'num_workers'),
}
_OLD_ONLY_WITH = {'data': ('train', 'val', 'test', 'samples_per_gpu'), 'runner': ('max_epochs', 'max_iters')}


def keys_without_effect(cfg: Mapping[str, Any], options: Iterable[str] = ()) -> list[str]:
    """Say what has no effect, or another effect than it seems to have.

    Args:
        cfg: A whole config, with the options merged.
        options: Dotted names that `--cfg-options` gave.
    """
    options, old = list(options), list(_old_keys(cfg))
    told = [option for option in options if not any(f' {option.split(".")[0]} (now' in text for text in old)]
    return [*old, *_variables(cfg, told), *_misspelt(cfg), *_angle_versions(cfg, options)]


def _old_keys(cfg: Mapping[str, Any]) -> Iterator[str]:
    found = []
    for key, instead in OLD.items():
        value = cfg.get(key)
        if value is None or value in ([], {}, False):
            continue
        if key in _OLD_ONLY_WITH and not (isinstance(value, Mapping) and set(value) & set(_OLD_ONLY_WITH[key])):
            continue
        if not _in_use(cfg, key, value):
            found.append(f'{key} (now {instead})')
    if found:
        yield f'the config has keys of mmdet 2 and mmrotate 0.x, which have no effect: {", ".join(found)}'


def _in_use(cfg: Mapping[str, Any], key: str, value: Any) -> bool:
    place: Any = cfg
    for step in _IN_USE.get(key, ()):
        place = place.get(step) if isinstance(place, Mapping) else None
    if place is None:
        return False
    if isinstance(value, Mapping) and isinstance(place, Mapping):
        common = set(value) & set(place)
        return bool(common) and all(_plain(value[name]) == _plain(place[name]) for name in common)
    return value == place


def _variables(cfg: Mapping[str, Any], options: Iterable[str]) -> Iterator[str]:
    """Say which options change a variable after it was used."""
    for option in options:
        top, _, rest = option.partition('.')
        if top in READ or top not in cfg:
            continue
        name = option.rpartition('.')[2]
        places = [place for place in _places(cfg, name) if place.partition('.')[0] in READ]
        instead = f': set what was made of it, such as {", ".join(places[:3])}' if places else ''
        whose = f"'{top}', which holds it," if rest else 'it'
        yield (
            f'--cfg-options {option} has no effect: {whose} is a variable of the config, which was used when the file '
            f'was read{instead}'
        )


def _places(node: Any, name: str, path: str = '') -> Iterator[str]:
    """Yield the places of a key, except those that `_base_` and lists of pipelines repeat."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            inner = f'{path}.{key}' if path else str(key)
            if key == name and path:
                yield inner
            yield from _places(value, name, inner)
    elif isinstance(node, (list, tuple)):
        for i, value in enumerate(node):
            yield from _places(value, name, f'{path}.{i}')


def _misspelt(cfg: Mapping[str, Any]) -> Iterator[str]:
    known = [key for key in sorted(READ) if not key.startswith('tta_')]
    for key in cfg:
        if key in READ or key in OLD or not isinstance(cfg[key], (Mapping, list, tuple)):
            continue
        close = difflib.get_close_matches(key, known, n=1, cutoff=0.9)
        if close:
            yield f"the config's '{key}' has no effect, unless it is a variable; did you mean '{close[0]}'?"


def _angle_versions(cfg: Mapping[str, Any], options: Iterable[str]) -> Iterator[str]:
    """Say where angle conventions of a detector's parts differ, and if the top level has one that no part has."""
    places: dict[str, Any] = {}
    for part in ('model', 'train_dataloader', 'val_dataloader', 'test_dataloader'):
        places |= {place: _at(cfg, place) for place in _places(cfg.get(part), 'angle_version', part)}
    versions = {place: version for place, version in places.items() if isinstance(version, str)}
    if len(set(versions.values())) > 1:
        texts = []
        for version in sorted(set(versions.values())):
            found = [place for place, other in versions.items() if other == version]
            texts.append(f"'{version}' in {', '.join(found[:3])}")
        yield f'angle_version differs between parts that exchange angles: {"; ".join(texts)}. Write the same everywhere'
    top = cfg.get('angle_version')
    if top is None or 'angle_version' in options or top in versions.values():
        return  # of options, `_variables` tells
    if versions:
        yield (
            f"angle_version='{top}' at the top level of the config has no effect: {next(iter(versions))} is "
            f"'{next(iter(versions.values()))}'"
        )
    elif 'mmrotate' in str(cfg.get('default_scope')):
        yield f"angle_version='{top}' at the top level of the config has no effect: no part of the model has one"


def _at(cfg: Any, place: str) -> Any:
    for step in place.split('.'):
        cfg = cfg[int(step)] if isinstance(cfg, (list, tuple)) else cfg[step]
    return cfg


def _plain(value: Any) -> Any:
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else value
