#!/usr/bin/env python
"""Compare ways to a detector's uncertainty: python tools/evaluate_uncertainty.py CONFIG CHECKPOINT ... --out DIR."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works uninstalled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mmengine.config import Config

    from mmrotate_plugin.evaluation.method_comparison import Evaluation, Plan

CORRUPTIONS = ('gaussian:4', 'gaussian:8', 'gaussian:16', 'impulse:8', 'blur:1')
EPILOG = """
Corruptions are gaussian:STD and impulse:STD (salt and pepper), standard deviations in grey levels; blur:PIXELS,
contrast:FACTOR, jpeg:QUALITY. Gains are fitted on images of the validation set with Gaussian noise of the level that
the detector is told; the error on the other half of the test images. DIR/uncertainty.json has all numbers, of each
checkpoint too, DIR/uncertainty.md the tables; both are written anew after each condition.
"""


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="How good a detector's standard deviations are on noisy images, of several ways to get them.",
        epilog=EPILOG,
    )
    parser.add_argument('config', help='config file, of a detector or of an UncertainDetector around one')
    parser.add_argument('checkpoints', nargs='+', metavar='checkpoint', help='checkpoint files, one for each training')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder of the results')
    parser.add_argument(
        '--corruptions', nargs='+', default=CORRUPTIONS, metavar='KIND:LEVEL',
        help=f'conditions (default: {" ".join(CORRUPTIONS)})',
    )  # fmt: skip
    parser.add_argument('--methods', nargs='+', metavar='METHOD', help='ways to the uncertainty (default: all)')
    parser.add_argument('--num-images', type=int, default=24, help='test images for the uncertainty (default 24)')
    parser.add_argument('--num-fit', type=int, default=8, help='validation images for the gains (default 8)')
    parser.add_argument('--num-samples', type=int, default=100, help='passes of Monte Carlo over noise (default 100)')
    parser.add_argument('--dropout-samples', type=int, default=30, help='passes of Monte Carlo dropout (default 30)')
    parser.add_argument('--num-jacobian', type=int, default=2, help='test images for the Jacobian (default 2)')
    parser.add_argument(
        '--assumed-noise', type=float, default=4.0,
        help='grey levels that the detector is told where the corruption is no noise (default 4)',
    )  # fmt: skip
    parser.add_argument('--seed', type=int, default=0, help='of corruptions and passes (default 0)')
    parser.add_argument('--device', help='cpu, cuda:0, ... (default: a GPU if there is one)')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='change the config, see train.py')
    parser.add_argument(
        '--unsafe-checkpoint', action='store_true', help='take any pickle for a checkpoint, and run what it says'
    )
    return parser.parse_args(argv)


def evaluate(args: argparse.Namespace) -> None:
    from mmrotate_plugin.apis.checkpoint import read_checkpoint
    from mmrotate_plugin.apis.config import load_config
    from mmrotate_plugin.apis.runner import threaded_evaluation, writable_folder
    from mmrotate_plugin.evaluation.method_tables import markdown, summarise
    from mmrotate_plugin.utils.atomic_files import write_json, write_whole

    plan = make_plan(args)
    out = writable_folder(args.out, '--out')
    cfg = load_config(args.config, args.cfg_options)
    checkpoints = {path: read_checkpoint(path) for path in args.checkpoints}
    facts = {'config': args.config, 'checkpoints': args.checkpoints, 'plan': plan.as_dict()}
    results: dict[str, dict] = {path: {} for path in checkpoints}
    tables = ''
    with threaded_evaluation():
        runs = {path: make(args, cfg, checkpoints[path], path, plan) for path in checkpoints}
        for done in conditions(runs):
            for path, (name, result) in zip(runs, done, strict=True):
                results[path][name] = result
            print(f'{done[0][0]}: done', flush=True)
            summary = summarise(list(results.values()))
            tables = markdown(summary)
            write_json(out / 'uncertainty.json', {**facts, 'summary': summary, 'each': results})
            write_whole(out / 'uncertainty.md', tables)
    print(tables)


def conditions(runs: dict[str, 'Evaluation']) -> 'Iterator[tuple]':
    """Of all trainings, condition by condition, so that an interrupted run has whole ones.

    Raises:
        UsageError: If the detector or its data are not fit for it.
    """
    from mmrotate_plugin import adf
    from mmrotate_plugin.utils.errors import UsageError

    try:
        yield from zip(*(evaluation.run() for evaluation in runs.values()), strict=True)
    except (ValueError, TypeError, adf.NoMomentRule) as error:
        raise UsageError(f'the evaluation cannot go on: {error}') from error


def make_plan(args: argparse.Namespace) -> 'Plan':
    """The options as a plan.

    Raises:
        UsageError: For options out of range.
    """
    from mmrotate_plugin.datasets.transforms.corruptions import Corruption
    from mmrotate_plugin.evaluation.method_comparison import METHODS, Plan
    from mmrotate_plugin.utils.errors import UsageError

    if len(set(args.checkpoints)) < len(args.checkpoints):
        raise UsageError('a checkpoint is named twice; each must be of another training')
    try:
        return Plan(
            tuple(Corruption.parse(text) for text in args.corruptions),
            tuple(args.methods or METHODS), args.num_images, args.num_fit, args.num_samples, args.dropout_samples,
            args.num_jacobian, args.assumed_noise, args.seed,
        )  # fmt: skip
    except ValueError as error:
        raise UsageError(str(error)) from error


def make(args: argparse.Namespace, cfg: 'Config', checkpoint: dict, path: str, plan: 'Plan') -> 'Evaluation':
    """The evaluation of one checkpoint.

    Raises:
        UsageError: If model, weights, data or plan do not go together.
    """
    from mmengine.evaluator import Evaluator
    from mmengine.registry import DATASETS

    from mmrotate_plugin.apis.checkpoint import load_weights
    from mmrotate_plugin.apis.inference import build_model, select_device
    from mmrotate_plugin.engine.checks import before_run
    from mmrotate_plugin.engine.checks.evaluation_setup import why_no_truth
    from mmrotate_plugin.engine.checks.head_classes import classes_of
    from mmrotate_plugin.engine.checks.input_images import check_first_image
    from mmrotate_plugin.evaluation.method_comparison import Evaluation
    from mmrotate_plugin.models.detectors.uncertain_detector import UncertainDetector
    from mmrotate_plugin.utils.errors import UsageError

    missing = [key for key in ('test_dataloader', 'test_evaluator', 'val_dataloader') if not cfg.get(key)]
    if missing:
        raise UsageError(f"config '{args.config}' has no {missing[0]}, which the evaluation needs")
    model = build_model(cfg)
    load_weights(model, checkpoint, path)
    if not isinstance(model, UncertainDetector):
        model = UncertainDetector(model, noise_std=plan.assumed_noise)
    model.to(select_device(args.device)).eval()
    metrics = cfg.test_evaluator if isinstance(cfg.test_evaluator, (list, tuple)) else [cfg.test_evaluator]
    try:
        data = [DATASETS.build(cfg[f'{part}_dataloader'].dataset) for part in ('test', 'val')]
        reason = why_no_truth(data[0])
        if reason:
            raise UsageError(f'test_dataloader has no ground truth to evaluate with: {reason}')
        for part, dataset in zip(('test', 'val'), data, strict=True):
            before_run.check_heads(model, dataset, f'{part}_dataloader')
            check_first_image(model, dataset)
            before_run.check_classes(cfg, checkpoint, path, classes_of(dataset))
        evaluator = Evaluator([metric for metric in metrics if 'UncertaintyMetric' not in str(metric['type'])])
        evaluator.dataset_meta = data[0].metainfo
        return Evaluation(model, *data, evaluator, plan)
    except (KeyError, ValueError, IndexError, OSError) as error:
        raise UsageError(f"checkpoint '{path}' cannot be evaluated: {error}") from error


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    from mmrotate_plugin.apis.run_command import run

    return run(evaluate, args)


if __name__ == '__main__':
    sys.exit(main())
