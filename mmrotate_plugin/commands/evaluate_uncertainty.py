"""Compare uncertainty methods on corrupted images."""

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS

from .. import adf
from ..apis.checkpoint import load_weights, read_checkpoint
from ..apis.config import load_config
from ..apis.inference import build_model, select_device
from ..apis.runner import threaded_evaluation, writable_folder
from ..datasets.transforms.corruptions import Corruption
from ..engine.checks import before_run
from ..engine.checks.evaluation_setup import why_no_truth
from ..engine.checks.head_classes import classes_of
from ..engine.checks.input_images import check_first_image
from ..evaluation.method_comparison import METHODS, Evaluation, Plan
from ..evaluation.method_tables import markdown, summarise
from ..models.detectors.uncertain_detector import UncertainDetector
from ..utils.atomic_files import write_json, write_whole
from ..utils.errors import UsageError


def evaluate_uncertainty(args: argparse.Namespace) -> None:
    """Evaluate each checkpoint under each condition; rewrite the tables after each condition."""
    plan = make_plan(args)
    out = writable_folder(args.out, '--out')
    cfg = load_config(args.config, args.cfg_options)
    checkpoints = {path: read_checkpoint(path) for path in args.checkpoints}
    facts = {'config': args.config, 'checkpoints': args.checkpoints, 'plan': plan.as_dict()}
    results: dict[str, dict[str, Any]] = {path: {} for path in checkpoints}
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


def conditions(runs: Mapping[str, Evaluation]) -> Iterator[tuple[Any, ...]]:
    """Evaluate all checkpoints condition by condition, so that an interrupted run has complete conditions.

    Raises:
        UsageError: If the detector or its data cannot be evaluated.
    """
    try:
        yield from zip(*(evaluation.run() for evaluation in runs.values()), strict=True)
    except (ValueError, TypeError, adf.NoMomentRule) as error:
        raise UsageError(f'the evaluation cannot go on: {error}') from error


def make_plan(args: argparse.Namespace) -> Plan:
    """Turn the options into a plan.

    Raises:
        UsageError: If an option is out of range.
    """
    if len(set(args.checkpoints)) < len(args.checkpoints):
        raise UsageError('a checkpoint is named twice; each must be of a training run of its own')
    try:
        return Plan(
            tuple(Corruption.parse(text) for text in args.corruptions),
            tuple(args.methods or METHODS), args.num_images, args.num_fit, args.num_samples, args.dropout_samples,
            args.num_jacobian, args.assumed_noise, args.seed,
        )  # fmt: skip
    except ValueError as error:
        raise UsageError(str(error)) from error


def make(args: argparse.Namespace, cfg: Config, checkpoint: dict[str, Any], path: str, plan: Plan) -> Evaluation:
    """Prepare the evaluation of one checkpoint.

    Raises:
        UsageError: If model, weights, data and plan do not fit together.
    """
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
        test, val = (DATASETS.build(cfg[f'{part}_dataloader'].dataset) for part in ('test', 'val'))
        reason = why_no_truth(test)
        if reason:
            raise UsageError(f'test_dataloader has no ground truth to evaluate with: {reason}')
        for part, dataset in (('test', test), ('val', val)):
            before_run.check_heads(model, dataset, f'{part}_dataloader')
            check_first_image(model, dataset)
            before_run.check_classes(cfg, checkpoint, path, classes_of(dataset))
        evaluator = Evaluator([metric for metric in metrics if 'UncertaintyMetric' not in str(metric['type'])])
        evaluator.dataset_meta = test.metainfo
        return Evaluation(model, test, val, evaluator, plan)
    except (KeyError, ValueError, IndexError, OSError) as error:
        raise UsageError(f"checkpoint '{path}' cannot be evaluated: {error}") from error
