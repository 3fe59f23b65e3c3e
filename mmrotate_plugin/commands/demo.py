"""Make data, train a detector with ReResNet, test it, and draw what it finds and how certain it is.

Each step is one of the other tools, printed as a command line that can be copied. A second run skips a finished
training and continues an interrupted one.
"""

import argparse
import hashlib
import json
import re
import shutil
import signal
import sys
from pathlib import Path
from time import monotonic
from typing import Any

from ..utils.atomic_files import write_json
from ..utils.errors import CheckFailed, UsageError
from . import _demo_steps as steps
from ._demo_steps import Steps, duration, relative

UNCERTAIN = {
    'configs/synthetic/rotated-fcos_re18_fpn_synthetic.py': ('configs/adf/uncertain-rotated-fcos_re18_fpn_synthetic.py')
}
SCORE = 0.2  # lowest score to draw: after so short a training, right detections score between 0.2 and 0.7
CALIBRATED_AT = 8  # grey levels, between those of the two halves: the scenes' own noise, and this with NOISE
NOISE = 15  # grey levels that are added to the right half
LEAST_MAP = 0.5  # far below what the training reaches; less means that something is broken


def demo(args: argparse.Namespace) -> None:
    """Run all steps below the work directory.

    Raises:
        UsageError: If a config or the work directory cannot be used.
        CheckFailed: If a step fails, or the detector is worse than it should be.
    """
    if not (steps.ROOT / 'tools/train.py').is_file():
        raise UsageError('the demo needs a checkout of the repository, with its configs and tools: run make demo there')
    for option, config in (('--config', args.config), ('--uncertain-config', args.uncertain_config)):
        if config is not None and not (steps.ROOT / config).is_file():
            raise UsageError(f"{option} '{config}' does not exist")
    run = Demo(args)
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        claim(args.work_dir, run, fresh=args.fresh)
        run.run()
    except OSError as error:
        raise UsageError(f"--work-dir '{args.work_dir}' cannot be used: {error}") from error
    except KeyboardInterrupt:
        print('\nthe same command continues where it stopped', file=sys.stderr)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def claim(work_dir: Path, run: 'Demo', *, fresh: bool) -> None:
    """Mark a folder as one of the demo, which may replace what is in it; empty it for a fresh start.

    Raises:
        UsageError: If it holds folders that no demo made.
    """
    if fresh and run.stamp.is_file():
        for name in ('data', 'train', 'test', 'drawn', 'uncertain'):
            shutil.rmtree(run.work_dir / name, ignore_errors=True)
    run.work_dir.mkdir(parents=True, exist_ok=True)
    if not run.stamp.is_file():
        if any(path.is_dir() for path in run.work_dir.iterdir()):
            raise UsageError(f"--work-dir '{work_dir}' holds folders that no demo made; give a new one")
        write_json(run.stamp, {})


class Demo:
    """The demo: files below `work_dir`, steps, and what they found."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.work_dir: Path = args.work_dir.absolute()
        self.config: str = args.config
        self.uncertain: str | None = args.uncertain_config or UNCERTAIN.get(args.config)
        self.options: list[str] = ['--cfg-options', *args.cfg_options] if args.cfg_options else []
        self.stamp = self.work_dir / 'demo.json'
        self.steps = Steps(self.work_dir, 8 if self.uncertain else 4)

    def run(self) -> None:
        """Run the steps and print what came out.

        Raises:
            CheckFailed: If the mAP is far below what the training reaches.
        """
        start = monotonic()
        data, trained, tested = (self.work_dir / name for name in ('data', 'train', 'test'))
        drawn = self.work_dir / 'drawn'

        self.steps.run(1, 'data', ['make_synthetic.py', '--out', data, '--train', 60, '--val', 12])
        self.train(trained)
        checkpoint = trained / Path((trained / 'last_checkpoint').read_text().strip()).name
        pictures = tested / 'pictures'
        shutil.rmtree(pictures, ignore_errors=True)
        test = ['test.py', self.config, checkpoint, '--work-dir', tested, '--show-dir', pictures, '--show-num', 24]
        self.steps.run(3, 'test', [*test, '--show-score-thr', SCORE, *self.options])
        draw = ['image_demo.py', data / 'val/images', self.config, checkpoint, '--out', drawn, '--score-thr', SCORE]
        self.steps.run(4, 'draw', [*draw, *self.options])
        shown = self.show_uncertainty(self.uncertain, checkpoint) if self.uncertain else []

        metrics = read_metrics(tested)
        mean_ap = next(value for key, value in metrics.items() if key.endswith('mAP'))
        spent = ', '.join(f'{name} {duration(seconds)}' for name, seconds in self.steps.seconds.items())
        print(f'\nDone in {duration(monotonic() - start)} ({spent}).')
        print(f'mAP@0.5 on test scenes that were not trained on: {number(mean_ap)}')
        if shown:
            found = read_metrics(self.work_dir / 'uncertain/test')
            inside, ranks = (found.get(f'uncertainty/{key}') for key in ('coverage_1_all', 'spearman_box'))
            print(
                f'Within one standard deviation of the truth: {number(inside)} of the coordinates (0.683 if errors '
                f'came from noise alone)\nRank correlation of deviation and error: {number(ranks)}'
            )
        print('\nTo look at:')
        for what, path in (
            ('ground truth | prediction', min(pictures.glob('*.png'))),
            ('  more of them in', pictures),
            ('detections on image files', min(drawn.glob('*.png'))),
            ('table of each class', self.steps.log('test')),
            ('metrics', tested / 'test_metrics.json'),
            ('log of the training', self.steps.log('train')),
            ('checkpoint', checkpoint),
            ('images and labels (DOTA)', data),
            *shown,
        ):
            print(f'  {what + ":":27} {relative(path)}')
        if mean_ap is None or mean_ap < LEAST_MAP:
            raise CheckFailed(f'\nerror: mAP {number(mean_ap)} is below {LEAST_MAP}: something is broken')

    def show_uncertainty(self, config: str, checkpoint: Path) -> list[tuple[str, Path]]:
        """Show how certain detections are, on scenes whose right half is noisy; return what there is to look at."""
        folder = self.work_dir / 'uncertain'
        calibrated, scenes, tested, drawn = (folder / name for name in ('calibrated.pth', 'scenes', 'test', 'drawn'))
        inner = [re.sub(r'^model\.', 'model.detector.', option) for option in self.options]
        fit = ['calibrate_uncertainty.py', config, checkpoint, '--noise-std', CALIBRATED_AT]
        self.steps.run(5, 'calibrate', [*fit, '--out', calibrated, *inner])
        noisy = [
            f'test_dataloader.dataset.noise_std=0,{NOISE}',
            'test_dataloader.dataset.length=30',
            'default_hooks.logger.interval=10',
        ]
        options = ['--cfg-options', *inner[1:], *noisy]
        self.steps.run(6, 'compare', ['test.py', config, calibrated, '--work-dir', tested, *options])
        make = ['make_synthetic.py', '--out', scenes, '--train', 0, '--val', 3, '--seed', 20, '--noise-std', 0, NOISE]
        self.steps.run(7, 'noisy', make)
        shutil.rmtree(drawn, ignore_errors=True)
        draw = ['image_demo.py', scenes / 'val/images', config, calibrated, '--uncertainty', '--out', drawn]
        self.steps.run(8, 'bands', [*draw, '--score-thr', SCORE, *inner])
        picture = min(path for path in drawn.glob('*.png') if '.heatmap' not in path.name)
        return [
            ('boxes with one-sigma bands', picture),
            ('  heat map of the scores', picture.with_suffix('.heatmap.png')),
            ('table of the uncertainty', self.steps.log('compare')),
            ('calibrated checkpoint', calibrated),
        ]

    def train(self, folder: Path) -> None:
        """Train, or continue, unless the same training has finished before."""
        key = self.training_key()
        try:
            stamp: dict[str, Any] = json.loads(self.stamp.read_text())
        except (OSError, ValueError):
            stamp = {}
        if stamp.get('key') != key and folder.exists():
            print('\nThe config is not that of the last demo: training starts over.')
            shutil.rmtree(folder)
        elif stamp.get('finished') and (folder / 'last_checkpoint').is_file():
            place = f'[2/{self.steps.count}] train'
            print(f'\n{place}: finished before, in {relative(folder)}; to repeat: make demo ARGS=--fresh')
            return
        write_json(self.stamp, {'key': key, 'finished': False})
        resume = ['--resume'] if (folder / 'last_checkpoint').is_file() else []
        # an interrupted training loses an epoch at most
        often = ['default_hooks.checkpoint.interval=1', 'default_hooks.checkpoint.max_keep_ckpts=1']
        options = ['--cfg-options', *often, *self.options[1:]]
        self.steps.run(2, 'train', ['train.py', self.config, '--work-dir', folder, *resume, *options])
        write_json(self.stamp, {'key': key, 'finished': True})

    def training_key(self) -> str:
        """Hash what is trained: the config, the local parts that it is made of, and the options."""
        files = [steps.ROOT / self.config, *sorted((steps.ROOT / 'configs/_base_').rglob('*.py'))]
        text = b''.join(file.read_bytes() for file in files if file.is_file())
        return hashlib.sha256(text + repr(self.options).encode()).hexdigest()[:16]


def read_metrics(folder: Path) -> dict[str, float | None]:
    """Read the metrics that the test tool wrote."""
    metrics: dict[str, float | None] = json.loads((folder / 'test_metrics.json').read_text())['metrics']
    return metrics


def number(value: float | None) -> str:
    """Format a metric."""
    return 'undefined' if value is None else f'{value:.3f}'
