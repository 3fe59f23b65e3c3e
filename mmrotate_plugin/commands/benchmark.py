"""Measure what networks cost, relative to a baseline."""

import argparse
import warnings
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch

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
from ..utils.errors import UsageError
from ..visualization.plots import benchmark as report

ORDER = ('build', 'train', 'eval', 'detect', 'memory', 'checkpoint')


def benchmark(args: argparse.Namespace) -> None:
    """Compare what is claimed to be equal, measure, and write table, numbers and figure."""
    device = select_device(args.device)
    contestants, baselines, left_out = who_takes_part(args)
    out = writable_folder(args.out, '--out')
    if args.detector:  # minutes before they are used
        load_config(args.detector, args.cfg_options)
    if args.checkpoint:
        read_checkpoint(args.checkpoint, '--checkpoint')
    before = torch.get_num_threads()
    settings = make_settings(args, baselines, threads=args.threads or before)
    about: dict[str, Any] = {
        'date': date.today().isoformat(),
        'command': args.quoted,
        **machine(device),
        'threads': settings.threads,
        'depth': args.depth,
        'base_channels': args.base_channels,
        'rounds': args.rounds,
        'processes': args.processes,
        'left_out': left_out,
        'versions': versions(),
    }
    say(f'ResNet-{args.depth}, base_channels={args.base_channels}, {device}, {settings.threads} threads')
    for text in [*(f'{name}: left out, {reason}' for name, reason in left_out.items()), *disturbances(device)]:
        say(text)

    warnings.filterwarnings('ignore', message='torch.utils.checkpoint')  # how mmdet uses it is not ours to change
    torch.set_num_threads(settings.threads)
    try:
        torch.manual_seed(0)
        x = torch.randn(2, 3, min(args.sizes), min(args.sizes), device=device)
        with full_precision():
            nets, about['errors'] = prepare(contestants, x, say)
            rows = measure(contestants, nets, settings, device) + detections(settings, device)
        nets.clear()  # on a GPU, the other processes need the memory
    finally:
        torch.set_num_threads(before)
    elsewhere, about['imports'] = measure_in_new_processes(contestants, settings, device)
    rows = sorted(elsewhere + rows, key=lambda row: ORDER.index(row['measure'].split(' ')[0].rstrip(',')))

    print(f'\n{report.as_text(rows)}\n')
    print('\n'.join(map(str, write(out, args.markdown, rows, about))))


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
