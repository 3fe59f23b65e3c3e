#!/usr/bin/env python
"""From nothing to pictures: make data, train a detector with ReResNet, test it, draw what it finds and how surely.

`make demo` runs this. Every step is one of the other tools, printed as a command line that can be copied. A second
call trains no more if the training has finished, and goes on with it if it was interrupted.
"""

import argparse
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONFIG = 'configs/synthetic/rotated-fcos_re18_fpn_synthetic.py'
SCORE = 0.2  # draw from here on: after so short a training right detections score between 0.2 and 0.7
UNCERTAIN = 'configs/adf/uncertain-rotated-fcos_re18_fpn_synthetic.py'
CALIBRATED_AT = 8  # grey levels, between those of the two halves: the scenes' own noise, and this with NOISE
NOISE = 15  # grey levels that are added to the right half
LEAST_MAP = 0.5  # far below what the training reaches; less means that something is broken


class StepFailed(Exception):
    """A step ended with an error; the message says which, and where its log is."""


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train, test and draw a small rotated detector on synthetic scenes.')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/demo'), help='output (default: %(default)s)')
    parser.add_argument('--config', default=CONFIG, help='config to train (default: %(default)s)')
    parser.add_argument(
        '--uncertain-config',
        help='config of an UncertainDetector around the same detector, for the last steps (default: that of the '
        'default config; another config goes without those steps unless this is given)',
    )
    parser.add_argument('--fresh', action='store_true', help='throw an earlier demo away and train again')
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='passed on to the tools')
    return parser.parse_args(argv)


class Demo:
    """The steps, with their log files below `work_dir`."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.work_dir = args.work_dir.absolute()
        self.config = args.config
        self.uncertain = args.uncertain_config or (UNCERTAIN if args.config == CONFIG else None)
        self.steps = 8 if self.uncertain else 4
        self.options = ['--cfg-options', *args.cfg_options] if args.cfg_options else []
        self.stamp = self.work_dir / 'demo.json'
        self.seconds: dict[str, float] = {}

    def run(self) -> int:
        start = time.monotonic()
        data, trained, tested = (self.work_dir / name for name in ('data', 'train', 'test'))
        drawn = self.work_dir / 'drawn'

        self.step(1, 'data', ['make_synthetic.py', '--out', data, '--train', 60, '--val', 12])
        self.train(trained)
        checkpoint = trained / Path((trained / 'last_checkpoint').read_text().strip()).name
        pictures = tested / 'pictures'
        shutil.rmtree(pictures, ignore_errors=True)
        test = ['test.py', self.config, checkpoint, '--work-dir', tested, '--show-dir', pictures, '--show-num', 24]
        test += ['--show-score-thr', SCORE]
        self.step(3, 'test', [*test, *self.options])
        images = data / 'val/images'
        draw = ['image_demo.py', images, self.config, checkpoint, '--out', drawn, '--score-thr', SCORE]
        self.step(4, 'draw', [*draw, *self.options])
        shown = self.show_uncertainty(checkpoint) if self.uncertain else []

        metrics = read_metrics(tested)
        mean_ap = next(value for key, value in metrics.items() if key.endswith('mAP'))
        first = {folder: min(folder.glob('*.png')) for folder in (pictures, drawn)}
        spent = ', '.join(f'{name} {duration(seconds)}' for name, seconds in self.seconds.items())
        print(f'\nDone in {duration(time.monotonic() - start)} ({spent}).')
        print(f'mAP@0.5 on test scenes that were never trained on: {mean_ap:.3f}')
        if shown:
            found = read_metrics(self.work_dir / 'uncertain/test')
            inside, ranks = (found.get(f'uncertainty/{key}') for key in ('coverage_1_all', 'spearman_box'))
            print(
                f'Within one standard deviation of the truth: {number(inside)} of the coordinates (0.683 if errors '
                f'came from noise alone)\nRank correlation of deviation and error: {number(ranks)}'
            )
        print('\nTo look at:')
        for what, path in (
            ('ground truth | prediction', first[pictures]),
            ('  more of them in', pictures),
            ('detections on image files', first[drawn]),
            ('table of each class', self.log('test')),
            ('metrics', tested / 'test_metrics.json'),
            ('log of the training', self.log('train')),
            ('checkpoint', checkpoint),
            ('images and labels (DOTA)', data),
            *shown,
        ):
            print(f'  {what + ":":27} {relative(path)}')
        if mean_ap < LEAST_MAP:
            print(f'\nerror: mAP {mean_ap:.3f} is below {LEAST_MAP}: something is broken', file=sys.stderr)
            return 1
        return 0

    def show_uncertainty(self, checkpoint: Path) -> list[tuple[str, Path]]:
        """How sure the detections are, on scenes whose right half is noisy; returns what there is to look at."""
        folder = self.work_dir / 'uncertain'
        calibrated, scenes, tested, drawn = (folder / name for name in ('calibrated.pth', 'scenes', 'test', 'drawn'))
        inner = [re.sub(r'^model\.', 'model.detector.', option) for option in self.options]
        fit = ['calibrate_uncertainty.py', self.uncertain, checkpoint, '--noise-std', CALIBRATED_AT]
        self.step(5, 'calibrate', [*fit, '--out', calibrated, *inner])
        noisy = [
            f'test_dataloader.dataset.noise_std=0,{NOISE}',
            'test_dataloader.dataset.length=30',
            'default_hooks.logger.interval=10',
        ]
        options = ['--cfg-options', *inner[1:], *noisy]
        self.step(6, 'compare', ['test.py', self.uncertain, calibrated, '--work-dir', tested, *options])
        make = ['make_synthetic.py', '--out', scenes, '--train', 0, '--val', 3, '--seed', 20, '--noise-std', 0, NOISE]
        self.step(7, 'noisy', make)
        shutil.rmtree(drawn, ignore_errors=True)
        draw = ['image_demo.py', scenes / 'val/images', self.uncertain, calibrated, '--uncertainty', '--out', drawn]
        self.step(8, 'bands', [*draw, '--score-thr', SCORE, *inner])
        picture = min(path for path in drawn.glob('*.png') if '.heatmap' not in path.name)
        return [
            ('boxes with one-sigma bands', picture),
            ('  heat map of the scores', picture.with_suffix('.heatmap.png')),
            ('table of the uncertainty', self.log('compare')),
            ('calibrated checkpoint', calibrated),
        ]

    def train(self, folder: Path) -> None:
        """Train, or go on with a training, unless the same training has finished before."""
        key = self.training_key()
        try:
            stamp = json.loads(self.stamp.read_text())
        except (OSError, ValueError):
            stamp = {}
        if stamp.get('key') != key and folder.exists():
            print('\nThe config is not that of the last demo: it is trained anew.')
            shutil.rmtree(folder)
        elif stamp.get('finished') and (folder / 'last_checkpoint').is_file():
            print(
                f'\n[2/{self.steps}] train: finished before, in {relative(folder)}; to repeat: make demo ARGS=--fresh'
            )
            return
        write(self.stamp, {'key': key, 'finished': False})
        resume = ['--resume'] if (folder / 'last_checkpoint').is_file() else []
        # an interrupted training loses an epoch at most
        often = ['default_hooks.checkpoint.interval=1', 'default_hooks.checkpoint.max_keep_ckpts=1']
        options = ['--cfg-options', *often, *self.options[1:]]
        self.step(2, 'train', ['train.py', self.config, '--work-dir', folder, *resume, *options])
        write(self.stamp, {'key': key, 'finished': True})

    def training_key(self) -> str:
        """A hash of what is trained: the config, the local parts that it is made of, and the options."""
        files = [ROOT / self.config, *sorted((ROOT / 'configs/_base_').rglob('*.py'))]
        text = b''.join(file.read_bytes() for file in files if file.is_file())
        return hashlib.sha256(text + repr(self.options).encode()).hexdigest()[:16]

    def log(self, name: str) -> Path:
        return self.work_dir / f'{name}.log'

    def step(self, step: int, name: str, words: list[object]) -> None:
        """Run one tool; its whole output goes to a log file, what tells the progress to the screen."""
        words = [relative(word) if isinstance(word, Path) else str(word) for word in words]
        number = f'{step}/{self.steps}'
        command = [sys.executable, str(ROOT / 'tools' / words[0]), *words[1:]]
        print(f'\n[{number}] {name}\n$ {relative(Path(sys.executable))} tools/{shlex.join(words)}', flush=True)
        start = time.monotonic()
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
                for line in process.stdout:
                    log.write(line)
                    if (shown := progress(line)) is not None:
                        print(shown, flush=True)
            except BaseException:  # leave nothing running; Ctrl-C reaches the tool too, so it may be ending already
                try:
                    process.wait(2)
                except subprocess.TimeoutExpired:
                    process.terminate()
                raise
        self.seconds[name] = time.monotonic() - start
        if process.returncode:
            tail = self.log(name).read_text().rstrip().split('\n')[-12:]
            print('\n'.join(f'  | {line}' for line in tail))
            raise StepFailed(
                f'step {number}, {name}, failed with status {process.returncode}; its log: {relative(self.log(name))}'
            )


def read_metrics(folder: Path) -> dict[str, float | None]:
    return json.loads((folder / 'test_metrics.json').read_text())['metrics']


def number(value: float | None) -> str:
    return 'undefined' if value is None else f'{value:.3f}'


def write(path: Path, value: dict[str, object]) -> None:
    partial = path.with_name(f'.{path.name}')
    partial.write_text(json.dumps(value))
    partial.replace(path)


SHOWN = re.compile(
    r'[|+]|(train|val): |error: |warning: |.* detections -> |'
    r'Monte Carlo|detections +gain|(x|y|w|h|angle|score) +[\d.]+ +[\d.]+ \(|'  # of the calibration
    r' +cx +cy|(coverage|calibration|nll|spearman|pearson|ause|score_calibration|pdq)\w* +\S|'  # of UncertaintyMetric
    r'(detections|matched|objects) +\d'
)


def progress(line: str) -> str | None:
    """The part of a line that a person wants to see, or None; mmengine logs its environment and config too."""
    line = line.rstrip()
    entry = re.match(r'\d\d/\d\d [\d:]+ - mmengine - (\w+) - (.*)', line)
    if entry is None:
        return line if SHOWN.match(line) else None
    level, text = entry.groups()
    if level in ('ERROR', 'CRITICAL') or text.startswith(('Epoch(', 'Iter(', 'resumed', 'finished', 'log every')):
        return re.sub(r'  (lr|time|data_time|memory|grad_norm|uncertainty/\w+): \S+', '', text)
    return None


def relative(path: Path) -> str:
    """As seen from the root of the repository, where the commands run; outside of it the whole path."""
    try:
        return str(path.absolute().relative_to(ROOT))
    except ValueError:
        return str(path)


def duration(seconds: float) -> str:
    return f'{int(seconds // 60)} min {int(seconds % 60)} s' if seconds >= 60 else f'{seconds:.0f} s'


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    for option, config in (('--config', args.config), ('--uncertain-config', args.uncertain_config)):
        if config is not None and not (ROOT / config).is_file():
            print(f"error: {option} '{config}' does not exist", file=sys.stderr)
            return 2
    demo = Demo(args)
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if args.fresh and demo.stamp.is_file():
            for name in ('data', 'train', 'test', 'drawn', 'uncertain'):
                shutil.rmtree(demo.work_dir / name, ignore_errors=True)
        demo.work_dir.mkdir(parents=True, exist_ok=True)
        if not demo.stamp.is_file():
            if any(path.is_dir() for path in demo.work_dir.iterdir()):
                print(f"error: --work-dir '{args.work_dir}' holds what no demo made; give a new one", file=sys.stderr)
                return 2
            write(demo.stamp, {})  # from here on the folders in it are the demo's, to be replaced
        return demo.run()
    except StepFailed as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: --work-dir '{args.work_dir}' cannot be used: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('\ninterrupted; the same command goes on where it stopped', file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == '__main__':
    sys.exit(main())
