"""Train a model, from scratch or resumed."""

import argparse
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from mmengine.config import Config

from ..apis.checkpoint import load_weights, read_checkpoint
from ..apis.config import load_config
from ..apis.runner import (
    build_loop,
    build_runner,
    set_launcher,
    set_work_dir,
    shorten_log_interval,
    threaded_evaluation,
)
from ..engine.checks import before_run
from ..engine.checks.resumed_run import settle_schedule
from ..engine.runner.work_dir_checkpoints import DiskFullError, damage, explain_full_disk, training_checkpoints
from ..utils.errors import InputError, UsageError
from ..utils.messages import first_line, warn


def train(args: argparse.Namespace) -> None:
    """Train as the options say; everything goes into the work directory."""
    cfg = load_config(args.config, args.cfg_options)
    work_dir = set_work_dir(cfg, args.work_dir, args.config)
    if cfg.get('train_cfg') is None or cfg.get('optim_wrapper') is None:
        raise UsageError(f"config '{args.config}' has no train_cfg or no optim_wrapper: it cannot be trained")
    change_config(cfg, args)
    checkpoint = None
    if args.resume:
        checkpoint = prepare_resume(cfg, args, work_dir)
    elif cfg.get('load_from') and '://' not in cfg.load_from:
        read_checkpoint(cfg.load_from, 'load_from')
    cfg.resume = checkpoint is not None

    set_launcher(cfg, args.launcher, args.local_rank)
    try:
        with explain_full_disk():
            run_training(cfg, args, work_dir, checkpoint)
    except URLError as error:
        raise UsageError(
            f'pretrained weights cannot be downloaded ({error.reason}); put the file where init_cfg says, or '
            'train without: --cfg-options model.backbone.init_cfg=None'
        ) from error
    except DiskFullError as error:
        raise UsageError(
            f'the disk is full: {error}. {last_of(work_dir)}; make room, then the same command with --resume goes on'
        ) from error
    except FloatingPointError as error:
        raise UsageError(
            f'the training diverged: {error}. {last_of(work_dir)}. A lower learning rate (--cfg-options '
            'optim_wrapper.optimizer.lr=...) or clipping (optim_wrapper.clip_grad.max_norm=...) may help'
        ) from error
    except (NotImplementedError, RuntimeError, TypeError) as error:
        if args.amp and 'bfloat16' in str(error).lower().replace(' ', ''):
            raise UsageError(
                f'--amp: this model uses an operation that has no bfloat16 on the CPU ({first_line(error)}); '
                'train without --amp, or on a GPU'
            ) from error
        raise


def change_config(cfg: Config, args: argparse.Namespace) -> None:
    """Apply the options to a config and add the hooks of this command."""
    if args.amp:
        use_amp(cfg)
    if args.accumulate is not None:
        cfg.optim_wrapper.accumulative_counts = args.accumulate
    if args.auto_scale_lr:
        scale = cfg.get('auto_scale_lr')
        if not scale or 'base_batch_size' not in scale:
            raise UsageError(
                '--auto-scale-lr: the config does not say for which batch size its learning rate is meant; add '
                'auto_scale_lr = dict(base_batch_size=...)'
            )
        scale.enable = True
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.seed is not None:
        cfg.randomness = {**(cfg.get('randomness') or {}), 'seed': args.seed}
    hooks = list(cfg.get('custom_hooks') or [])
    names = ['ExactResumeHook', 'StopAtDivergenceHook', 'LimitsHook', *([] if args.no_report else ['ReportHook'])]
    for name in names:
        if not any(name in str(hook.get('type')) for hook in hooks):
            hooks.append(dict(type=f'mmrotate_plugin.{name}'))
    if args.pictures and not any('DetectionPicturesHook' in str(hook.get('type')) for hook in hooks):
        hooks.append(dict(type='mmrotate_plugin.DetectionPicturesHook', max_pictures=args.pictures))
    cfg.custom_hooks = hooks
    default_hooks = cfg.get('default_hooks') or {}
    saves = default_hooks.get('checkpoint', dict(type='CheckpointHook', interval=1))
    if saves is not None and str(saves.get('type')) in ('CheckpointHook', 'mmengine.CheckpointHook'):
        cfg.default_hooks = {**default_hooks, 'checkpoint': {**saves, 'type': 'mmrotate_plugin.WholeCheckpointHook'}}
    if args.tensorboard:
        use_tensorboard(cfg)


def prepare_resume(cfg: Config, args: argparse.Namespace, work_dir: Path) -> dict[str, Any] | None:
    """Read the checkpoint to resume from, and write it and its seed into the config."""
    if args.resume == 'auto':
        path, checkpoint = read_last(work_dir)
        if checkpoint is None:
            warn(f"--resume: no checkpoint in '{work_dir}'; the training starts from the beginning")
            return None
    else:
        path, checkpoint = args.resume, read_checkpoint(args.resume, '--resume')
    absent = [key for key in ('optimizer', 'message_hub') if key not in checkpoint]
    absent += [f'meta.{key}' for key in ('epoch', 'iter') if key not in checkpoint['meta']]
    if absent:
        raise UsageError(
            f"--resume '{path}' holds weights but no state of a training ({', '.join(absent)} missing); "
            f'to start a new training from them: --cfg-options load_from={path}'
        )
    try:
        for text in settle_schedule(cfg, checkpoint, args.resume_schedule):
            warn(f'--resume: {text}')
    except ValueError as error:
        raise UsageError(f"--resume '{path}': {error}") from error
    cfg.load_from = path
    seed = checkpoint['meta'].get('seed')
    if seed is not None and args.seed not in (None, seed):
        raise UsageError(f"--seed {args.seed}: the training of '{path}' has the seed {seed}; leave --seed out")
    if seed is not None:  # the data are shuffled by it before mmengine restores it
        cfg.randomness = {**(cfg.get('randomness') or {}), 'seed': seed}
    return checkpoint


def read_last(work_dir: Path) -> tuple[str, dict[str, Any] | None]:
    """Read the last intact checkpoint of the work directory; warn of damaged ones after it.

    Raises:
        UsageError: If there are checkpoints and all are damaged.
    """
    found = training_checkpoints(work_dir)
    for path in found:
        try:
            return str(path), read_checkpoint(str(path), '--resume')
        except InputError as error:
            warn(f'{error}; the one before it is tried')
    if found:
        raise UsageError(f"--resume: none of the {len(found)} checkpoints of '{work_dir}' is whole")
    return '', None


def last_of(work_dir: Path) -> str:
    """Say in a sentence, without full stop, which checkpoint is the last intact one."""
    whole = [path for path in training_checkpoints(work_dir) if damage(path) is None]
    return f'The last good checkpoint is {whole[0]}' if whole else 'There is no checkpoint yet'


def run_training(cfg: Config, args: argparse.Namespace, work_dir: Path, checkpoint: dict[str, Any] | None) -> None:
    """Build everything, check it, and train."""
    runner = build_runner(cfg)
    if checkpoint is not None:
        load_weights(runner.model, checkpoint, cfg.load_from)
    loop = build_loop(runner, 'train')
    if cfg.get('val_cfg') is not None:
        build_loop(runner, 'val')
    before_run.before_training(runner, checkpoint, args.resume_schedule)
    del checkpoint
    shorten_log_interval(runner, loop.max_iters, args.cfg_options)
    runner.logger.info(f'{len(loop.dataloader.dataset)} images, {loop.max_iters} iterations; output in {work_dir}')
    try:
        with threaded_evaluation():
            runner.train()
    except KeyboardInterrupt:
        runner.logger.warning(f'interrupted at iteration {runner.iter}; the same command with --resume goes on')
        raise
    runner.logger.info(f'finished after {runner.iter} iterations; checkpoints, log and pictures are in {work_dir}')


def use_tensorboard(cfg: Config) -> None:
    """Add mmengine's TensorBoard backend to the visualizer, and send the pictures of detections there."""
    try:
        import_module('torch.utils.tensorboard')
    except ImportError as error:
        raise UsageError(f'--tensorboard: {error}; pip install tensorboard') from error
    visualizer = cfg.get('visualizer') or dict(type='Visualizer')
    backends = visualizer.get('vis_backends') or [dict(type='LocalVisBackend')]
    if not any('TensorboardVisBackend' in str(backend['type']) for backend in backends):
        backends = [*backends, dict(type='TensorboardVisBackend')]
    cfg.visualizer = {**visualizer, 'vis_backends': backends}
    for hook in cfg.custom_hooks:
        if 'DetectionPicturesHook' in str(hook['type']):
            hook['to_backends'] = True


def use_amp(cfg: Config) -> None:
    """Switch the optimizer wrapper of a config to mixed precision."""
    kind = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if str(kind).rpartition('.')[2] not in ('OptimWrapper', 'AmpOptimWrapper', 'BFloat16OptimWrapper'):
        raise UsageError(f"--amp works with optim_wrapper.type='OptimWrapper', but the config has {kind!r}")
    if torch.cuda.is_available():
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
        return
    for key in ('loss_scale', 'dtype', 'use_fsdp'):  # arguments of AmpOptimWrapper
        cfg.optim_wrapper.pop(key, None)
    cfg.optim_wrapper.type = 'BFloat16OptimWrapper'
    warn('--amp without a GPU: bfloat16 autocast on the CPU, faster only on CPUs that compute in bfloat16')
