"""The parts of tools/benchmark.py: who takes part, what is alike, values taken in pairs, memory of a training step."""

import copy
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...adf import Gaussian
from ...adf.gaussian import VARIANCE_RULES
from ...engine.checks import before_run
from ...engine.checks.head_classes import classes_of
from ...equivariant.fourier import FourierConv2d
from ...testing import randomize_norms_, relative_error
from ...utils.errors import UsageError
from ..checkpoint import load_weights, read_checkpoint
from ..config import load_config

MEASURES = ('build', 'train', 'eval', 'memory', 'checkpoint')
KNOWN = (
    "'plain' (mmdet's ResNet), 'folded' (it, exported), a group such as 'C8' or 'D4' (ReResNet), 'exported-C8', "
    "'fourier-C8', 'adf', 'adf-bfloat16', 'adf-rank1' and 'adf-delta' (ADFResNet), 'mmrotate' (its own ReResNet); "
    "'plain+cp' and 'C8+cp' recompute their maps"
)
TOLERANCE = 1e-5  # relative error, float32, of maps that are claimed to be the same

Pair = tuple[str, str]  # names of a baseline and of what is compared with it
Values = dict[Pair, list[tuple[float, float]]]  # of each round
Row = dict[str, Any]  # see mmrotate_plugin.visualization.plots.benchmark


class UnlikeError(Exception):
    """Networks that cannot be compared; the message has a line for each."""


# --- who takes part


@dataclass(frozen=True)
class Contestant:
    """A network that takes part.

    Attributes:
        name: As on the command line.
        build: Makes it, initialised by its constructor alone.
        convert: Makes of it what is timed, for inference only; None if it is timed as it is.
        twin: Makes of it a network that must give the same maps, by the claim `same`; None without such a claim.
        same: What the twin is.
        recomputes: It computes its maps twice in training, to save memory; the claim is about maps and gradients.
    """

    name: str
    build: Callable[[], nn.Module]
    convert: Callable[[nn.Module], nn.Module] | None = None
    twin: Callable[[nn.Module], nn.Module] | None = None
    same: str = ''
    recomputes: bool = False

    @property
    def measures(self) -> tuple[str, ...]:
        """Those that make sense for it, out of `MEASURES`."""
        return ('train', 'memory') if self.recomputes else ('eval', 'checkpoint') if self.convert else MEASURES


def find(name: str, depth: int, base_channels: int) -> Contestant | str:
    """The network of that name, or why it has to be left out.

    Raises:
        UsageError: If there is no such name.
    """
    base, plus, suffix = name.partition('+')
    how, dash, kind = base.rpartition('-')
    is_group = kind[:1] in ('C', 'D') and kind[1:].isdecimal() and (not dash or how in ('exported', 'fourier'))
    converted = base == 'folded' or (is_group and bool(dash))
    may_recompute = base == 'plain' or (is_group and not dash)
    propagates = base == 'adf' or (how == 'adf' and kind in VARIANCE_RULES[1:])
    if not (is_group or propagates or base in ('plain', 'folded', 'mmrotate')) or (
        plus and (suffix != 'cp' or not may_recompute)
    ):
        raise UsageError(f"--networks: '{name}' is unknown; known are {KNOWN}")
    options: dict[str, Any] = {'depth': depth, 'base_channels': base_channels}
    build: Callable[..., nn.Module]
    if base in ('plain', 'folded', 'mmrotate'):
        host, module = ('mmrotate', 're_resnet') if base == 'mmrotate' else ('mmdet', 'resnet')
        try:
            models = import_module(f'{host}.models.backbones.{module}')
        except ModuleNotFoundError as error:
            if error.name != host:
                raise
            return f'{host} is not installed'
        if base == 'mmrotate':
            from ...models import ReResNet

            build = partial(models.ReResNet, stem_channels=base_channels, out_indices=(0, 1, 2, 3), **options)
            ours = partial(ReResNet, group='C8', **options)
            return Contestant(name, build, twin=partial(same_weights, ours), same='C8 with its weights')
        build = partial(models.ResNet, norm_eval=False, **options)
    else:
        from ...registry import MODELS

        model = MODELS.get('ReResNet' if is_group else 'ADFResNet')
        if model is None:
            return 'there is no ADFResNet in this version'
        if is_group:
            options['group'] = kind
        else:
            options |= {'output': 'gaussian', 'variance': kind if how else 'diagonal'}
        build = partial(model, **options)
    if plus:
        again = partial(build, with_cp=True)
        return Contestant(name, again, twin=partial(same_weights, build), same=base, recomputes=True)
    if converted:
        from ...equivariant import export

        convert = partial(export, fourier=how == 'fourier')
        return Contestant(name, build, convert, twin=lambda net: net, same='plain' if base == 'folded' else kind)
    return Contestant(name, build)


def same_weights(build: Callable[[], nn.Module], net: nn.Module) -> nn.Module:
    """A network made by `build` with the weights of `net`."""
    twin = build().to(next(net.parameters()).device)
    twin.load_state_dict(net.state_dict())
    return twin


# --- what may be compared


def maps(net: nn.Module, x: Tensor, *, variances: bool = False) -> list[Tensor]:
    """The maps of the stages, (B, C_i, H_i, W_i) each; of e2cnn's tensors their values, of Gaussians their means.

    With `variances`, those of Gaussians follow.
    """
    found = net(x)
    found = (found,) if isinstance(found, Tensor) else tuple(found)
    gaussian = [y.v for y in found if isinstance(y, Gaussian)] if variances else []
    return [y.mu if isinstance(y, Gaussian) else getattr(y, 'tensor', y) for y in found] + gaussian


def loss_of(found: Iterable[Tensor]) -> Tensor:
    """A scalar that depends on every map."""
    return torch.stack([y.square().mean() for y in found]).sum()


def outcome(net: nn.Module, x: Tensor, training: bool) -> list[Tensor]:
    """The maps; in training mode, also the gradients of all parameters, as one vector."""
    net.train(training)
    with torch.set_grad_enabled(training):
        found = maps(net, x)
    if training:
        loss_of(found).backward()
        found.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
        net.zero_grad()
    return [y.detach() for y in found]


def prepare(
    contestants: Sequence[Contestant], x: Tensor, say: Callable[[str], None]
) -> tuple[dict[str, nn.Module], dict[str, float]]:
    """Build what is timed, with random norms, and compare what is claimed to be equal.

    Args:
        contestants: The first decides on the shapes.
        x: (B, 3, H, W) on the device to use.
        say: Gets a line for each claim.

    Returns:
        The networks, and the largest relative error of each claim.

    Raises:
        UsageError: If a network refuses the options.
        UnlikeError: If maps that should be equal are not, or the maps of a network have other shapes than the first's.
    """
    nets: dict[str, nn.Module] = {}
    errors: dict[str, float] = {}
    shapes: dict[str, list[tuple[int, ...]]] = {}
    wrong = []
    for c in contestants:
        try:
            net = randomize_norms_(c.build()).to(x.device)  # identity norms would hide a wrong one
            nets[c.name] = c.convert(net) if c.convert else net
        except ValueError as error:
            raise UsageError(f'{c.name}: {error}') from error
        if c.name.startswith('fourier') and not any(isinstance(m, FourierConv2d) for m in nets[c.name].modules()):
            say(f'{c.name}: no layer of this width gains by a Fourier transform, so this is exported-{c.same}')
        shapes[c.name] = [tuple(y.shape[1:]) for y in outcome(nets[c.name], x, training=False)]
        if c.twin is None:
            continue
        twin = c.twin(net)
        ours, theirs = (outcome(each, x, training=c.recomputes) for each in (nets[c.name], twin))
        if [y.shape for y in ours] == [y.shape for y in theirs]:
            found = [relative_error(a, b) for a, b in zip(ours, theirs, strict=True)]
        else:
            found = [float('inf')]
        errors[c.name] = float(np.max(found))  # NaN, if there is one
        text = ', '.join(f'{error:.1e}' for error in found)
        say(f'{c.name} = {c.same}: relative errors of its {"maps and gradients" if c.recomputes else "maps"} {text}')
        if not errors[c.name] < TOLERANCE:
            wrong.append(
                f'{c.name} is claimed to be equal to {c.same}, but the relative errors of its maps are {text}; '
                f'{TOLERANCE:g} would do'
            )
    first = contestants[0].name
    wrong += [
        f'{name} puts out maps of (C, H, W) = {shape}, {first} of {shapes[first]}'
        for name, shape in shapes.items()
        if shape != shapes[first]
    ]
    if wrong:
        raise UnlikeError('\n'.join(wrong))
    return nets, errors


# --- values in pairs


def pairs_of(contestants: Sequence[Contestant], baselines: Sequence[str], measure: str) -> list[Pair]:
    """Each network with each baseline; a baseline that is for inference only is compared with its like."""
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
        warm_up: Take, and forget, one value of each name before.
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
    """One row for each pair: medians, the median of the ratios and their quartiles, and all that was measured."""
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


def clock(run: Callable[[], Any], device: torch.device | None = None) -> float:
    """Seconds that a call takes; on a GPU, by its own events."""
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
    """A call that does one step of stochastic gradient descent: forward pass, backward pass, update."""
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        loss_of(maps(net, x, variances=True)).backward()
        optimizer.step()

    return step


def detection_runs(
    config: str, checkpoint: str | None, device: torch.device, *, compiled: bool = False, images: int = 4
) -> dict[str, Callable[[], Any]]:
    """Calls that detect in the same few images, one by one.

    Args:
        config: Of an `UncertainDetector`, with a val_dataloader.
        checkpoint: Its weights; None for those that it is initialised with.
        device: To run on.
        compiled: Compile backbone and neck by torch.compile.
        images: Of the data set of the val_dataloader.

    Returns:
        'detector' is the one within; 'off' the whole with ``enabled=False``; the others are the rules for the variance.

    Raises:
        UsageError: If the config is of another kind, or weights do not fit.
    """
    from mmengine.registry import DATASETS

    from ..inference import build_model

    cfg = load_config(config, {})
    model = build_model(cfg).to(device).eval()
    if type(model).__name__ != 'UncertainDetector':
        raise UsageError(f"--detector '{config}' is a {type(model).__name__}, but must be an UncertainDetector")
    if checkpoint is not None:
        read = read_checkpoint(checkpoint)
        load_weights(model, read, checkpoint)
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    before_run.check_heads(model, dataset, 'val_dataloader')
    if checkpoint is not None:
        before_run.check_classes(cfg, read, checkpoint, classes_of(dataset), result='times are the same')
    batches = [dataset[i] for i in range(images)]
    data = [
        model.data_preprocessor({'inputs': [b['inputs']], 'data_samples': [b['data_samples']]}, False) for b in batches
    ]
    if compiled:
        for part in ('backbone', 'neck'):
            getattr(model.detector, part).compile()

    def run(predict: Callable[..., Any], rule: str | None = None, *, enabled: bool = True) -> None:
        model.variance, model.enabled = rule, enabled
        with torch.no_grad():
            for batch in data:
                predict(batch['inputs'], copy.deepcopy(batch['data_samples']))

    return {
        'detector': partial(run, model.detector.predict),
        'off': partial(run, model.predict, enabled=False),
        **{rule: partial(run, model.predict, rule) for rule in VARIANCE_RULES},
    }


# --- in a process of its own


def first_build_and_memory(contestant: Contestant, x: Tensor | None) -> dict[str, float]:
    """Seconds of the first build in this process, and bytes that a training step needs.

    Args:
        contestant: To be built.
        x: (B, 3, H, W) images on the device to use; None to build only.

    Returns:
        'first' in seconds; with images also 'peak', the most memory during the second and third step of another such
        network (the first step makes gradients and momenta) above what was in use before it was built, and 'kept', see
        `kept_for_backward`. On CPUs 'peak' is resident memory (Linux), on GPUs what torch has allocated.
    """
    found: dict[str, float] = {'first': clock(contestant.build)}
    if x is None:
        return found
    small = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU()).to(x.device)
    training_step(small, x[..., :9, :9])()  # loads what torch loads at the first use: 100 MiB of libraries
    on_gpu = x.is_cuda
    before = torch.cuda.memory_allocated(x.device) if on_gpu else resident('VmRSS')
    net = contestant.build().to(x.device)
    net.train()
    step = training_step(net, x)
    step()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(x.device)
    else:
        Path('/proc/self/clear_refs').write_text('5')  # resets VmHWM, see proc(5)
    step()
    step()
    found['peak'] = (torch.cuda.max_memory_allocated(x.device) if on_gpu else resident('VmHWM')) - before
    found['kept'] = kept_for_backward(net, x)
    return found


def kept_for_backward(net: nn.Module, x: Tensor) -> int:
    """Bytes that the forward pass keeps for the backward pass besides the parameters, each storage once."""
    parameters = {p.untyped_storage().data_ptr() for p in net.parameters()}
    kept: dict[int, int] = {}

    def note(y: Tensor) -> Tensor:
        kept[y.untyped_storage().data_ptr()] = y.untyped_storage().nbytes()
        return y.detach()  # the tensor itself would keep its own graph alive

    with torch.autograd.graph.saved_tensors_hooks(note, lambda y: y):
        loss = loss_of(maps(net, x, variances=True))  # the graph lives until here, so no address is given twice
    found = sum(size for place, size in kept.items() if place not in parameters)
    del loss
    return found


def resident(what: str) -> int:
    """Bytes of memory that this process has ('VmRSS') or has had at most ('VmHWM')."""
    lines = dict(line.split(':', 1) for line in Path('/proc/self/status').read_text().splitlines())
    return int(lines[what].split()[0]) * 1024
