"""Measure what networks cost, relative to a baseline, or where the time of one goes."""

import argparse
import json
import warnings
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch

from ..apis.benchmark.comparison import compare, differing_settings, regressions
from ..apis.benchmark.contestants import Contestant, find
from ..apis.benchmark.environment import disturbances, machine, versions
from ..apis.benchmark.likeness import prepare
from ..apis.benchmark.measure import Settings, detections, measure, say
from ..apis.benchmark.new_processes import measure_in_new_processes
from ..apis.benchmark.timing import Row
from ..apis.checkpoint import read_checkpoint
from ..apis.config import load_config
from ..apis.inference import select_device
from ..apis.runner import writable_folder
from ..testing import full_precision
from ..utils.atomic_files import write_json, write_whole
from ..utils.errors import CheckFailed, UsageError
from ..utils.table import aligned
from ..visualization.plots import benchmark as report
from ._benchmark_configs import time_configs
from ._profile import write_profile

ORDER = ('build', 'train', 'eval', 'detect', 'memory', 'checkpoint')


def benchmark(args: argparse.Namespace) -> None:
    """Do what the options ask for: profile a config, time configs or networks, compare with an earlier run."""
    old = read_report(args.compare[0]) if args.compare else None
    if old is not None and len(args.compare) == 2:
        tell_changes(args, old, read_report(args.compare[1]))
        return
    device = select_device(args.device)
    before = torch.get_num_threads()
    torch.set_num_threads(args.threads or before)
    try:
        if args.profile:
            write_profile(args, device, writable_folder(args.out, '--out'))
            return
        rows, about = (measure_configs if args.configs else measure_networks)(args, device)
    finally:
        torch.set_num_threads(before)
    print(f'\n{report.as_text(rows)}\n')
    print('\n'.join(map(str, write(writable_folder(args.out, '--out'), args.markdown, rows, about))))
    if old is not None:
        tell_changes(args, old, {**about, 'rows': rows})


def measure_configs(args: argparse.Namespace, device: torch.device) -> tuple[list[Row], dict[str, Any]]:
    """Time whole configs against the first; return the rows and what to say about them."""
    writable_folder(args.out, '--out')
    about = {**describe(args, device), 'configs': [Path(name).name for name in args.configs]}
    for text in disturbances(device):
        say(text)
    return time_configs(args, device), about


def describe(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Describe a run: its command, machine, settings and versions."""
    return {
        'date': date.today().isoformat(),
        'command': args.quoted,
        **machine(device),
        'threads': torch.get_num_threads(),
        'rounds': args.rounds,
        'processes': args.processes,
        'left_out': {},
        'errors': {},
        'imports': {},
        'versions': versions(),
    }


def measure_networks(args: argparse.Namespace, device: torch.device) -> tuple[list[Row], dict[str, Any]]:
    """Compare what is claimed to be equal, and measure networks; return the rows and what to say about them."""
    contestants, baselines, left_out = who_takes_part(args)
    writable_folder(args.out, '--out')
    if args.detector:  # minutes before they are used
        load_config(args.detector, args.cfg_options)
    if args.checkpoint:
        read_checkpoint(args.checkpoint, '--checkpoint')
    settings = make_settings(args, baselines, threads=torch.get_num_threads())
    about = {**describe(args, device), 'depth': args.depth, 'base_channels': args.base_channels, 'left_out': left_out}
    say(f'ResNet-{args.depth}, base_channels={args.base_channels}, {device}, {settings.threads} threads')
    for text in [*(f'{name}: left out, {reason}' for name, reason in left_out.items()), *disturbances(device)]:
        say(text)

    warnings.filterwarnings('ignore', message='torch.utils.checkpoint')  # how mmdet uses it is not ours to change
    torch.manual_seed(0)
    x = torch.randn(2, 3, min(args.sizes), min(args.sizes), device=device)
    with full_precision():
        nets, about['errors'] = prepare(contestants, x, say)
        rows = measure(contestants, nets, settings, device) + detections(settings, device)
    nets.clear()  # on a GPU, the other processes need the memory
    elsewhere, about['imports'] = measure_in_new_processes(contestants, settings, device)
    return sorted(elsewhere + rows, key=lambda row: ORDER.index(row['measure'].split(' ')[0].rstrip(','))), about


def read_report(path: str) -> dict[str, Any]:
    """Read what an earlier run wrote.

    Raises:
        UsageError: If it is no such file.
    """
    try:
        read = json.loads(Path(path).read_text(encoding='utf-8-sig'))
        for row in read['rows']:
            if not {'measure', 'network', 'baseline', 'unit'} <= set(row) or any(
                min(pair) <= 0 for pair in row['rounds']
            ):
                raise KeyError('rounds')
    except OSError as error:
        raise UsageError(f"--compare '{path}' cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"--compare '{path}' is no benchmark.json of this command, which has 'rows' of pairs"
        ) from error
    return read


def tell_changes(args: argparse.Namespace, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Print which ratios changed by more than their noise.

    Raises:
        CheckFailed: If something became slower or larger, and `args.fail_on_regression` is set.
    """
    compared = compare(old['rows'], new['rows'], least=args.least_change / 100)
    for name in differing_settings(old, new):
        print(f'note: {name} differs between the two runs')
    head = ('measure', 'network', 'baseline', 'old', 'new', 'change', 'verdict')
    cells = [
        (row['measure'], row['network'], row['baseline'], f'{row["old"]:.3f}', f'{row["new"]:.3f}')
        + (f'{row["change"] - 1:+.1%}', row['verdict'])
        for row in compared
    ]
    print(f'\n{aligned([head, *cells])}')
    worse = regressions(compared)
    if worse and args.fail_on_regression:
        raise CheckFailed(*worse)


def who_takes_part(args: argparse.Namespace) -> tuple[list[Contestant], list[str], dict[str, str]]:
    """Find the networks.

    Returns:
        The networks, baselines first; the names of the baselines; the reasons why others are left out.

    Raises:
        UsageError: If a name is unknown, no baseline is there, or there is nothing to compare.
    """
    baselines = args.baseline or [name for name in ('plain', 'folded') if name in args.networks] or ['plain']
    for name in baselines:
        if name not in args.networks:
            raise UsageError(f"--baseline: '{name}' is not among the networks {', '.join(args.networks)}")
    found = {name: find(name, args.depth, args.base_channels) for name in dict.fromkeys([*baselines, *args.networks])}
    left_out = {name: c for name, c in found.items() if isinstance(c, str)}
    contestants = [c for c in found.values() if not isinstance(c, str)]
    there = [name for name in baselines if name not in left_out]
    if not there or len(contestants) < 2:
        reasons = '; '.join(f'{name}: {reason}' for name, reason in left_out.items()) or 'one network'
        raise UsageError(f'--networks: nothing to compare ({reasons})')
    return contestants, there, left_out


def make_settings(args: argparse.Namespace, baselines: Sequence[str], *, threads: int) -> Settings:
    """Turn the options into settings."""
    return Settings(
        measures=args.measures,
        baselines=baselines,
        depth=args.depth,
        base_channels=args.base_channels,
        sizes=args.sizes,
        batch_size=args.batch_size,
        eval_batch_size=args.eval_batch_size,
        widths=args.widths or (),
        compiled=args.compiled,
        rounds=args.rounds,
        processes=args.processes,
        threads=threads,
        detector=args.detector,
        checkpoint=args.checkpoint,
        options=args.cfg_options or (),
    )


def write(out: Path, page: str | None, rows: Sequence[Row], about: dict[str, Any]) -> list[Path]:
    """Write numbers, table and figure to a folder, and the table into a page; return the files.

    Raises:
        UsageError: If the page cannot be written.
    """
    table = report.as_markdown(rows, about)
    written = [
        write_json(out / 'benchmark.json', {**about, 'rows': rows}),
        write_whole(out / 'benchmark.md', table),
        write_whole(out / 'benchmark.png', report.figure(rows, about)),
    ]
    if page is not None:
        try:
            written.append(report.write_into(Path(page), table, about['device']))
        except (OSError, ValueError) as error:
            raise UsageError(f"--markdown '{page}' cannot be written: {error}") from error
    return written
