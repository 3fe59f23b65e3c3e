"""Split a labelled data set of large images into one of overlapping patches."""

import argparse
import sys
import time
from pathlib import Path

from ..datasets.patches import split
from ..datasets.patches.plan import sum_of
from ..utils.atomic_files import write_json
from ..utils.errors import UsageError
from ..utils.table import ruled

EVERY = 0.2  # seconds between two lines of progress on a terminal


def split_dataset(args: argparse.Namespace) -> None:
    """Split, and print the counts before and after.

    Raises:
        InputError: If the source cannot be read, or the folder not be written.
    """
    try:
        done = split.split_dataset(
            args.source,
            args.out,
            to=args.to,
            from_format=args.from_format,
            sizes=args.sizes,
            gaps=args.gaps,
            rates=args.rates,
            img_rate_thr=args.img_rate_thr,
            iof_thr=args.iof_thr,
            padding=not args.no_padding,
            padding_value=args.padding_value,
            save_ext=args.save_ext,
            nproc=args.nproc,
            strict=args.strict,
            angle=args.angle,
            progress=Progress(),
        )
    except (ValueError, FileNotFoundError) as error:  # of the source, as a data set says it
        raise UsageError(str(error)) from error
    report(done, args.source, args.out)
    if args.out_json is not None:
        try:
            write_json(args.out_json, vars(done))
        except OSError as error:
            raise UsageError(f"--out-json '{args.out_json}' cannot be written: {error.strerror}") from error


class Progress:
    """Show how far it is: one line that changes on a terminal, ten lines of the patches elsewhere."""

    def __init__(self) -> None:
        self.shown = 0.0
        self.terminal = sys.stderr.isatty()

    def __call__(self, what: str, count: int, total: int) -> None:
        """Show a number of images or patches."""
        unit = 'patches' if what == 'written' else 'images'
        of = f' of {total}' if total else ''
        if self.terminal:
            if time.monotonic() - self.shown > EVERY or count == total:
                self.shown = time.monotonic()
                print(f'\r{what}: {count}{of} {unit} ', end='\n' if count == total else '', file=sys.stderr, flush=True)
        elif total and count * 10 // total > (count - 1) * 10 // total:
            print(f'{what}: {count}{of} {unit}', file=sys.stderr, flush=True)


def report(done: split.Split, source: Path, out: Path) -> None:
    """Print the counts by class, then what was left behind, one line each."""
    if done.before:
        rows = [
            [name, done.before[name], done.whole[name], done.lost[name], done.after[name]]
            for name in done.classes
            if done.before[name]
        ]
        sums = [sum_of(counts) for counts in (done.before, done.whole, done.lost, done.after)]
        print(ruled([['class', 'objects', 'whole in a patch', 'in no patch', 'in patches'], *rows, ['all', *sums]]))
    parts = ', '.join(f'{name} {count}' for name, count in done.splits.items() if name)
    print(
        f'{source} ({done.format}) to {out} ({done.to}): {done.images} images to {done.patches} patches'
        f'{f" ({parts})" if parts else ""}, {done.empty} without objects; {done.partial} objects in patches are cut'
    )
    if done.continued:
        print(f'note: {done.continued} patches were there already')
    for line in done.notes:
        print(f'note: {line}')
