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

from mmengine.config import Config

from ..utils.atomic_files import write_json
from ..utils.errors import CheckFailed, UsageError
from . import _demo_steps as steps
from ._demo_steps import Step, Steps, duration, relative

UNCERTAIN = {
    f'configs/synthetic/{name}_synthetic.py': f'configs/adf/uncertain-{name}_synthetic.py'
    for name in ('re-fcos_re18_refpn', 'rotated-fcos_re18_fpn')
}
STEPS = ('data', 'noisy', 'train', 'test', 'draw', 'calibrate', 'compare', 'bands')  # as they are shown
UNCERTAIN_STEPS = ('noisy', 'calibrate', 'compare', 'bands')
SCORE = 0.35  # lowest score to draw: below it are second guesses at the same objects
CALIBRATED_AT = 8  # grey levels, between those of the two halves: the scenes' own noise, and this with NOISE
NOISE = 15  # grey levels that are added to the right half
# Of Monte Carlo. A ratio of standard deviations is known to 1 / sqrt(2 * 32) = 12 %, and a gain is a median of hundreds
# of them; the median of an estimated variance of 31 degrees of freedom is 2 % low, so deviations are 1 % low.
PASSES = 32
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
        self.steps = Steps(self.work_dir, [name for name in STEPS if self.uncertain or name not in UNCERTAIN_STEPS])
        self.data, self.trained, self.tested = (self.work_dir / name for name in ('data', 'train', 'test'))
        self.drawn, self.pictures = self.work_dir / 'drawn', self.tested / 'pictures'
        folder = self.work_dir / 'uncertain'
        self.calibrated, self.scenes = folder / 'calibrated.pth', folder / 'scenes'
        self.compared, self.bands = folder / 'test', folder / 'drawn'

    def run(self) -> None:
        """Run the steps and print what came out.

        Raises:
            CheckFailed: If the mAP is far below what the training reaches.
        """
        start = monotonic()
        if self.steps.at_once > 1:
            print(f'{self.steps.at_once} steps run at a time; each is shown when those above it are done.')
        self.train()
        checkpoint = self.trained / Path((self.trained / 'last_checkpoint').read_text().strip()).name
        for folder in (self.pictures, self.bands):
            shutil.rmtree(folder, ignore_errors=True)
        # the calibration first, as others need it
        self.steps.run([*self.uncertain_steps(checkpoint), *self.certain_steps(checkpoint)])
        self.report(monotonic() - start, checkpoint)

    def train(self) -> None:
        """Train, or continue, unless the same training has finished before; draw scenes meanwhile."""
        make = ['make_synthetic.py', '--out']
        scenes = [Step('data', [*make, self.data, '--train', 60, '--val', 12])]
        if self.uncertain:
            noise = ['--seed', 20, '--noise-std', 0, NOISE]
            scenes.append(Step('noisy', [*make, self.scenes, '--train', 0, '--val', 3, *noise]))
        key, folder = self.training_key(), self.trained
        try:
            stamp: dict[str, Any] = json.loads(self.stamp.read_text())
        except (OSError, ValueError):
            stamp = {}
        known = (folder / 'last_checkpoint').is_file()
        if stamp.get('key') != key and folder.exists():
            print('\nThe config is not that of the last demo: training starts over.')
            shutil.rmtree(folder)
            known = False
        elif stamp.get('finished') and known:
            self.steps.run(scenes)
            heading = self.steps.heading('train')
            print(f'\n{heading}: finished before, in {relative(folder)}; to repeat: make demo ARGS=--fresh')
            return
        write_json(self.stamp, {'key': key, 'finished': False})
        # an interrupted training loses an epoch at most
        often = ['default_hooks.checkpoint.interval=1', 'default_hooks.checkpoint.max_keep_ckpts=1']
        train = ['train.py', self.config, '--work-dir', folder, *(['--resume'] if known else [])]
        train += ['--cfg-options', *often, *self.options[1:]]
        self.steps.run([Step('train', train), *scenes])
        write_json(self.stamp, {'key': key, 'finished': True})

    def training_key(self) -> str:
        """Hash what is trained: the config, all configs that it is made of, and the options."""
        config = Config.fromfile(steps.ROOT / self.config, import_custom_modules=False)
        text = config.text.replace(str(steps.ROOT), '')
        return hashlib.sha256((text + repr(self.options)).encode()).hexdigest()[:16]

    def certain_steps(self, checkpoint: Path) -> list[Step]:
        """Return the steps that test the detector and draw what it finds."""
        test = ['test.py', self.config, checkpoint, '--work-dir', self.tested, '--show-dir', self.pictures]
        draw = ['image_demo.py', self.data / 'val/images', self.config, checkpoint, '--out', self.drawn]
        return [
            Step('test', [*test, '--show-num', 24, '--show-score-thr', SCORE, *self.options]),
            Step('draw', [*draw, '--score-thr', SCORE, *self.options]),
        ]

    def uncertain_steps(self, checkpoint: Path) -> list[Step]:
        """Return the steps that show how certain detections are, on scenes whose right half is noisy."""
        if not self.uncertain:
            return []
        inner = [re.sub(r'^model\.', 'model.detector.', option) for option in self.options]
        noisy = [
            f'test_dataloader.dataset.noise_std=0,{NOISE}',
            'test_dataloader.dataset.length=30',
            'default_hooks.logger.interval=10',
        ]
        fit = ['calibrate_uncertainty.py', self.uncertain, checkpoint, '--noise-std', CALIBRATED_AT]
        test = ['test.py', self.uncertain, self.calibrated, '--work-dir', self.compared, '--no-report']
        draw = ['image_demo.py', self.scenes / 'val/images', self.uncertain, self.calibrated, '--uncertainty']
        return [
            Step('calibrate', [*fit, '--num-samples', PASSES, '--out', self.calibrated, *inner]),
            Step('compare', [*test, '--cfg-options', *inner[1:], *noisy], needs=('calibrate',)),
            Step('bands', [*draw, '--out', self.bands, '--score-thr', SCORE, *inner], needs=('calibrate',)),
        ]

    def report(self, seconds: float, checkpoint: Path) -> None:
        """Print the numbers, and what there is to look at.

        Raises:
            CheckFailed: If the mAP is far below what the training reaches.
        """
        metrics = read_metrics(self.tested)
        mean_ap = next(value for key, value in metrics.items() if key.endswith('mAP'))
        spent = ', '.join(f'{name} {duration(taken)}' for name, taken in self.steps.seconds.items())
        print(f'\nDone in {duration(seconds)} ({spent}).')
        print(f'mAP@0.5 on test scenes that were not trained on: {number(mean_ap)}')
        shown = self.show_uncertainty() if self.uncertain else []
        print('\nTo look at:')
        for what, path in (
            ('ground truth | prediction', min(self.pictures.glob('*.png'))),
            ('  more of them in', self.pictures),
            ('detections on image files', min(self.drawn.glob('*.png'))),
            ('table of each class', self.steps.log('test')),
            ('metrics', self.tested / 'test_metrics.json'),
            ('report of the test', self.tested / 'report.html'),
            ('log of the training', self.steps.log('train')),
            ('checkpoint', checkpoint),
            ('images and labels (DOTA)', self.data),
            *shown,
        ):
            print(f'  {what + ":":27} {relative(path)}')
        if mean_ap is None or mean_ap < LEAST_MAP:
            raise CheckFailed(f'\nerror: mAP {number(mean_ap)} is below {LEAST_MAP}: something is broken')

    def show_uncertainty(self) -> list[tuple[str, Path]]:
        """Print how well deviations and errors agree; return what there is to look at."""
        found = read_metrics(self.compared)
        inside, ranks = (found.get(f'uncertainty/{key}') for key in ('coverage_1_all', 'spearman_box'))
        print(
            f'Within one standard deviation of the truth: {number(inside)} of the coordinates (0.683 if errors '
            f'came from noise alone)\nRank correlation of deviation and error: {number(ranks)}'
        )
        picture = min(path for path in self.bands.glob('*.png') if '.heatmap' not in path.name)
        return [
            ('boxes with one-sigma bands', picture),
            ('  heat map of the scores', picture.with_suffix('.heatmap.png')),
            ('table of the uncertainty', self.steps.log('compare')),
            ('calibrated checkpoint', self.calibrated),
        ]


def read_metrics(folder: Path) -> dict[str, float | None]:
    """Read the metrics that the test tool wrote."""
    metrics: dict[str, float | None] = json.loads((folder / 'test_metrics.json').read_text())['metrics']
    return metrics


def number(value: float | None) -> str:
    """Format a metric."""
    return 'undefined' if value is None else f'{value:.3f}'
