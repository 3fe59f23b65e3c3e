"""Run the steps of the demo: one tool each, with its progress on the screen and its whole output in a log file."""

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ..utils.errors import CheckFailed

ROOT = Path(__file__).resolve().parents[2]  # of the checkout
SHOWN = re.compile(
    r'[|+]|(train|val): |error: |warning: |.* detections -> |'
    r'Monte Carlo|detections +gain|(x|y|w|h|angle|score) +[\d.]+ +[\d.]+ \(|'  # of the calibration
    r' +cx +cy|(coverage|calibration|nll|spearman|pearson|ause|score_calibration|pdq)\w* +\S|'  # of UncertaintyMetric
    r'(detections|matched|objects) +\d'
)


class Steps:
    """Run numbered steps.

    Args:
        folder: Gets a log file for each step.
        count: Number of steps, for the headings.

    Attributes:
        seconds: Time that each step took.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        self.count = count
        self.seconds: dict[str, float] = {}

    def log(self, name: str) -> Path:
        """Return the log file of a step."""
        return self.folder / f'{name}.log'

    def run(self, number: int, name: str, words: Sequence[object]) -> None:
        """Run one step.

        Args:
            number: From 1 to `count`.
            name: Of the step.
            words: File name of the tool, and its arguments.

        Raises:
            CheckFailed: If it fails; says which step, and where its log is.
        """
        texts = [relative(word) if isinstance(word, Path) else str(word) for word in words]
        place = f'{number}/{self.count}'
        print(f'\n[{place}] {name}\n$ {relative(Path(sys.executable))} tools/{shlex.join(texts)}', flush=True)
        start = time.monotonic()
        status = self._run(name, [sys.executable, str(ROOT / 'tools' / texts[0]), *texts[1:]])
        self.seconds[name] = time.monotonic() - start
        if status:
            tail = self.log(name).read_text().rstrip().split('\n')[-12:]
            print('\n'.join(f'  | {line}' for line in tail))
            raise CheckFailed(
                f'error: step {place}, {name}, failed with status {status}; its log: {relative(self.log(name))}'
            )

    def _run(self, name: str, command: Sequence[str]) -> int:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
        with (
            self.log(name).open('w') as log,
            subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, 'PYTHONPATH': path, 'PYTHONUNBUFFERED': '1'},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors='replace',
            ) as process,
        ):
            try:
                for line in process.stdout or ():
                    log.write(line)
                    if (shown := progress(line)) is not None:
                        print(shown, flush=True)
            except BaseException:  # leave nothing running; Ctrl-C reaches the tool too, so it may be ending already
                try:
                    process.wait(2)
                except subprocess.TimeoutExpired:
                    process.terminate()
                raise
        return process.returncode


def progress(line: str) -> str | None:
    """Return the part of a line that a person wants to see, or None; mmengine also logs environment and config."""
    line = line.rstrip()
    entry = re.match(r'\d\d/\d\d [\d:]+ - mmengine - (\w+) - (.*)', line)
    if entry is None:
        return line if SHOWN.match(line) else None
    level, text = entry.groups()
    if level in ('ERROR', 'CRITICAL') or text.startswith(('Epoch(', 'Iter(', 'resumed', 'finished', 'log every')):
        return re.sub(r'  (lr|time|data_time|memory|grad_norm|uncertainty/\w+): \S+', '', text)
    return None


def relative(path: Path) -> str:
    """Return a path as seen from the checkout, where the commands run; paths outside of it stay whole."""
    try:
        return str(path.absolute().relative_to(ROOT))
    except ValueError:
        return str(path)


def duration(seconds: float) -> str:
    """Format a time span."""
    return f'{int(seconds // 60)} min {int(seconds % 60)} s' if seconds >= 60 else f'{seconds:.0f} s'
