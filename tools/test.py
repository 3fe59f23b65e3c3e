#!/usr/bin/env python
"""Test a detector: python tools/test.py CONFIG CHECKPOINT. Prints the table of the metric, writes it as JSON."""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works uninstalled


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Test a detector. The metrics end up in test_metrics.json in the work directory.'
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--work-dir', help='output folder (default: work_dir of the config, or work_dirs/<config>)')
    parser.add_argument('--out', help='write all predictions to this pickle file (.pkl)')
    parser.add_argument('--show-dir', help='write pictures there: ground truth and prediction side by side')
    parser.add_argument('--show-num', type=int, default=-1, help='number of pictures (default: -1, all)')
    parser.add_argument('--show-score-thr', type=float, default=0.3, help='draw detections from this score on')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='change the config, see train.py')
    parser.add_argument(
        '--unsafe-checkpoint', action='store_true', help='take any pickle for a checkpoint, and run what it says'
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by the launcher')
    args = parser.parse_args(argv)
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        parser.error(f"--out must end with .pkl or .pickle, not '{args.out}'")
    if args.show_num < -1:
        parser.error(f'--show-num must be -1 (all) or more, not {args.show_num}')
    return args


def test(args: argparse.Namespace) -> None:
    from mmengine.dist import is_main_process
    from mmengine.evaluator import DumpResults

    from mmrotate_plugin.apis.checkpoint import load_weights, read_checkpoint
    from mmrotate_plugin.apis.config import load_config
    from mmrotate_plugin.apis.runner import (
        build_loop,
        build_runner,
        set_launcher,
        set_work_dir,
        shorten_log_interval,
        threaded_evaluation,
        writable_folder,
    )
    from mmrotate_plugin.engine.checks import before_run
    from mmrotate_plugin.engine.checks.head_classes import classes_of
    from mmrotate_plugin.utils.atomic_files import write_json
    from mmrotate_plugin.utils.errors import UsageError

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
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), {'type': 'mmrotate_plugin.LimitsHook'}]
    if args.out:
        writable_folder(Path(args.out).parent, '--out')
        if Path(args.out).is_dir():
            raise UsageError(f"--out '{args.out}' is a folder; give the name of a file that ends with .pkl")
    # of a training, only the model is needed; its data need not be there
    cfg.train_cfg = cfg.train_dataloader = cfg.optim_wrapper = cfg.param_scheduler = None
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.load_from, cfg.resume = args.checkpoint, False

    set_launcher(cfg, args.launcher, args.local_rank)
    runner = build_runner(cfg)
    load_weights(runner.model, checkpoint, args.checkpoint)
    loop = build_loop(runner, 'test')
    before_run.check_classes(cfg, checkpoint, args.checkpoint, classes_of(loop.dataloader.dataset))
    del checkpoint
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
            path = write_json(work_dir / 'test_metrics.json', report)
            runner.logger.info(f'metrics: {path}')
    finally:
        if partial and is_main_process():
            Path(partial).unlink(missing_ok=True)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    from mmrotate_plugin.apis.run_command import run

    return run(test, args)


if __name__ == '__main__':
    sys.exit(main())
