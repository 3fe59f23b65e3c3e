"""Test a model and write its metrics."""

import argparse
import os
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.evaluator import DumpResults
from mmengine.runner import Runner

from ..apis.checkpoint import load_weights, read_checkpoint
from ..apis.config import load_config
from ..apis.runner import (
    build_loop,
    build_runner,
    set_launcher,
    set_work_dir,
    shorten_log_interval,
    threaded_evaluation,
    writable_folder,
)
from ..apis.test_time_augmentation import augment_runner, judge_views, set_augmented_pipeline
from ..engine.checks import before_run
from ..engine.checks.head_classes import classes_of
from ..evaluation import ViewAgreementMetric
from ..utils.atomic_files import write_json
from ..utils.errors import UsageError
from ..utils.messages import warn
from ..visualization.plots.turned_table import turned_table


def test(args: argparse.Namespace) -> None:
    """Test as the options say; metrics go into test_metrics.json in the work directory."""
    cfg = load_config(args.config, args.cfg_options)
    checkpoint = read_checkpoint(args.checkpoint)
    work_dir = set_work_dir(cfg, args.work_dir, args.config)
    if cfg.get('test_cfg') is None or cfg.get('test_evaluator') is None:
        raise UsageError(f"config '{args.config}' has no test_cfg or no test_evaluator: it cannot be tested")
    if args.show_dir:
        writable_folder(args.show_dir, '--show-dir')
        others = [h for h in cfg.get('custom_hooks') or [] if 'DetectionPicturesHook' not in str(h.get('type'))]
        pictures = {
            'type': 'mmrotate_plugin.DetectionPicturesHook',
            'max_pictures': args.show_num,
            'score_thr': args.show_score_thr,
            'out_dir': args.show_dir,
        }
        cfg.custom_hooks = [*others, pictures]
    hooks = [*(cfg.get('custom_hooks') or []), {'type': 'mmrotate_plugin.LimitsHook'}]
    if not args.no_report and not any('ReportHook' in str(hook.get('type')) for hook in hooks):
        hooks.append({'type': 'mmrotate_plugin.ReportHook'})
    cfg.custom_hooks = hooks
    if args.out:
        writable_folder(Path(args.out).parent, '--out')
        if Path(args.out).is_dir():
            raise UsageError(f"--out '{args.out}' is a folder; give the name of a file that ends with .pkl")
    # only the model is needed of what the config says about training; its data may be absent
    cfg.train_cfg = cfg.train_dataloader = cfg.optim_wrapper = cfg.param_scheduler = None
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.load_from, cfg.resume = args.checkpoint, False

    if args.tta:
        set_augmented_pipeline(cfg)
    set_launcher(cfg, args.launcher, args.local_rank)
    runner = build_runner(cfg)
    load_weights(runner.model, checkpoint, args.checkpoint)
    loop = build_loop(runner, 'test')
    before_run.check_classes(cfg, checkpoint, args.checkpoint, classes_of(loop.dataloader.dataset))
    del checkpoint
    agreement = augment(runner, cfg) if args.tta else None
    shorten_log_interval(runner, len(runner.test_dataloader), args.cfg_options)
    partial = None
    if args.out:
        partial = str(Path(args.out).with_name(f'.{Path(args.out).stem}.partial.pkl'))
        runner.test_evaluator.metrics.append(DumpResults(out_file_path=partial))
    try:
        with threaded_evaluation():
            metrics = runner.test()
        if is_main_process():
            if partial:
                os.replace(partial, args.out)
                runner.logger.info(f'predictions: {args.out}')
            report = {'config': args.config, 'checkpoint': args.checkpoint, 'metrics': metrics}
            if agreement is not None:
                report['tta'] = tell_agreement(agreement, runner)
            path = write_json(work_dir / 'test_metrics.json', report)
            runner.logger.info(f'metrics: {path}')
    finally:
        if partial and is_main_process():
            Path(partial).unlink(missing_ok=True)


def augment(runner: Runner, cfg: Config) -> ViewAgreementMetric | None:
    """Let a runner test with augmentation; return the metric that compares the views, if they are kept."""
    augment_runner(runner, cfg)
    if not getattr(runner.model, 'keep_views', False):
        return None
    metric = ViewAgreementMetric()
    runner.test_evaluator.metrics.append(metric)
    return metric


def tell_agreement(metric: ViewAgreementMetric, runner: Runner) -> dict[str, Any]:
    """Log how far the views agree, and what contradicts the claim of an equivariant detector; return the numbers."""
    if not metric.report:
        return {}
    table = turned_table(metric.report['views'])
    runner.logger.info(f'agreement of the views, scores from {metric.score_thr:g} on\n{table}')
    wrong = judge_views(metric.report, getattr(runner.model, 'module', runner.model))
    for text in wrong:
        warn(text)
    return {**metric.report, 'contradictions': wrong}
