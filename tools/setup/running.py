"""Run the commands of the set-up: output in a file, a line now and then on how far it is, one line where it fails."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

INTERVAL = 20  # seconds between two lines
REASONS = {
    r'No space left on device': 'the disk is full',
    r'Killed signal|[Cc]annot allocate memory|MemoryError': 'out of memory (try MAX_JOBS=1)',
    r'Temporary failure in name|NewConnectionError|ConnectTimeout|ReadTimeout|ProxyError|connection broken|'
    r'Network is unreachable|error sending request|operation timed out': 'the package index cannot be reached '
    '(network, proxy, or the configuration of uv or pip)',
}


class SetupError(Exception):
    """Ends the set-up with one line."""


def say(text: str) -> None:
    print(f'set-up: {text}', flush=True)


def answer(*command: object, **options) -> str | None:
    """What a short command prints, or None if it fails."""
    try:
        return subprocess.run([*map(str, command)], capture_output=True, text=True, check=True, **options).stdout
    except (OSError, subprocess.CalledProcessError):
        return None


def reason(log: Path) -> str:
    """Why a command failed, from its log."""
    text = log.read_text(encoding='utf-8', errors='replace')
    for pattern, meaning in REASONS.items():
        if re.search(pattern, text):
            return meaning
    missing = re.search(r'No matching distribution found for \S+|there is no version of \S+', text)
    lines = text.split('\n') if text.strip() else ['no output']
    errors = [line for line in lines if re.search('Error|ERROR|error:', line)]
    return missing[0] if missing else (errors or text.strip().split('\n'))[-1][:200]


class Runner:
    """Runs commands with the variables `env`; the output of NAME goes to `folder`/setup-NAME.log."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder, self.env = folder, env

    def log(self, name: str) -> Path:
        return self.folder / f'setup-{name}.log'

    def works(self, name: str, *command: object, progress: Callable[[str, float], str] | None = None) -> bool:
        """Run a command; whether it succeeds. `progress` makes a note of its output and the seconds so far."""
        log, start = self.log(name), time.monotonic()
        with log.open('wb') as out:
            # its own process group, so that an interruption reaches the compilers too
            child = subprocess.Popen([*map(str, command)], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                     env=self.env, start_new_session=True)  # fmt: skip
        try:
            while True:
                try:
                    return child.wait(INTERVAL) == 0
                except subprocess.TimeoutExpired:
                    seconds = time.monotonic() - start
                    note = progress(log.read_text(errors='replace'), seconds) if progress else 'at work'
                    say(f'  {name}: {note} ({seconds // 60:.0f} min {seconds % 60:.0f} s)')
        except KeyboardInterrupt:
            os.killpg(child.pid, signal.SIGTERM)
            child.wait()
            raise

    def run(self, name: str, *command: object, progress: Callable[[str, float], str] | None = None) -> None:
        """Run a command; raise SetupError, with the reason and the log, if it fails."""
        if not self.works(name, *command, progress=progress):
            raise SetupError(f'{name} failed: {reason(self.log(name))}; log: {self.log(name)}')


def main(steps: Callable[[], None]) -> int:
    """Run the set-up; 1 if it fails, 130 if a signal stops it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        steps()
    except SetupError as error:
        print(f'set-up: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('set-up: interrupted; the next run continues here', file=sys.stderr)
        return 130
    return 0
