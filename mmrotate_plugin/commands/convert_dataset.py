"""Convert a labelled data set from one format to another."""

import argparse
import sys
import time

from ..datasets.formats import convert
from ..utils.errors import UsageError

EVERY = 0.2  # seconds between two lines of progress


def convert_dataset(args: argparse.Namespace) -> None:
    """Convert, and say what was written and what was left behind.

    Raises:
        InputError: If the source cannot be read, or the folder not be written.
    """
    shown = [0.0]

    def progress(what: str, count: int) -> None:
        if sys.stdout.isatty() and time.monotonic() - shown[0] > EVERY:
            shown[0] = time.monotonic()
            print(f'\r{what}: {count} images ', end='', flush=True)

    try:
        done = convert.convert_dataset(
            args.source,
            args.out,
            args.to,
            from_format=args.from_format,
            images=args.images,
            strict=args.strict,
            angle=args.angle,
            progress=progress,
        )
    except (ValueError, FileNotFoundError) as error:  # of the source, as a data set says it
        raise UsageError(str(error)) from error
    report(done, args)


def report(done: convert.Conversion, args: argparse.Namespace) -> None:
    """Print the counts, then what was left behind, one line each."""
    parts = ', '.join(f'{name} {count}' for name, count in done.splits.items() if name)
    print('\r' if sys.stdout.isatty() else '', end='')
    print(
        f'{args.source} ({done.format}) to {args.out} ({args.to}): {done.images} images'
        f'{f" ({parts})" if parts else ""}, {done.objects} objects of {len(done.classes)} classes, '
        f'{done.empty} images without objects'
    )
    for line in done.lost:
        print(f'note: {line}')
