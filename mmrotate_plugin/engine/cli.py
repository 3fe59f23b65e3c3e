"""What the command-line tools share: one-line errors, configs, checkpoints that fit, work directories.

mmdet and mmrotate are imported by the functions that need them, so that `mmrotate_plugin.engine` works without.
"""

import argparse
import difflib
import json
import logging
import math
import os
import sys
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from copy import copy
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import torch
from mmengine.config import Config, DictAction
from mmengine.hooks import LoggerHook
from mmengine.logging import print_log
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from .. import checkpoints
from ..adf import NoDropout, NoMomentRule
from ..datasets.broken import BrokenFileError
from ..datasets.confinement import files_outside
from ..datasets.image_files import ImageKindError
from ..models.groups import check_groups
from ..models.weights import MisfitError
from .config_keys import READ, keys_without_effect
from .config_text import noted_config
from .config_types import wrong_types
from .dataset_check import find_class_faults, has_objects, reader_hint
from .evaluation_checks import prepare_evaluation
from .explanations import explain
from .files import write_whole
from .host_errors import TRACEBACK
from .host_evaluation import mended_evaluation
from .mixups import find_mixups
from .operators import check_operators

Args = TypeVar('Args')


class UsageError(Exception):
    """What the user gave cannot work; the message says what came and what would."""


def run(command: Callable[[Args], None], args: Args) -> int:
    """Run a command. Wrong input and broken files end it with one line on stderr and status 2, Ctrl-C with 130.

    What this package or a host refuses amid a run ends it in the same way, see `explain`.

    Checkpoints, whoever reads them meanwhile, are refused if they hold more than weights, unless
    `args.unsafe_checkpoint` is set.
    """
    try:
        with checkpoints.loading(unsafe=getattr(args, 'unsafe_checkpoint', None)):
            command(args)
    except (UsageError, checkpoints.CheckpointError, NoDropout, NoMomentRule) as error:
        print(f'error: {" ".join(str(error).split())}', file=sys.stderr)  # noqa: T201
        return 2
    except (BrokenFileError, ImageKindError) as error:  # from a data worker it comes with the traceback there
        print(f'error: {str(error).strip().splitlines()[-1].split(f"{type(error).__name__}: ")[-1]}', file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)  # noqa: T201
        return 130
    except Exception as error:
        text = explain(error)
        if text is None or os.environ.get(TRACEBACK, '0') != '0':
            raise
        print(f'error: {" ".join(text.split())}', file=sys.stderr)  # noqa: T201
        return 2
    return 0


def warn(text: str) -> None:
    print_log(text, logger='current', level=logging.WARNING)


def load_config(path: str, options: Mapping[str, Any] | Sequence[str] | None = None) -> Config:
    """Read a config, merge `--cfg-options`, register what it refers to, warn of names that find another class.

    Args:
        path: The config file.
        options: Values by their dotted names, or texts ``name=value`` as they are typed.

    Raises:
        UsageError: If the file, one of its bases, or an import is missing or wrong, or an option, or the classes of a
            data set.
    """
    options = options if isinstance(options, Mapping) else parse_options(options or ())
    file = Path(path)
    if not file.is_file():
        raise UsageError(f"config '{path}' {_why_no_file(file)}{_similar(file)}")
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
    import_module('mmrotate_plugin.engine.input_check').check_config(cfg)
    for text in (*find_mixups(cfg), *keys_without_effect(cfg, options)):
        warn(text)
    return cfg


def parse_options(pairs: Sequence[str]) -> dict[str, Any]:
    """What mmengine's DictAction makes of ``name=value ...``; it alone ends in a traceback for a missing ``=``.

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
    import_module('mmrotate_plugin')
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


def _why_no_file(path: Path) -> str:
    return 'is a folder, not a file' if path.is_dir() else 'does not exist'


def _similar(path: Path) -> str:
    """A suggestion for a misspelt path, from the folder where it should be, or from configs/."""
    folder = path.parent if path.parent.is_dir() else Path('configs')
    names = {file.name: file for file in sorted(folder.rglob(f'*{path.suffix}'))[:2000] if file.is_file()}
    close = difflib.get_close_matches(path.name, names, n=1)
    return f'; did you mean {names[close[0]]}?' if close else ''


def set_work_dir(cfg: Config, given: str | None, config_path: str) -> Path:
    """Choose the work directory (command line, then config, then work_dirs/<config>), make it, try to write there.

    Raises:
        UsageError: If it cannot be written.
    """
    cfg.work_dir = given or cfg.get('work_dir') or f'./work_dirs/{Path(config_path).stem}'
    return writable_folder(cfg.work_dir, '--work-dir')


def writable_folder(path: str | os.PathLike[str], option: str) -> Path:
    """Make a folder and try to write there before anything expensive begins."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / '.writable', b'').unlink(missing_ok=True)  # another rank may be faster
    except OSError as error:
        raise UsageError(f"{option} '{path}' cannot be written: {error.strerror or error}") from error
    return folder


def set_launcher(cfg: Config, launcher: str, local_rank: int) -> None:
    """Prepare distributed runs; on machines without a GPU, `--launcher pytorch` works with gloo."""
    os.environ.setdefault('LOCAL_RANK', str(local_rank))
    cfg.launcher = launcher
    if launcher == 'none' and 'TORCHELASTIC_RUN_ID' in os.environ and int(os.environ.get('WORLD_SIZE', 1)) > 1:
        raise UsageError(f'torchrun started {os.environ["WORLD_SIZE"]} processes: add --launcher pytorch')
    if launcher == 'none' or torch.cuda.is_available():
        return
    if launcher != 'pytorch' or 'RANK' not in os.environ:
        raise UsageError(
            f'--launcher {launcher} without a GPU: only --launcher pytorch, started by torchrun, works on CPUs'
        )
    # mmengine's own start-up selects a CUDA device; it leaves a group alone that exists already
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group('gloo')
    import_module('mmrotate_plugin.models.distributed')
    cfg.model_wrapper_cfg = {
        'type': 'CPUDistributedDataParallel',
        'device_ids': None,
        'broadcast_buffers': False,
        'find_unused_parameters': cfg.get('find_unused_parameters', False),
    }


def build_runner(cfg: Config) -> Runner:
    """The runner of a config.

    Raises:
        UsageError: If a name in the config is not registered, a file that it names is missing, an argument is refused,
            or the groups of two parts differ.
    """
    from mmengine.registry import RUNNERS

    try:
        runner = Runner.from_cfg(cfg) if 'runner_type' not in cfg else RUNNERS.build(cfg)
        model = getattr(runner.model, 'module', runner.model)
        check_groups(model)
        check_operators(model, training=cfg.get('train_cfg') is not None)
    except (checkpoints.CheckpointError, UsageError):
        raise
    except NotImplementedError as error:
        raise UsageError(f'the model cannot run here: {error}') from error
    except (KeyError, ValueError, TypeError, AttributeError, AssertionError, FileNotFoundError) as error:
        raise UsageError(f'the config cannot be built: {reason_of(error)}') from error
    return runner


def build_loop(runner: Runner, part: str) -> Any:
    """The train, val or test loop, hence its data set.

    Raises:
        UsageError: If files of the data set are missing or wrong, it has no images, or its annotations name files
            outside of its folders, or its classes are not those of the model's heads and of the pipeline.
    """
    config = runner.cfg.get(f'{part}_dataloader')
    if config is None:
        raise UsageError(f'the config has no {part}_dataloader; the {part} loop needs it')
    where = _data_place(config.get('dataset', {}))
    build_evaluator(runner, part)
    try:
        loop = getattr(runner, f'{part}_loop')
    except (KeyError, ValueError, TypeError, AttributeError, AssertionError, IndexError, OSError) as error:
        # what data sets raise about their arguments and files
        reason = f'{reason_of(error)}{reader_hint(config.get("dataset"))}'
        raise UsageError(f'the data of {part}_dataloader cannot be read ({where}): {reason}') from error
    if len(loop.dataloader.dataset) == 0:
        raise UsageError(f'the data set of {part}_dataloader has no images that can be used ({where})')
    if part == 'train' and not has_objects(loop.dataloader.dataset):
        raise UsageError(f'the data set of {part}_dataloader has no object; there is nothing to learn ({where})')
    import_module('mmrotate_plugin.engine.input_check').check_first_image(runner.model, loop.dataloader.dataset)
    outside = files_outside(loop.dataloader.dataset)
    if outside:
        raise UsageError(
            f'the annotations of {part}_dataloader name {len(outside)} files outside of the data folder '
            f'({_first(outside)}; {where}): correct them, or set data_root to a folder that holds all of them'
        )
    import_module('mmrotate_plugin.engine.checks').check_data(runner, loop.dataloader.dataset, part)
    if part != 'train':
        saves = (runner.cfg.get('default_hooks') or {}).get('checkpoint') or {}
        prepare_evaluation(loop, part, save_best=saves.get('save_best') if part == 'val' else None)
    return loop


def build_evaluator(runner: Runner, part: str) -> None:
    """Build the metrics before the data set, so that an error tells which of the two it is about.

    Raises:
        UsageError: If a metric is not registered, or refuses an argument.
    """
    config = getattr(runner, f'_{part}_evaluator', None)
    if not isinstance(config, (Mapping, list, tuple)):
        return
    try:
        setattr(runner, f'_{part}_evaluator', runner.build_evaluator(config))
    except (KeyError, ValueError, TypeError, AttributeError, AssertionError, OSError) as error:
        raise UsageError(f'{part}_evaluator cannot be built: {reason_of(error)}') from error


def _data_place(dataset: Mapping[str, Any]) -> str:
    """The keys of a dataset's config that say where its data are."""
    while isinstance(dataset.get('dataset'), Mapping):  # RepeatDataset and its like
        dataset = dataset['dataset']
    keys = ('type', 'data_root', 'ann_file', 'data_prefix')
    return ', '.join(f'{key}={_plain(dataset[key])!r}' for key in keys if dataset.get(key)) or 'no path given'


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def reason_of(error: Exception) -> str:
    """An error's text, without the quotes that KeyError adds."""
    if isinstance(error, (AttributeError, AssertionError)):  # not written for those who read it
        line = ''.join(place.line or '' for place in traceback.extract_tb(error.__traceback__)[-1:])
        return f'{type(error).__name__}: {error} ({line})'
    return str(error.args[0] if isinstance(error, KeyError) and error.args else error)


def threaded_evaluation() -> AbstractContextManager[None]:
    """Mend mmrotate's own mAP, which counts matches in threads then; see `host_evaluation`."""
    return mended_evaluation()


def shorten_log_interval(runner: Runner, iterations: int, options: Iterable[str] | None) -> None:
    """Log at least about twenty times, so that a short run shows its progress too; what --cfg-options say stays."""
    if any(key.startswith('default_hooks.logger') for key in options or ()):
        return
    wanted = max(1, iterations // 20)
    for hook in runner.hooks:
        if isinstance(hook, LoggerHook) and hook.interval > wanted:
            runner.logger.info(f'log every {wanted} of the {iterations} iterations (config: {hook.interval})')
            hook.interval = wanted


def read_checkpoint(path: str, option: str = 'checkpoint') -> dict[str, Any]:
    """Read a checkpoint to the CPU as `{'state_dict': ..., 'meta': ...}`.

    Raises:
        UsageError: If there is no such file, it is no checkpoint or not whole, or it holds more than weights (but see
            `run`).
    """
    try:
        if '://' in path:
            checkpoint = CheckpointLoader.load_checkpoint(path, map_location='cpu')
        else:
            checkpoint = checkpoints.load(path)
    except FileNotFoundError as error:
        raise UsageError(f"{option} '{path}' {_why_no_file(Path(path))}{_similar(Path(path))}") from error
    except checkpoints.CheckpointError as error:
        raise UsageError(f'{option} {error}') from error
    except OSError as error:
        raise UsageError(f"{option} '{path}' cannot be read: {error.strerror or error}") from error
    if isinstance(checkpoint, Mapping) and isinstance(checkpoint.get('state_dict'), Mapping):
        state, rest = checkpoint['state_dict'], checkpoint
    else:
        state, rest = checkpoint, {}
    if not isinstance(state, Mapping) or not any(isinstance(v, torch.Tensor) for v in state.values()):
        holds = sorted(map(str, state))[:5] if isinstance(state, Mapping) else type(state).__name__
        raise UsageError(f"{option} '{path}' is not a checkpoint of a model: it holds {holds}")
    metadata = getattr(state, '_metadata', {})
    state = OrderedDict((key.removeprefix('module.'), value) for key, value in state.items())
    state._metadata = metadata  # notes the group
    return {**rest, 'state_dict': state, 'meta': rest.get('meta') or {}}


def load_weights(model: nn.Module, checkpoint: Mapping[str, Any], path: str) -> None:
    """Load all weights of a checkpoint into a model, or refuse; warn of weights that are left over.

    mmengine loads what fits and logs the rest; a detector whose head was not loaded then finds nothing.

    Raises:
        UsageError: If parameters or statistics are missing, or have other shapes; says how many, which come first, and
            what the checkpoint seems to be.
    """
    model = model.module if hasattr(model, 'module') else model
    state, wrong = copy(checkpoint['state_dict']), []  # with its metadata
    try:
        result = model.load_state_dict(state, strict=False)
    except MisfitError as error:  # another depth, group or width, named by the backbone or the neck
        raise UsageError(f"checkpoint '{path}' does not fit the config's model: {error}") from error
    except RuntimeError as error:
        own = model.state_dict()
        for key in [k for k in state if k in own and own[k].shape != state[k].shape]:
            wrong.append(f'{key} (checkpoint {tuple(state[key].shape)}, model {tuple(own[key].shape)})')
            del state[key]
        if not wrong:
            raise UsageError(f"checkpoint '{path}' does not fit the model: {error}") from error
        result = model.load_state_dict(state, strict=False)
    refused = {text.split(' ')[0] for text in wrong}
    missing = [k for k in result.missing_keys if k not in refused and not k.endswith('num_batches_tracked')]
    if wrong or missing:
        parts = []
        if missing:
            parts.append(f'{len(missing)} weights of the model are missing in it ({_first(missing)})')
        if wrong:
            parts.append(f'{len(wrong)} have another shape ({_first(wrong)})')
        if result.unexpected_keys:
            parts.append(f'{len(result.unexpected_keys)} are unknown to the model ({_first(result.unexpected_keys)})')
        raise UsageError(
            f"checkpoint '{path}' does not fit the config's model: {'; '.join(parts)}. "
            f'The checkpoint seems to be {describe_checkpoint(checkpoint)}; the model is {describe_model(model)}'
        )
    if result.unexpected_keys:
        warn(
            f"checkpoint '{path}': {len(result.unexpected_keys)} weights are unknown to the model and were ignored "
            f'({_first(result.unexpected_keys)})'
        )


def _first(texts: Sequence[str], number: int = 3) -> str:
    return ', '.join(texts[:number]) + (', ...' if len(texts) > number else '')


def describe_checkpoint(checkpoint: Mapping[str, Any]) -> str:
    """What a checkpoint seems to be, from the config that mmengine stores, or else from its keys."""
    model = (noted_config(checkpoint) or {}).get('model')
    if isinstance(model, Mapping):  # else the keys tell something too
        return describe_config(model)
    keys = list(checkpoint['state_dict'])
    parts = sorted({key.split('.')[0] for key in keys})
    if {'conv1', 'layer1', 'fc'} <= set(parts):
        return f'a classification network ({len(keys)} weights: {_first(parts, 6)})'
    return f'a model with the parts {_first(parts, 6)} ({len(keys)} weights)'


def describe_config(model: Mapping[str, Any]) -> str:
    backbone = model.get('backbone') or {}
    depth = f'-{backbone["depth"]}' if 'depth' in backbone else ''
    group = f' ({backbone["group"]})' if 'group' in backbone else ''
    classes = [head.get('num_classes') for head in _heads(model) if head.get('num_classes')]
    count = f', {classes[0]} classes' if classes else ''
    return f'{model.get("type")} on {backbone.get("type")}{depth}{group}{count}'


def _heads(model: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    heads = [model.get('bbox_head'), (model.get('roi_head') or {}).get('bbox_head')]
    flat = [h for head in heads for h in (head if isinstance(head, list) else [head])]
    return [head for head in flat if isinstance(head, Mapping)]


def describe_model(model: nn.Module) -> str:
    backbone = getattr(model, 'backbone', None)
    if backbone is None:
        return type(model).__name__
    depth = f'-{backbone.depth}' if isinstance(getattr(backbone, 'depth', None), int) else ''
    return f'{type(model).__name__} on {type(backbone).__name__}{depth}'


def write_json(path: Path, value: Mapping[str, Any]) -> Path:
    """Write a dict of numbers and texts, whole; what is not a finite number becomes null, as JSON has no NaN."""

    def plain(item: Any) -> Any:
        if isinstance(item, Mapping):
            return {str(key): plain(part) for key, part in item.items()}
        if isinstance(item, (list, tuple)):
            return [plain(part) for part in item]
        if hasattr(item, 'tolist'):  # numpy, torch
            return plain(item.tolist())
        if isinstance(item, float):
            return item if math.isfinite(item) else None
        return item if isinstance(item, (str, int, bool)) or item is None else str(item)

    return write_whole(path, json.dumps(plain(value), indent=2, allow_nan=False) + '\n')


def first_line(error: BaseException) -> str:
    return str(error).strip().split('\n')[0]
