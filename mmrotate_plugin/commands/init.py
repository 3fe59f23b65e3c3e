"""Write a config for a folder of images and labels."""

import argparse
import sys
import time

from ..apis.own_data import init_config

EVERY = 0.2  # seconds between two lines of progress


def init(args: argparse.Namespace) -> None:
    """Write the config, and say what was found and chosen.

    Raises:
        InputError: If no config can be written.
    """
    shown = [0.0]

    def progress(count: int) -> None:
        if sys.stdout.isatty() and time.monotonic() - shown[0] > EVERY:
            shown[0] = time.monotonic()
            print(f'\rread: {count} images ', end='', flush=True)

    done = init_config(
        args.folder,
        args.out,
        from_format=args.from_format,
        device=args.device,
        force=args.force,
        progress=progress,
    )
    print('\r' if sys.stdout.isatty() else '', end='')
    chosen = done.choices
    print(
        f'{args.folder} is {done.format}: {done.objects} objects of {len(done.classes)} classes to learn from '
        f'{done.train} images, {done.val} images to validate'
    )
    print(f'scale {chosen.scale}, batches of {chosen.batch}, {chosen.epochs} epochs; the reasons are in {done.config}')
    for note in done.notes:
        print(f'note: {note}')
    print(f'next: mmrotate-plugin train {done.config}')
