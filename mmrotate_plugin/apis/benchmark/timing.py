"""Take values in pairs, one right after the other, so that what else the machine does falls on both."""

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from mmengine.registry import DATASETS
from torch import Tensor, nn

from ...adf.gaussian import VARIANCE_RULES
from ...engine.checks import before_run
from ...engine.checks.head_classes import classes_of
from ...utils.errors import UsageError
from ..checkpoint import load_weights, read_checkpoint
from ..config import load_config
from ..inference import build_model
from .contestants import Contestant
from .likeness import loss_of, maps

Pair = tuple[str, str]  # names of a baseline and of what is compared with it
Values = dict[Pair, list[tuple[float, float]]]  # of each round
Row = dict[str, Any]  # see mmrotate_plugin.visualization.plots.benchmark


def pairs_of(contestants: Sequence[Contestant], baselines: Sequence[str], measure: str) -> list[Pair]:
    """Pair each network with each baseline; a baseline for inference only is compared with its like."""
    those = {c.name: c for c in contestants if measure in c.measures}
    return [
        (base, name)
        for i, base in enumerate(baselines)
        for name, c in those.items()
        if base in those and name not in baselines[: i + 1] and (c.convert or not those[base].convert)
    ]


def interleave(
    pairs: Sequence[Pair], rounds: int, value: Callable[[str], float], say: Callable[[str], None], *, warm_up: bool
) -> Values:
    """Take the values of both of a pair, one right after the other; every second round in the other order.

    Args:
        pairs: Names.
        rounds: Values of each pair.
        value: Takes the value of a name.
        say: Gets an estimate of the time after the first round.
        warm_up: Take one value of each name first, and discard it.
    """
    values: Values = {pair: [] for pair in pairs}
    for name in dict.fromkeys(name for pair in pairs for name in pair) if warm_up else ():
        value(name)
    start = time.monotonic()
    for i in range(rounds):
        for pair in pairs:
            taken = {name: value(name) for name in (pair if i % 2 == 0 else pair[::-1])}
            values[pair].append((taken[pair[0]], taken[pair[1]]))
        left = (time.monotonic() - start) * (rounds - 1)
        if i == 0 and left >= 1:
            say(f'  about {left:.0f} s to go')
    return values


def rows_of(measure: str, unit: str, values: Mapping[Pair, Sequence[tuple[float, float]]]) -> list[Row]:
    """Make one row for each pair: medians, median and quartiles of the ratios, and all that was measured."""
    rows = []
    for (baseline, network), rounds in values.items():
        ratios = [b / a for a, b in rounds]
        low, middle, high = np.percentile(ratios, (25, 50, 75)).tolist()
        base_value, value = np.median(rounds, axis=0).tolist()
        rows.append(
            {
                'measure': measure,
                'network': network,
                'baseline': baseline,
                'unit': unit,
                'value': value,
                'baseline_value': base_value,
                'ratio': middle,
                'quartiles': (low, high),
                'rounds': rounds,
            }
        )
    return rows


def clock(run: Callable[[], object], device: torch.device | None = None) -> float:
    """Return the seconds that a call takes; on a GPU, by its own events."""
    if device is None or device.type != 'cuda':
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    with torch.cuda.device(device):
        first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        first.record()
        run()
        last.record()
        torch.cuda.synchronize()
    return first.elapsed_time(last) / 1000


def training_step(net: nn.Module, x: Tensor) -> Callable[[], None]:
    """Return a call that does one step of stochastic gradient descent: forward pass, backward pass, update."""
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        loss_of(maps(net, x, variances=True)).backward()
        optimizer.step()

    return step


def detection_runs(
    config: str,
    checkpoint: str | None,
    device: torch.device,
    options: Sequence[str] | None = None,
    *,
    compiled: bool = False,
    images: int = 4,
) -> dict[str, Callable[[], None]]:
    """Return calls that detect on the same few images, one by one.

    Args:
        config: Config file of an `UncertainDetector`, with a val_dataloader.
        checkpoint: Its weights; None for initial ones.
        device: To run on.
        options: Changes to the config, ``name=value`` each.
        compiled: Compile backbone and neck with torch.compile.
        images: Number of images, from the data set of the val_dataloader.

    Returns:
        'detector' is the one inside; 'off' the whole with ``enabled=False``; the others are the rules for the variance.

    Raises:
        UsageError: If the config is of another kind, or weights do not fit.
    """
    cfg = load_config(config, options or ())
    model = build_model(cfg).to(device).eval()
    if type(model).__name__ != 'UncertainDetector':
        raise UsageError(f"--detector '{config}' is a {type(model).__name__}, but must be an UncertainDetector")
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    if checkpoint is not None:
        read = read_checkpoint(checkpoint)
        load_weights(model, read, checkpoint)
        before_run.check_classes(cfg, read, checkpoint, classes_of(dataset), result='times are the same')
    before_run.check_heads(model, dataset, 'val_dataloader')
    batches = [dataset[i] for i in range(images)]
    data = [
        model.data_preprocessor({'inputs': [b['inputs']], 'data_samples': [b['data_samples']]}, False) for b in batches
    ]
    if compiled:
        for part in ('backbone', 'neck'):
            getattr(model.detector, part).compile()

    def run(predict: Callable[..., object], rule: str | None = None, *, enabled: bool = True) -> None:
        model.variance, model.enabled = rule, enabled
        with torch.no_grad():
            for batch in data:
                predict(batch['inputs'], copy.deepcopy(batch['data_samples']))

    return {
        'detector': partial(run, model.detector.predict),
        'off': partial(run, model.predict, enabled=False),
        **{rule: partial(run, model.predict, rule) for rule in VARIANCE_RULES},
    }
