"""Look at a data set before training."""

import argparse
import sys
import time
from pathlib import Path

from ..apis import browsing
from ..apis.browsing.page import class_rows, part_rows
from ..datasets.statistics.problems import line_of
from ..utils.table import aligned

EVERY = 0.2  # seconds between two lines of progress


def browse_dataset(args: argparse.Namespace) -> None:
    """Count, measure and draw; print the tables and the findings.

    Raises:
        InputError: If nothing can be read, or the folder not be written.
    """
    shown = [0.0]

    def progress(what: str, count: int) -> None:
        if sys.stdout.isatty() and time.monotonic() - shown[0] > EVERY:
            shown[0] = time.monotonic()
            print(f'\r{what}: {count} images ', end='', flush=True)

    out = args.out or Path('work_dirs') / 'browse' / (Path(args.config).resolve().stem or 'dataset')
    done = browsing.browse_dataset(
        args.config,
        out,
        number=args.number,
        seed=args.seed,
        parts=args.parts,
        options=args.cfg_options,
        from_format=args.from_format,
        angle=args.angle,
        progress=progress,
    )
    print('\r' if sys.stdout.isatty() else '', end='')
    if done.format:
        print(f'{done.source} is {done.format}\n')
    print(aligned(part_rows(done.parts, done.measures), right=range(1, 9)))
    print()
    rows = class_rows(done.parts, done.measures)
    print(aligned(rows, right=range(1, len(rows[0]))))
    print('\nsize: square root of the area, pixels; the middle one, and those of 5 and 95 %')
    for problem in done.problems:
        print(f'note: {line_of(problem)}')
    print(f'\n{done.page} shows samples and figures; the numbers are in {done.numbers}')
