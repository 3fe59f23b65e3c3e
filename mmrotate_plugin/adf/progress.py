"""Show a progress bar without another package."""

import sys
import time
from collections.abc import Iterator

WIDTH = 30


def track(steps: int, text: str, show: bool | None = None) -> Iterator[int]:
    """Count from 0 to `steps` - 1 and show the progress on stderr.

    Args:
        steps: Number of steps.
        text: Description of the work.
        show: None shows the bar if stderr is a terminal, True always, False never.
    """
    terminal = sys.stderr.isatty()
    shown = terminal if show is None else show
    start = time.monotonic()
    try:
        for i in range(steps):
            yield i
            # ten lines in a file, one changing line on a terminal
            if shown and (terminal or (i + 1) * 10 // steps > i * 10 // steps):
                done = WIDTH * (i + 1) // steps
                left = (time.monotonic() - start) / (i + 1) * (steps - i - 1)
                bar = '#' * done + '.' * (WIDTH - done)
                start_of_line, end = ('\r', ' ') if terminal else ('', '\n')
                sys.stderr.write(f'{start_of_line}{text} [{bar}] {i + 1}/{steps}, {left:.0f} s left{end}')
                sys.stderr.flush()
    finally:
        if shown and terminal:
            sys.stderr.write('\n')
