"""Write where the time of a config's model goes, for ``benchmark --profile``."""

import argparse
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch

from ..apis.benchmark.config_runs import inference_run, load_model, training_run
from ..apis.benchmark.environment import disturbances, machine, versions
from ..apis.benchmark.measure import say
from ..apis.benchmark.profile import grouped, profile
from ..apis.benchmark.roofline import Limits, measure_limits
from ..utils.atomic_files import write_json, write_whole
from ..utils.table import aligned, markdown

HEAD = ('ms', 'share', 'calls', 'Gop', 'MB', 'Gop/s', 'GB/s', 'of bound', 'bound by')
LONGEST = 25  # layers in the tables; the JSON file has all
Row = dict[str, Any]


def write_profile(args: argparse.Namespace, device: torch.device, out: Path) -> None:
    """Profile a training step and an inference, as far as `args.measures` has them; print and write the tables."""
    cfg, model = load_model(args.profile, args.cfg_options or (), device)
    for text in disturbances(device):
        say(text)
    limits = measure_limits(device)
    say(f'this machine: {limits.flops / 1e9:.0f} Gop/s in a matrix product, {limits.bytes / 1e9:.1f} GB/s in a copy')
    about: dict[str, Any] = {
        'date': date.today().isoformat(),
        'command': args.quoted,
        **machine(device),
        'threads': torch.get_num_threads(),
        'versions': versions(),
        'limits': limits._asdict(),
        'passes': {},
    }
    pages = [
        f'- {about["date"]}, `{about["command"]}`',
        f'- {about["gpu"] or about["cpu"]}; threads: {about["threads"]}; load average {about["load"]:.1f}',
        f'- matrix product {limits.flops / 1e9:.0f} Gop/s, copy {limits.bytes / 1e9:.1f} GB/s',
    ]
    for name in ('eval', 'train'):
        if name not in args.measures:
            continue
        run: Callable[[], object]
        optimizer = None
        if name == 'train':
            run, optimizer, shape = training_run(cfg, model, args.batch_size)
        else:
            channels = getattr(getattr(model, 'backbone', None), 'in_channels', 3)
            shape = args.eval_batch_size, channels, args.sizes[0], args.sizes[0]
            run = inference_run(model, shape, device, mode='predict')
        title = f'{name} {"x".join(map(str, shape))}'
        say(f'{title}: 2 x {args.rounds} runs')
        rows, whole = profile(model, run, limits, device, optimizer=optimizer, rounds=args.rounds)
        about['passes'][title] = {'seconds': whole, 'rows': rows}
        for heading, table in tables(rows, whole, limits):
            print(f'\n{title}: {heading}\n{aligned(table, right=range(1, len(table[0]) - 1))}')
            pages += ['', f'## {title}: {heading}', '', markdown(table)]
    written = [
        write_json(out / 'profile.json', about),
        write_whole(out / 'profile.md', '\n'.join(pages) + '\n'),
    ]
    print('\n' + '\n'.join(map(str, written)))


def tables(rows: Sequence[Row], whole: float, limits: Limits) -> list[tuple[str, list[tuple[str, ...]]]]:
    """Lay out a pass by phase and operation, and by layer: a heading and a table each."""
    rows = list(rows)
    operations = sum(row['seconds'] for row in rows)
    first = [_cells(f'{r["phase"]}, {r["operation"]}', r, whole) for r in grouped(rows, limits, 'phase', 'operation')]
    rest = ('between operations', f'{(whole - operations) * 1e3:.2f}', f'{(whole - operations) / whole:.1%}')
    by_layer = grouped(rows, limits, 'layer', 'phase')
    second = [_cells(f'{r["layer"] or "outside of layers"}, {r["phase"]}', r, whole) for r in by_layer[:LONGEST]]
    empty = ('',) * (len(HEAD) - 2)
    heading = 'by layer' if len(by_layer) <= LONGEST else f'the longest {LONGEST} of {len(by_layer)} by layer'
    return [
        (f'{whole * 1e3:.1f} ms by operation', [('operation', *HEAD), *first[:LONGEST], (*rest, *empty)]),
        (heading, [('layer', *HEAD), *second]),
    ]


def _cells(name: str, row: Row, whole: float) -> tuple[str, ...]:
    seconds = max(row['seconds'], 1e-12)
    return (
        name,
        f'{seconds * 1e3:.2f}',
        f'{seconds / whole:.1%}',
        str(row['calls']),
        f'{row["flops"] / 1e9:.3g}',
        f'{row["bytes"] / 1e6:.3g}',
        f'{row["flops"] / seconds / 1e9:.3g}',
        f'{row["bytes"] / seconds / 1e9:.3g}',
        f'{row["least"] / seconds:.0%}',
        row['bound'],
    )
