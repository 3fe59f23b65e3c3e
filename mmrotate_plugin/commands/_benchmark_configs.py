"""Time the models of whole configs against each other, for ``benchmark --configs``."""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..apis.benchmark.config_runs import inference_run, load_model, training_run
from ..apis.benchmark.measure import say
from ..apis.benchmark.timing import Row, clock, interleave, rows_of
from ..equivariant import export
from ..utils.errors import UsageError


def time_configs(args: argparse.Namespace, device: torch.device) -> list[Row]:
    """Time training steps and exported inference of each config beside the first, in interleaved pairs.

    Raises:
        UsageError: If two configs have one name.
    """
    names = [Path(config.split('::')[-1]).stem for config in args.configs]
    if len(set(names)) < len(names):
        raise UsageError(f'--configs: {", ".join(names)} must have different names, which the table tells them by')
    loaded = [load_model(config, args.cfg_options or (), device) for config in args.configs]
    pairs = [(names[0], name) for name in names[1:]]
    rows: list[Row] = []
    if 'train' in args.measures:
        steps = {
            name: training_run(cfg, model, args.batch_size) for name, (cfg, model) in zip(names, loaded, strict=True)
        }
        shapes = {run.shape for run in steps.values()}
        if len(shapes) > 1:
            raise UsageError(f'--configs: the batches of the configs have different shapes: {sorted(shapes)}')
        title = f'train, config {"x".join(map(str, shapes.pop()))}'
        rows += _pairs(title, pairs, args.rounds, {name: run.step for name, run in steps.items()}, device)
    if 'eval' in args.measures:
        models = [(model.eval(), export(model)) for _, model in loaded]
        for size in args.sizes:
            shape = args.eval_batch_size, 3, size, size
            for i, how in enumerate(('config', 'exported config')):
                runs = {
                    name: inference_run(both[i], shape, device, mode='tensor')
                    for name, both in zip(names, models, strict=True)
                }
                rows += _pairs(f'eval, {how} {"x".join(map(str, shape))}', pairs, args.rounds, runs, device)
    return rows


def _pairs(
    what: str,
    pairs: Sequence[tuple[str, str]],
    rounds: int,
    runs: dict[str, Callable[[], Any]],
    device: torch.device,
) -> list[Row]:
    say(f'{what}: {rounds} x {", ".join(f"{name} / {base}" for base, name in pairs)}')
    clocks = {name: partial(clock, run, device) for name, run in runs.items()}
    return rows_of(what, 's', interleave(pairs, rounds, lambda name: clocks[name](), say, warm_up=True))
