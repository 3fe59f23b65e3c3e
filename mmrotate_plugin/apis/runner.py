"""Build the runner of a config, its loops and its work directory."""

import os
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import LoggerHook
from mmengine.runner import Runner

from ..datasets.utils.path_check import files_outside
from ..engine.checks.before_run import check_data
from ..engine.checks.compiled_operators import check_operators
from ..engine.checks.dataset_classes import has_objects, reader_hint
from ..engine.checks.evaluation_setup import prepare_evaluation
from ..engine.checks.input_images import check_first_image
from ..evaluation.mmrotate_map import mended_evaluation
from ..models.utils.group_check import check_groups
from ..utils.atomic_files import write_whole
from ..utils.errors import InputError, UsageError
from ..utils.messages import reason_of, some


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
    cfg.model_wrapper_cfg = {
        'type': 'mmrotate_plugin.CPUDistributedDataParallel',
        'device_ids': None,
        'broadcast_buffers': False,
        'find_unused_parameters': cfg.get('find_unused_parameters', False),
    }


def build_runner(cfg: Config) -> Runner:
    """Build the runner of a config.

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
    except InputError:
        raise
    except NotImplementedError as error:
        raise UsageError(f'the model cannot run here: {error}') from error
    except (KeyError, ValueError, TypeError, AttributeError, AssertionError, FileNotFoundError) as error:
        raise UsageError(f'the config cannot be built: {reason_of(error)}') from error
    return runner


def build_loop(runner: Runner, part: str) -> Any:
    """Build the train, val or test loop, and with it its data set.

    Raises:
        UsageError: If files of the data set are missing or wrong, it has no images, or its annotations name files
            outside of its folders, or its classes are not those of the model's heads and of the pipeline.
    """
    config = runner.cfg.get(f'{part}_dataloader')
    if config is None:
        raise UsageError(f'the config has no {part}_dataloader; the {part} loop needs it')
    where = data_place(config.get('dataset', {}))
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
    check_first_image(runner.model, loop.dataloader.dataset)
    outside = files_outside(loop.dataloader.dataset)
    if outside:
        raise UsageError(
            f'the annotations of {part}_dataloader name {len(outside)} files outside of the data folder '
            f'({some(outside, 3)}; {where}): correct them, or set data_root to a folder that holds all of them'
        )
    check_data(runner, loop.dataloader.dataset, part)
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


def data_place(dataset: Mapping[str, Any]) -> str:
    """Name the keys of a data set's config that say where its data are."""
    while isinstance(dataset.get('dataset'), Mapping):  # RepeatDataset and its like
        dataset = dataset['dataset']
    keys = ('type', 'data_root', 'ann_file', 'data_prefix')
    return ', '.join(f'{key}={_plain(dataset[key])!r}' for key in keys if dataset.get(key)) or 'no path given'


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def threaded_evaluation() -> AbstractContextManager[None]:
    """Mend mmrotate's own mAP, which then counts matches in threads; see `evaluation.mmrotate_map`."""
    return mended_evaluation()


def shorten_log_interval(runner: Runner, iterations: int, options: Iterable[str] | None) -> None:
    """Log about twenty times or more, so that short runs show progress too, unless --cfg-options set the interval."""
    if any(key.startswith('default_hooks.logger') for key in options or ()):
        return
    wanted = max(1, iterations // 20)
    for hook in runner.hooks:
        if isinstance(hook, LoggerHook) and hook.interval > wanted:
            runner.logger.info(f'log every {wanted} of the {iterations} iterations (config: {hook.interval})')
            hook.interval = wanted
