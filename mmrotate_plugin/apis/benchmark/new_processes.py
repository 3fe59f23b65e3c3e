"""Measure first builds, imports and memory, each in a new process."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ...utils.errors import UsageError
from .contestants import Contestant
from .measure import Settings, list_pairs, say
from .timing import Row, interleave, pairs_of, rows_of

SCRIPT = Path(__file__).with_name('_one_process.py')
ROOT = Path(__file__).resolve().parents[3]
# freed memory goes back at once, so that the peak is what is in use and not what the allocator hoards
MALLOC = {'MALLOC_MMAP_THRESHOLD_': '65536', 'MALLOC_TRIM_THRESHOLD_': '65536', 'MALLOC_ARENA_MAX': '1'}


def measure_in_new_processes(
    contestants: Sequence[Contestant], settings: Settings, device: torch.device
) -> tuple[list[Row], dict[str, float]]:
    """Measure first build and memory, each time in a new process.

    Returns:
        The rows, and the median seconds that the imports took.

    Raises:
        UsageError: If a process fails, for example because memory runs out.
    """
    measures = [name for name in ('build', 'memory') if name in settings.measures]
    if 'memory' in measures and device.type == 'cpu' and not Path('/proc/self/clear_refs').exists():
        say("memory: left out, it needs Linux's /proc")
        measures.remove('memory')
    first = settings.baselines[:1]
    pairs = list(dict.fromkeys(pair for name in measures for pair in pairs_of(contestants, first, name)))
    if not pairs:
        return [], {}
    runs: list[dict[str, float]] = []

    def run(name: str) -> int:
        done = subprocess.run(
            command(name, measures, settings, device),
            env=environment(settings.threads),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise UsageError(
                f'the process that measures {name} ended with {done.returncode}: {done.stderr.strip()[-500:]}'
            )
        runs.append(json.loads(done.stdout.splitlines()[-1]))
        return len(runs) - 1

    say(f'in new processes: {settings.processes} x {list_pairs(pairs)}')
    rounds = interleave(pairs, settings.processes, run, say, warm_up=False)
    shape = f'{settings.batch_size}x{max(settings.sizes)}x{max(settings.sizes)}'
    rows: list[Row] = []
    for key, name, title, unit in (
        ('first', 'build', 'build, first', 's'),
        ('peak', 'memory', f'memory, peak {shape}', 'byte'),
        ('kept', 'memory', f'memory, kept {shape}', 'byte'),
    ):
        wanted = pairs_of(contestants, first, name) if name in measures else []
        rows += rows_of(
            title,
            unit,
            {pair: [(runs[int(i)][key], runs[int(j)][key]) for i, j in rounds[pair]] for pair in wanted},
        )
    return rows, {key: float(np.median([run[key] for run in runs])) for key in ('import_e2cnn', 'import')}


def command(name: str, measures: Sequence[str], settings: Settings, device: torch.device) -> list[str]:
    """Return the command of a process that measures one network and prints numbers as JSON."""
    size = max(settings.sizes) if 'memory' in measures else 0
    options: dict[str, object] = {
        'network': name,
        'depth': settings.depth,
        'base-channels': settings.base_channels,
        'batch-size': settings.batch_size,
        'size': size,
        'threads': settings.threads,
        'device': device,
    }
    return [sys.executable, str(SCRIPT), *(str(word) for key, value in options.items() for word in (f'--{key}', value))]


def environment(threads: int) -> dict[str, str]:
    """Return the environment of such a process: this package comes first, the script's own folder stays out."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
    return {**os.environ, 'OMP_NUM_THREADS': str(threads), 'PYTHONPATH': path, 'PYTHONSAFEPATH': '1', **MALLOC}
