"""Run the steps of the demo: one tool each, with its progress on the screen and its whole output in a log file."""

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..utils.errors import CheckFailed

ROOT = Path(__file__).resolve().parents[2]  # of the checkout
AT_ONCE = 2  # steps, each on its part of the cores
PAUSE = 0.05  # seconds between two looks at the steps
PATIENCE = 2.0  # seconds that a step has to end after Ctrl-C, which reaches it too
SHOWN = re.compile(
    r'[|+]|(train|val): |error: |warning: |.* detections -> |'
    r'Monte Carlo|detections +gain|(x|y|w|h|angle|score) +[\d.]+ +[\d.]+ \(|'  # of the calibration
    r' +cx +cy|(coverage|calibration|nll|spearman|pearson|ause|score_calibration|pdq)\w* +\S|'  # of UncertaintyMetric
    r'(detections|matched|objects) +\d'
)


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        name: Also that of the log file.
        words: File name of the tool, and its arguments.
        needs: Names of steps of the same call of `Steps.run` that have to be done before.
    """

    name: str
    words: Sequence[object]
    needs: tuple[str, ...] = ()


@dataclass
class _Running:
    process: subprocess.Popen[bytes]
    start: float


class Steps:
    """Run numbered steps, two at a time where there are two cores.

    The screen shows them one after another: a step whose turn comes late shows at once what it has said so far.

    Args:
        folder: Gets a log file for each step.
        names: Of all steps, in the order in which they are shown.

    Attributes:
        seconds: Time that each step took.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder = folder
        self.names = list(names)
        self.cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
        self.at_once = min(AT_ONCE, self.cores)
        self.seconds: dict[str, float] = {}
        self._running: dict[str, _Running] = {}

    def log(self, name: str) -> Path:
        """Return the log file of a step."""
        return self.folder / f'{name}.log'

    def heading(self, name: str) -> str:
        """Return the heading of a step."""
        return f'[{self.names.index(name) + 1}/{len(self.names)}] {name}'

    def run(self, steps: Sequence[Step]) -> None:
        """Run steps, as soon as what they need is done; of those that could start, the first.

        Raises:
            CheckFailed: If one fails; says which, and where its log is. The others are ended.
        """
        shown = self._show(sorted(steps, key=lambda step: self.names.index(step.name)))
        waiting = list(steps)
        try:
            while waiting or self._running:
                ready = [step for step in waiting if self.seconds.keys() >= {*step.needs}]
                for step in ready[: self.at_once - len(self._running)]:
                    waiting.remove(step)
                    self._start(step)
                next(shown, None)
                self._collect(steps)
                time.sleep(PAUSE)
            for _ in shown:
                pass
        except BaseException:  # leave nothing running
            self._end()
            raise

    def _start(self, step: Step) -> None:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
        # two threads are no faster than one on maps as small as those of the demo; threads that wait actively would
        # take the cores from the other step
        threads = max(1, self.cores // self.at_once)
        env = {'OMP_NUM_THREADS': str(threads), 'OMP_WAIT_POLICY': 'PASSIVE', **os.environ}
        tool, *words = texts(step)
        with self.log(step.name).open('wb') as log:
            process = subprocess.Popen(
                [sys.executable, str(ROOT / 'tools' / tool), *words],
                cwd=ROOT,
                env={**env, 'PYTHONPATH': path, 'PYTHONUNBUFFERED': '1'},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._running[step.name] = _Running(process, time.monotonic())

    def _collect(self, steps: Sequence[Step]) -> None:
        """Take note of the steps that have ended."""
        for step in steps:
            running = self._running.get(step.name)
            if running is None or (status := running.process.poll()) is None:
                continue
            del self._running[step.name]
            self.seconds[step.name] = time.monotonic() - running.start
            if status:
                heading, log = self.heading(step.name), self.log(step.name)
                tail = log.read_text(errors='replace').rstrip().split('\n')[-12:]
                print(f'\n{heading} failed:\n' + '\n'.join(f'  | {line}' for line in tail), flush=True)
                raise CheckFailed(f'error: step {heading} failed with status {status}; its log: {relative(log)}')

    def _show(self, steps: Sequence[Step]) -> Iterator[None]:
        """Print what the steps say, one after another; each iteration prints what is new."""
        for step in steps:
            while step.name not in self._running and step.name not in self.seconds:
                yield
            tool = f'{relative(Path(sys.executable))} tools/{shlex.join(texts(step))}'
            print(f'\n{self.heading(step.name)}\n$ {tool}', flush=True)
            with self.log(step.name).open(encoding='utf-8', errors='replace') as log:
                while step.name in self._running:
                    follow(log)
                    yield
                follow(log, to_end=True)

    def _end(self) -> None:
        """End what is running; Ctrl-C reaches the tools too, so they may be ending already."""
        deadline = time.monotonic() + PATIENCE
        for running in self._running.values():
            try:
                running.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                running.process.terminate()
        for running in self._running.values():
            running.process.wait()
        self._running.clear()


def follow(log: IO[str], *, to_end: bool = False) -> None:
    """Print what a person wants to see of the new lines of a log; the last line waits until it is whole."""
    while True:
        start = log.tell()
        line = log.readline()
        if not line.endswith('\n') and not (to_end and line):
            log.seek(start)
            return
        if (shown := progress(line)) is not None:
            print(shown, flush=True)


def texts(step: Step) -> list[str]:
    """Return the words of a step as they are typed."""
    return [relative(word) if isinstance(word, Path) else str(word) for word in step.words]


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
