#!/usr/bin/env python
"""Measure what equivariance costs, as ratios to a plain ResNet in one run: python tools/benchmark.py --threads 2.

Status 0 if everything was measured, 1 if networks are not alike, so that comparing them would mean nothing, 2 for
wrong input.
"""

import argparse
import io
import json
import os
import platform
import shlex
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import partial
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works uninstalled

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from mmrotate_plugin.apis.benchmark.measure import Contestant, Pair, Row

MEASURES = ('build', 'train', 'eval', 'memory', 'checkpoint')
ORDER = ('build', 'train', 'eval', 'detect', 'memory', 'checkpoint')
FULL = {'networks': 'plain,folded,C8,C8+cp,exported-C8,fourier-C8', 'depth': 50, 'base_channels': 64,
        'sizes': [256, 512], 'rounds': 7, 'processes': 3, 'threads': None}  # fmt: skip
QUICK = {'networks': 'plain,folded,C8,exported-C8,fourier-C8', 'depth': 18, 'base_channels': 16, 'sizes': [33, 65],
         'rounds': 2, 'processes': 1, 'threads': 1}  # fmt: skip


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Measure networks against a plain ResNet of equal width: in each round, each is timed right before '
        'or after the baseline, and the ratio of such a pair is what counts. Outputs that are claimed to be equal are '
        'compared first.',
        epilog='status: 0 measured, 1 the networks are not alike, 2 wrong input',
    )
    parser.add_argument(
        '--networks',
        help='names, with commas between: plain, folded, C8 or another group, C8+cp (recomputing maps), exported-C8, '
        f'fourier-C8, adf, adf-bfloat16, adf-rank1, adf-delta, mmrotate (default {FULL["networks"]})',
    )
    parser.add_argument(
        '--baseline',
        help='one of the networks, or more; those that are for inference only are compared with their like only '
        '(default plain,folded)',
    )
    parser.add_argument('--measures', nargs='+', choices=MEASURES, default=list(MEASURES), help='default: all')
    parser.add_argument('--depth', type=int, choices=(18, 34, 50, 101, 152), help='default 50')
    parser.add_argument('--base-channels', type=int, help='width of stage one, of all networks (default 64)')
    parser.add_argument('--sizes', type=int, nargs='+', help='sides of the images, pixels (default 256 512)')
    parser.add_argument('--batch-size', type=int, default=2, help='images of a training step (default 2)')
    parser.add_argument('--eval-batch-size', type=int, default=1, help='images of a forward pass in eval mode (1)')
    parser.add_argument('--widths', type=int, nargs='+', help='time building at these base channels too, ascending')
    parser.add_argument('--compiled', action='store_true', help='time eval passes by torch.compile too')
    parser.add_argument(
        '--detector',
        metavar='CONFIG',
        help='time this UncertainDetector against the detector within it too, on images of its val_dataloader',
    )
    parser.add_argument('--checkpoint', metavar='FILE', help='weights of --detector, which decide what it finds')
    parser.add_argument(
        '--unsafe-checkpoint', action='store_true', help='take any pickle for a checkpoint, and run what it says'
    )
    parser.add_argument('--rounds', type=int, help='pairs of each kind (default 7)')
    parser.add_argument('--processes', type=int, help='new processes per network, for first build and memory (3)')
    parser.add_argument('--threads', type=int, help="of torch (default: torch's own choice)")
    parser.add_argument('--device', default='cpu', help='cpu, cuda, cuda:1, ... (default cpu); building is on the CPU')
    parser.add_argument('--out', default='work_dirs/benchmark', help='folder of table, numbers and figure')
    parser.add_argument('--markdown', help='write the table into this page too, in place of its last one')
    parser.add_argument('--quick', action='store_true', help='small networks, two rounds: to try the program')
    parser.add_argument('--child', help=argparse.SUPPRESS)  # the network that this process measures, see `child`
    args = parser.parse_args(argv)
    args.command = quote_command(args, parser)
    for name, value in (QUICK if args.quick else FULL).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    for name in ('base_channels', 'batch_size', 'eval_batch_size', 'rounds', 'processes', 'threads'):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            parser.error(f'--{name.replace("_", "-")} must be 1 or more, not {getattr(args, name)}')
    if args.checkpoint and not args.detector:
        parser.error('--checkpoint needs --detector')
    if args.threads is not None and args.threads > 1024:
        parser.error(f'--threads must be 1024 or less, not {args.threads}')
    if min(args.sizes) < 33:
        parser.error(f'--sizes must be 33 pixels or more (else the last map has one), not {min(args.sizes)}')
    if args.widths and (args.widths != sorted(set(args.widths)) or len(args.widths) < 2 or args.widths[0] < 1):
        parser.error(f'--widths must be two or more, ascending from 1, not {" ".join(map(str, args.widths))}')
    args.networks = args.networks.split(',')
    args.baseline = args.baseline.split(',') if args.baseline else None
    return args


def quote_command(args: argparse.Namespace, parser: argparse.ArgumentParser) -> str:
    """The command that repeats this run, without the places of its files."""
    words = ['python', 'tools/benchmark.py']
    for name, value in vars(args).items():
        if name in ('out', 'markdown') or value == parser.get_default(name):
            continue
        values = value if isinstance(value, list) else [] if value is True else [value]
        words += [f'--{name.replace("_", "-")}', *map(str, values)]
    return shlex.join(words)


# --- measuring


def measure(
    contestants: 'Sequence[Contestant]', nets: 'Mapping[str, nn.Module]', args: argparse.Namespace,
    device: 'torch.device',
) -> 'list[Row]':  # fmt: skip
    """Everything that this process measures itself."""
    import torch

    from mmrotate_plugin.apis.benchmark.measure import pairs_of

    rows: list[Row] = []
    builds = pairs_of(contestants, args.baseline, 'build')
    if 'build' in args.measures and builds:
        rows += measure_builds(contestants, builds, args)
        rows += measure_widths(builds, args) if args.widths else []
    for name in ('train', 'eval'):
        pairs = pairs_of(contestants, args.baseline, name)
        for size in args.sizes if name in args.measures and pairs else ():
            rows += measure_passes(nets, pairs, args, size, training=name == 'train')
            if args.compiled and name == 'eval':
                compiled = {key: torch.compile(net) for key, net in nets.items()}
                rows += measure_passes(compiled, pairs, args, size, training=False, how=', compiled')
    if 'checkpoint' in args.measures:
        x = torch.zeros(1, 3, min(args.sizes), min(args.sizes), device=device)
        pairs = pairs_of(contestants, args.baseline[:1], 'checkpoint')
        trained = [pair for pair in pairs if pair in pairs_of(contestants, args.baseline[:1], 'train')]
        rows += measure_checkpoints(nets, {'train': trained, 'eval': pairs}, x)
    return rows


def timed(
    what: str, pairs: 'Sequence[Pair]', args: argparse.Namespace, value: Callable[[str], float], unit: str = 's'
) -> 'list[Row]':
    """Rows of values in pairs, with a line that tells the progress."""
    from mmrotate_plugin.apis.benchmark.measure import interleave, rows_of

    print(f'{what}: {args.rounds} x {list_pairs(pairs)}', flush=True)
    return rows_of(what, unit, interleave(pairs, args.rounds, value, say, warm_up=True))


def measure_builds(
    contestants: 'Sequence[Contestant]', pairs: 'Sequence[Pair]', args: argparse.Namespace
) -> 'list[Row]':
    """Building again in a process that has built such a network before."""
    from mmrotate_plugin.apis.benchmark.measure import clock

    builds = {c.name: c.build for c in contestants}
    return timed('build, later', pairs, args, lambda name: clock(builds[name]))


def measure_widths(pairs: 'Sequence[Pair]', args: argparse.Namespace) -> 'list[Row]':
    """How building grows from each width to the next; a value is the quotient of two builds in one round."""
    from mmrotate_plugin.apis.benchmark.measure import clock, find

    rows: list[Row] = []
    for widths in zip(args.widths, args.widths[1:], strict=False):

        def growth(name: str, widths: tuple[int, int] = widths) -> float:
            small, large = (clock(find(name, args.depth, width).build) for width in widths)
            return large / small

        rows += timed(f'build, width {widths[0]} to {widths[1]}', pairs, args, growth, unit='x')
    return rows


def measure_passes(
    nets: 'Mapping[str, nn.Module]',
    pairs: 'Sequence[Pair]',
    args: argparse.Namespace,
    size: int,
    *,
    training: bool,
    how: str = '',
) -> 'list[Row]':
    """Training steps, or forward passes in eval mode, at one size."""
    import torch

    from mmrotate_plugin.apis.benchmark.measure import clock, training_step

    names = {name for pair in pairs for name in pair}
    device = next(nets[pairs[0][0]].parameters()).device
    batch = args.batch_size if training else args.eval_batch_size
    x = torch.randn(batch, 3, size, size, device=device)
    runs: dict[str, Callable[[], Any]] = {}
    for name in names:
        nets[name].train(training)
        runs[name] = training_step(nets[name], x) if training else partial(nets[name], x)
    with torch.set_grad_enabled(training):
        what = f'{"train" if training else "eval"}{how} {batch}x{size}x{size}'
        rows = timed(what, pairs, args, lambda name: clock(runs[name], device))
    for name in names:
        nets[name].zero_grad()
    return rows


def measure_detector(args: argparse.Namespace, device: 'torch.device') -> 'list[Row]':
    """Detections with standard deviations, by each rule for the variance, and with uncertainty switched off.

    The baseline is the detector within, on the same images, one by one.
    """
    import torch

    from mmrotate_plugin.apis.benchmark.measure import clock, detection_runs

    runs = detection_runs(args.detector, args.checkpoint, device)
    pairs = [('detector', name) for name in runs if name != 'detector']
    rows = timed('detect', pairs, args, lambda name: clock(runs[name], device))
    for pair in pairs if args.compiled else ():
        torch.compiler.reset()  # every other rule in the compiler's cache would have to be checked at each call
        runs = detection_runs(args.detector, args.checkpoint, device, compiled=True)
        rows += timed('detect, compiled', [pair], args, lambda name, runs=runs: clock(runs[name], device))
    return rows


def measure_checkpoints(
    nets: 'Mapping[str, nn.Module]', pairs: 'Mapping[str, Sequence[Pair]]', x: 'Tensor'
) -> 'list[Row]':
    """Bytes that torch.save makes of a state dict: in training mode, and in eval mode after a forward pass.

    Args:
        nets: By name.
        pairs: For the modes 'train' and 'eval'.
        x: (B, 3, H, W) for the forward pass.
    """
    import torch

    from mmrotate_plugin.apis.benchmark.measure import rows_of

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
        sizes = {pair: [(size(pair[0], mode == 'train'), size(pair[1], mode == 'train'))] for pair in pairs[mode]}
        rows += rows_of(f'checkpoint, {mode} mode', 'byte', sizes)
    return rows


def measure_in_children(
    contestants: 'Sequence[Contestant]', args: argparse.Namespace, device: 'torch.device'
) -> 'tuple[list[Row], dict[str, float]]':
    """First build and memory, each time in a new process; also the median seconds that the imports took there.

    Raises:
        UsageError: If a process fails, such as for want of memory.
    """
    import numpy as np

    from mmrotate_plugin.apis.benchmark.measure import interleave, pairs_of, rows_of
    from mmrotate_plugin.utils.errors import UsageError

    measures = [name for name in ('build', 'memory') if name in args.measures]
    if 'memory' in measures and device.type == 'cpu' and not Path('/proc/self/clear_refs').exists():
        say("memory: left out, it needs Linux's /proc")
        measures.remove('memory')
    pairs = list(dict.fromkeys(pair for name in measures for pair in pairs_of(contestants, args.baseline[:1], name)))
    if not pairs:
        return [], {}
    options = ['--measures', *measures, '--sizes', str(max(args.sizes)), '--device', str(device)]
    for name in ('depth', 'base_channels', 'batch_size', 'threads'):
        options += [f'--{name.replace("_", "-")}', str(getattr(args, name))]
    # freed memory goes back at once, so that the peak is what is in use and not what the allocator hoards
    malloc = {'MALLOC_MMAP_THRESHOLD_': '65536', 'MALLOC_TRIM_THRESHOLD_': '65536', 'MALLOC_ARENA_MAX': '1'}
    environment = {**os.environ, 'OMP_NUM_THREADS': str(args.threads), **malloc}
    runs: list[dict[str, float]] = []

    def run(name: str) -> int:
        command = [sys.executable, str(Path(__file__).resolve()), '--child', name, *options]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UsageError(
                f'the process that measures {name} ended with {done.returncode}: {done.stderr.strip()[-500:]}'
            )
        runs.append(json.loads(done.stdout.splitlines()[-1]))
        return len(runs) - 1

    say(f'in new processes: {args.processes} x {list_pairs(pairs)}')
    rounds = interleave(pairs, args.processes, run, say, warm_up=False)
    shape = f'{args.batch_size}x{max(args.sizes)}x{max(args.sizes)}'
    rows: list[Row] = []
    for key, name, title, unit in (
        ('first', 'build', 'build, first', 's'),
        ('peak', 'memory', f'memory, peak {shape}', 'byte'),
        ('kept', 'memory', f'memory, kept {shape}', 'byte'),
    ):
        wanted = pairs_of(contestants, args.baseline[:1], name) if name in measures else []
        rows += rows_of(title, unit, {pair: [(runs[i][key], runs[j][key]) for i, j in rounds[pair]] for pair in wanted})
    return rows, {key: float(np.median([run[key] for run in runs])) for key in ('import_e2cnn', 'import')}


def child(args: argparse.Namespace) -> dict[str, float]:
    """What `measure_in_children` wants to know, in this process, which has imported nothing yet."""
    import torch

    torch.set_num_threads(args.threads)
    start = time.perf_counter()
    import_module('e2cnn')
    middle = time.perf_counter()
    from mmrotate_plugin.apis.benchmark.measure import find, first_build_and_memory
    from mmrotate_plugin.testing import full_precision

    contestant = find(args.child, args.depth, args.base_channels)
    imports = {'import_e2cnn': middle - start, 'import': time.perf_counter() - middle}
    torch.manual_seed(0)
    shape = (args.batch_size, 3, max(args.sizes), max(args.sizes))
    x = torch.randn(shape, device=args.device) if 'memory' in args.measures else None
    with full_precision():
        return {**imports, **first_build_and_memory(contestant, x)}


def list_pairs(pairs: 'Sequence[Pair]') -> str:
    return ', '.join(f'{name} / {base}' for base, name in pairs)


def say(text: str) -> None:
    print(text, flush=True)


# --- what is reported


def benchmark(args: argparse.Namespace) -> None:
    import torch

    from mmrotate_plugin.apis.benchmark.measure import prepare
    from mmrotate_plugin.apis.checkpoint import read_checkpoint
    from mmrotate_plugin.apis.config import load_config
    from mmrotate_plugin.apis.inference import select_device
    from mmrotate_plugin.apis.runner import writable_folder
    from mmrotate_plugin.testing import full_precision
    from mmrotate_plugin.utils.atomic_files import write_json, write_whole
    from mmrotate_plugin.utils.errors import UsageError
    from mmrotate_plugin.visualization.plots import benchmark as report

    device = select_device(args.device)
    contestants, left_out = who_takes_part(args)
    out = writable_folder(args.out, '--out')
    if args.detector:  # minutes before they are wanted
        load_config(args.detector)
    if args.checkpoint:
        read_checkpoint(args.checkpoint, '--checkpoint')
    before, wanted = torch.get_num_threads(), args.threads
    args.threads = wanted or before
    about = {'date': date.today().isoformat(), 'command': args.command, **machine(device), 'threads': args.threads,
             'depth': args.depth, 'base_channels': args.base_channels, 'rounds': args.rounds,
             'processes': args.processes, 'left_out': left_out, 'versions': versions()}  # fmt: skip
    say(f'ResNet-{args.depth}, base_channels={args.base_channels}, {device}, {args.threads} threads')
    for text in [*(f'{name}: left out, {reason}' for name, reason in left_out.items()), *disturbances(device)]:
        say(text)

    warnings.filterwarnings('ignore', message='torch.utils.checkpoint')  # mmdet's use of it is not for us to change
    torch.set_num_threads(args.threads)
    try:
        torch.manual_seed(0)
        x = torch.randn(2, 3, min(args.sizes), min(args.sizes), device=device)
        with full_precision():
            nets, about['errors'] = prepare(contestants, x, say)
            rows = measure(contestants, nets, args, device)
            rows += measure_detector(args, device) if args.detector else []
        nets.clear()  # on a GPU, the other processes need the memory
    finally:
        torch.set_num_threads(before)
    in_children, about['imports'] = measure_in_children(contestants, args, device)
    rows = sorted(in_children + rows, key=lambda row: ORDER.index(row['measure'].split(' ')[0].rstrip(',')))

    print(f'\n{report.as_text(rows)}\n')
    page = report.as_markdown(rows, about)
    written = [
        write_json(out / 'benchmark.json', {**about, 'rows': rows}),
        write_whole(out / 'benchmark.md', page),
        write_whole(out / 'benchmark.png', report.figure(rows, about)),
    ]
    if args.markdown:
        try:
            written.append(report.write_into(Path(args.markdown), page, device.type))
        except (OSError, ValueError) as error:
            raise UsageError(f"--markdown '{args.markdown}' cannot be written: {error}") from error
    print('\n'.join(map(str, written)))


def who_takes_part(args: argparse.Namespace) -> 'tuple[list[Contestant], dict[str, str]]':
    """The networks, baselines first, and the reasons why others are left out.

    Raises:
        UsageError: If a name is unknown, no baseline is there, or there is nothing to compare.
    """
    from mmrotate_plugin.apis.benchmark.measure import find
    from mmrotate_plugin.utils.errors import UsageError

    baselines = args.baseline or [name for name in ('plain', 'folded') if name in args.networks] or ['plain']
    for name in baselines:
        if name not in args.networks:
            raise UsageError(f"--baseline: '{name}' is not among the networks {', '.join(args.networks)}")
    found = {name: find(name, args.depth, args.base_channels) for name in dict.fromkeys([*baselines, *args.networks])}
    left_out = {name: c for name, c in found.items() if isinstance(c, str)}
    contestants = [c for c in found.values() if not isinstance(c, str)]
    args.baseline = [name for name in baselines if name not in left_out]
    if not args.baseline or len(contestants) < 2:
        reasons = '; '.join(f'{name}: {reason}' for name, reason in left_out.items()) or 'one network'
        raise UsageError(f'--networks: nothing to compare ({reasons})')
    return contestants, left_out


def machine(device: 'torch.device') -> dict[str, Any]:
    import torch

    info = Path('/proc/cpuinfo')
    models = [line.split(':')[1].strip() for line in info.read_text().splitlines() if line.startswith('model name')] \
        if info.exists() else []  # fmt: skip
    name = torch.cuda.get_device_name(device) if device.type == 'cuda' else None
    return {'device': device.type, 'gpu': name, 'cpu': models[0] if models else platform.machine(),
            'cores': os.cpu_count(), 'load': os.getloadavg()[0]}  # fmt: skip


def versions() -> dict[str, str]:
    import mmrotate_plugin

    found = {'python': platform.python_version(), 'mmrotate_plugin': mmrotate_plugin.__version__}
    for name in ('torch', 'mmcv', 'mmengine', 'mmdet', 'mmrotate', 'numpy'):
        try:
            found[name] = import_module(name).__version__
        except ModuleNotFoundError:
            continue
    return {**found, 'e2cnn': metadata.version('e2cnn')}


def disturbances(device: 'torch.device') -> list[str]:
    """What makes times vary; ratios of pairs bear it, with a larger spread."""
    found = []
    if device.type == 'cpu' and os.environ.get('OMP_WAIT_POLICY', '').upper() != 'PASSIVE':
        found.append('warning: OMP_WAIT_POLICY is not PASSIVE; where something else runs, small layers take longer')
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > cores:
        found.append(f'warning: the load average is {load:.1f} on {cores} cores; expect a large spread')
    return found


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if args.child:
        print(json.dumps(child(args)))
        return 0
    from mmrotate_plugin.apis import run_command
    from mmrotate_plugin.apis.benchmark.measure import UnlikeError

    try:
        return run_command.run(benchmark, args)
    except UnlikeError as error:
        print('\n'.join(f'not alike: {line}' for line in str(error).splitlines()), file=sys.stderr)
        return 1


if __name__ == '__main__':
    sys.exit(main())
