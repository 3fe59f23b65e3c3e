"""Measure everything that one process can: builds, passes, detection, sizes of checkpoints."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from .contestants import Contestant, find
from .timing import Pair, Row, clock, detection_runs, interleave, pairs_of, rows_of, training_step


@dataclass(frozen=True)
class Settings:
    """What to measure, and how.

    Attributes:
        measures: Some of `contestants.MEASURES`.
        baselines: Names of the networks to compare with, the most important first.
        depth, base_channels: Of all networks.
        sizes: Sides of the images, pixels.
        batch_size, eval_batch_size: Images of a training step, and of a forward pass in eval mode.
        widths: Base channels to time building at, ascending.
        compiled: Also time eval passes with torch.compile.
        rounds: Pairs per measurement.
        processes: New processes per network, for first build and memory.
        threads: Threads of torch.
        detector: Config of an `UncertainDetector` to time.
        checkpoint: Its weights.
        options: Changes to its config, ``name=value`` each.
    """

    measures: Sequence[str]
    baselines: Sequence[str]
    depth: int
    base_channels: int
    sizes: Sequence[int]
    batch_size: int
    eval_batch_size: int
    widths: Sequence[int]
    compiled: bool
    rounds: int
    processes: int
    threads: int
    detector: str | None = None
    checkpoint: str | None = None
    options: Sequence[str] = ()


def measure(
    contestants: Sequence[Contestant], nets: Mapping[str, nn.Module], settings: Settings, device: torch.device
) -> list[Row]:
    """Measure all that needs no process of its own.

    Args:
        contestants: Networks that take part.
        nets: What is timed, by name; see `likeness.prepare`.
        settings: What to measure.
        device: Where the networks are.
    """
    rows: list[Row] = []
    builds = pairs_of(contestants, settings.baselines, 'build')
    if 'build' in settings.measures and builds:
        rows += _builds(contestants, builds, settings)
        rows += _widths(builds, settings)
    for name in ('train', 'eval'):
        pairs = pairs_of(contestants, settings.baselines, name)
        for size in settings.sizes if name in settings.measures and pairs else ():
            rows += _passes(nets, pairs, settings, size, training=name == 'train')
            if settings.compiled and name == 'eval':
                compiled: dict[str, nn.Module] = {key: _compile(net) for key, net in nets.items()}
                rows += _passes(compiled, pairs, settings, size, training=False, how=', compiled')
    if 'checkpoint' in settings.measures:
        x = torch.zeros(1, 3, min(settings.sizes), min(settings.sizes), device=device)
        pairs = pairs_of(contestants, settings.baselines[:1], 'checkpoint')
        trained = [pair for pair in pairs if pair in pairs_of(contestants, settings.baselines[:1], 'train')]
        rows += _checkpoints(nets, {'train': trained, 'eval': pairs}, x)
    return rows


def detections(settings: Settings, device: torch.device) -> list[Row]:
    """Time detections with standard deviations, by each rule for the variance, and with uncertainty switched off.

    The baseline is the detector inside, on the same images, one by one.
    """
    if settings.detector is None:
        return []
    given = settings.detector, settings.checkpoint, device, settings.options
    runs = detection_runs(*given)
    pairs = [('detector', name) for name in runs if name != 'detector']
    rows = _timed('detect', pairs, settings, _clock_of(runs, device))
    for pair in pairs if settings.compiled else ():
        torch.compiler.reset()  # every other rule in the compiler's cache would have to be checked at each call
        rows += _timed('detect, compiled', [pair], settings, _clock_of(detection_runs(*given, compiled=True), device))
    return rows


def list_pairs(pairs: Sequence[Pair]) -> str:
    """Name pairs in a message."""
    return ', '.join(f'{name} / {base}' for base, name in pairs)


def say(text: str) -> None:
    """Print a line of progress at once."""
    print(text, flush=True)  # noqa: T201


def _timed(
    what: str, pairs: Sequence[Pair], settings: Settings, value: Callable[[str], float], unit: str = 's'
) -> list[Row]:
    """Take values in pairs, after a line that tells the progress."""
    say(f'{what}: {settings.rounds} x {list_pairs(pairs)}')
    return rows_of(what, unit, interleave(pairs, settings.rounds, value, say, warm_up=True))


def _clock_of(runs: Mapping[str, Callable[[], object]], device: torch.device) -> Callable[[str], float]:
    return lambda name: clock(runs[name], device)


def _compile(net: nn.Module) -> nn.Module:
    compiled = torch.compile(net)
    assert isinstance(compiled, nn.Module)  # a module in, a module out; torch's stubs say a callable
    return compiled


def _builds(contestants: Sequence[Contestant], pairs: Sequence[Pair], settings: Settings) -> list[Row]:
    """Time building in a process that has built such a network before."""
    builds = {c.name: c.build for c in contestants}
    return _timed('build, later', pairs, settings, lambda name: clock(builds[name]))


def _widths(pairs: Sequence[Pair], settings: Settings) -> list[Row]:
    """Measure how building grows from each width to the next, by the quotient of two builds in one round."""
    rows: list[Row] = []
    for widths in zip(settings.widths, settings.widths[1:], strict=False):

        def growth(name: str, widths: tuple[int, int] = widths) -> float:
            small, large = (_build_time(name, settings.depth, width) for width in widths)
            return large / small

        rows += _timed(f'build, width {widths[0]} to {widths[1]}', pairs, settings, growth, unit='x')
    return rows


def _build_time(name: str, depth: int, width: int) -> float:
    contestant = find(name, depth, width)
    assert isinstance(contestant, Contestant), contestant  # it takes part, so it is there
    return clock(contestant.build)


def _passes(
    nets: Mapping[str, nn.Module],
    pairs: Sequence[Pair],
    settings: Settings,
    size: int,
    *,
    training: bool,
    how: str = '',
) -> list[Row]:
    """Time training steps, or forward passes in eval mode, at one size."""
    names = {name for pair in pairs for name in pair}
    device = next(nets[pairs[0][0]].parameters()).device
    batch = settings.batch_size if training else settings.eval_batch_size
    x = torch.randn(batch, 3, size, size, device=device)
    runs: dict[str, Callable[[], object]] = {}
    for name in names:
        nets[name].train(training)
        runs[name] = training_step(nets[name], x) if training else partial(nets[name], x)
    with torch.set_grad_enabled(training):
        what = f'{"train" if training else "eval"}{how} {batch}x{size}x{size}'
        rows = _timed(what, pairs, settings, _clock_of(runs, device))
    for name in names:
        nets[name].zero_grad()
    return rows


def _checkpoints(nets: Mapping[str, nn.Module], pairs: Mapping[str, Sequence[Pair]], x: Tensor) -> list[Row]:
    """Measure the bytes that torch.save makes of a state dict, in training mode and after a pass in eval mode.

    Args:
        nets: By name.
        pairs: For the modes 'train' and 'eval'.
        x: (B, 3, H, W) for the forward pass.
    """

    def size(name: str, training: bool) -> int:
        nets[name].train(training)
        if not training:
            with torch.no_grad():
                nets[name](x)
        file = io.BytesIO()
        torch.save(nets[name].state_dict(), file)
        return file.tell()

    rows: list[Row] = []
    for mode in ('train', 'eval'):
        sizes = {
            (base, name): [(float(size(base, mode == 'train')), float(size(name, mode == 'train')))]
            for base, name in pairs[mode]
        }
        rows += rows_of(f'checkpoint, {mode} mode', 'byte', sizes)
    return rows
