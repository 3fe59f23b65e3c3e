"""Read configs, apply the options of the command line, and check what they name."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction

from ..engine.checks.class_mixups import find_mixups
from ..engine.checks.config_keys import READ, keys_without_effect
from ..engine.checks.config_types import wrong_types
from ..engine.checks.dataset_classes import find_class_faults
from ..engine.checks.input_images import check_config
from ..utils.errors import UsageError
from ..utils.messages import first_line, similar_path, warn, why_no_file


def load_config(path: str, options: Mapping[str, Any] | Sequence[str] | None = None) -> Config:
    """Read a config, merge `--cfg-options`, register what it refers to, warn of names that find another class.

    Args:
        path: The config file.
        options: Values by their dotted names, or texts ``name=value`` as typed.

    Raises:
        UsageError: If the file, one of its bases, or an import is missing or wrong, or an option, or the classes of a
            data set.
    """
    options = options if isinstance(options, Mapping) else parse_options(options or ())
    file = Path(path)
    if not file.is_file():
        raise UsageError(f"config '{path}' {why_no_file(file)}{similar_path(file)}")
    if file.suffix not in ('.py', '.json', '.yaml', '.yml'):
        raise UsageError(f"config '{path}' is not a config file; it must end with .py, .json or .yaml")
    register_hosts()
    try:
        cfg = Config.fromfile(file)
    except Exception as error:  # a config is a program: it can fail in any way
        raise UsageError(f"config '{path}' cannot be read: {type(error).__name__}: {error}") from error
    for key in options:
        if key.split('.')[0] not in cfg and key.split('.')[0] not in READ:
            warn(f"--cfg-options: the config has no '{key.split('.')[0]}'; '{key}' is added, is it misspelt?")
    try:
        cfg.merge_from_dict(dict(options))
    except (KeyError, TypeError, IndexError, ValueError, AssertionError) as error:
        raise UsageError(f'--cfg-options {dict(options)} do not fit the config: {error}') from error
    if 'model' not in cfg:
        raise UsageError(f"config '{path}' has no 'model'; it may be one of the parts in _base_")
    if not isinstance(cfg.model, Mapping):
        raise UsageError(f"config '{path}': model cannot be built from {cfg.model!r}; it must be a dict with a 'type'")
    for text in wrong_types(cfg):
        raise UsageError(f"config '{path}': {text}")
    scope = cfg.get('default_scope')
    if scope == 'mmrotate' and 'mmrotate' not in sys.modules:
        raise UsageError(f"config '{path}' has default_scope = 'mmrotate', but mmrotate is not installed")
    for text in find_class_faults(cfg)[:1]:
        raise UsageError(text)
    check_config(cfg)
    for text in (*find_mixups(cfg), *keys_without_effect(cfg, options)):
        warn(text)
    return cfg


def parse_options(pairs: Sequence[str]) -> dict[str, Any]:
    """Parse ``name=value ...`` with mmengine's DictAction, which alone ends in a traceback if ``=`` is missing.

    Raises:
        UsageError: If one of them is not of that form, or its brackets do not match.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument('values', nargs='+', action=DictAction)
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, _ = pair.partition('=')
        if not equals or not all(name.split('.')):
            raise UsageError(f"--cfg-options '{pair}': must be NAME=VALUE, such as optim_wrapper.optimizer.lr=0.01")
        try:
            options.update(parser.parse_args(['--', pair]).values)
        except (ValueError, AssertionError, IndexError, RecursionError) as error:
            raise UsageError(f"--cfg-options '{pair}': the value cannot be read ({first_line(error)})") from error
    return options


def register_hosts() -> None:
    """Import mmdet and, where it is installed, mmrotate, so that their registries are full.

    Raises:
        UsageError: If mmdet is missing, or a version does not go with the others.
    """
    for host in ('mmdet', 'mmrotate'):
        try:
            utils = import_module(f'{host}.utils')
        except ModuleNotFoundError as error:
            if error.name == host == 'mmrotate':
                continue  # mmdet's own detectors do without
            raise UsageError(
                f"{host} cannot be imported: no module '{error.name}'; install onedl-mmdetection and onedl-mmrotate, "
                'or the original mmdet and mmrotate'
            ) from error
        except Exception as error:  # the hosts assert each other's versions; old ones use what Python no longer has
            raise UsageError(f'{host} cannot be imported: {type(error).__name__}: {first_line(error)}') from error
        register = getattr(utils, 'register_all_modules', None)
        if register is not None:
            register(init_default_scope=False)
        else:
            for part in ('datasets', 'engine', 'evaluation', 'models', 'visualization'):
                import_module(f'{host}.{part}')
