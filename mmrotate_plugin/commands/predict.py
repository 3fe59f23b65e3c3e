"""Detect on images, folders, patterns, lists and videos, and write what is found."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ..adf import gain_noise
from ..apis.inference import Detector
from ..apis.prediction import Outcome, load_detector
from ..apis.prediction_saving import Saved, save_predictions
from ..apis.prediction_sources import find_sources
from ..engine.hooks.limits_hook import Limits
from ..utils.errors import CheckFailed, UsageError
from ..utils.messages import some

SLOW = 30  # frames of a video between two lines of progress


def predict(args: argparse.Namespace) -> None:
    """Detect on everything that is given, and write what is found.

    Raises:
        CheckFailed: If some files could not be used; the others are done.
        UsageError: If none could, or something given cannot work.
    """
    given = args.image[0] if len(args.image) == 1 else args.image
    find_sources(given)  # what is missing is told before anything is loaded
    detector = load_detector(
        args.config,
        args.checkpoint,
        device=args.device,
        cfg_options=args.cfg_options,
        uncertainty=args.uncertainty,
        noise_std=args.noise_std,
        method=args.method,
        tta=args.tta,
    )
    if args.uncertainty:
        tell_uncertainty(detector)
    limits = Limits(detector.model, score_thr=args.score_thr)
    try:
        with limits.watching():
            saved = save_predictions(
                detector,
                given,
                args.out,
                save=args.save,
                score_thr=args.score_thr,
                batch_size=args.batch_size,
                patch_size=args.patch_size,
                patch_overlap=args.patch_overlap,
                patch_batch_size=args.patch_batch_size,
                bands=args.bands,
                show=True if args.patch_size is not None else None,
                progress=Teller(),
            )
    except KeyboardInterrupt:
        print('the same command continues where this one stopped', file=sys.stderr)
        raise
    tell_end(saved, args)
    what = 'views' if args.tta else 'images' if args.patch_size is None else 'patches'
    if (text := limits.hint(what)) is not None:
        print(f'hint: {text}', file=sys.stderr)
    if saved.failed:
        raise CheckFailed(
            f'{len(saved.failed)} of {saved.total - len(saved.others)} files could not be used:',
            *(f'  {reason}' for reason in saved.failed.values()),
        )


class Teller:
    """Print a line for each image, some for a video, and how long the rest takes."""

    def __init__(self) -> None:
        self.start, self.told_earlier = time.monotonic(), False
        self.frames = self.detections = self.known = 0

    def __call__(self, outcome: Outcome, files: Sequence[Path], saved: Saved) -> None:
        """Tell what came of an image, a frame or a video."""
        if saved.earlier and not self.told_earlier:
            self.told_earlier = True
            print(f'{saved.earlier} of {saved.total} were done by an interrupted call', flush=True)
        path, prediction = outcome.source.path, outcome.prediction
        if outcome.known:
            self.known += 1
            self.frames += 1
            self.detections += len(prediction.scores) if prediction else 0
            return
        if self.known:
            print(f'{path}: {self.known} frames were done by an interrupted call', flush=True)
            self.known = 0
        if outcome.error is not None:
            if outcome.source.asked and outcome.last:
                print(f'warning: {outcome.error}; skipped', file=sys.stderr)
            self.frames = self.detections = 0
            return
        if prediction is not None and prediction.frame is None:
            where = f' -> {", ".join(map(str, files))}' if files else ''
            print(f'{path}: {len(prediction.scores)} detections{where}{self.rest(saved)}', flush=True)
            return
        if prediction is not None:
            self.frames, self.detections = self.frames + 1, self.detections + len(prediction.scores)
        if outcome.last or self.frames % SLOW == 0:
            so_far = '' if outcome.last else ' so far'
            print(
                f'{path}: {self.detections} detections in {self.frames} frames{so_far}'
                f'{self.rest(saved) if outcome.last else ""}', flush=True,
            )  # fmt: skip
        if outcome.last:
            self.frames = self.detections = 0

    def rest(self, saved: Saved) -> str:
        """Say how many of several files are done, and how long the rest takes."""
        if saved.total == 1:
            return ''
        done = saved.done + len(saved.failed) + len(saved.others)
        left = (time.monotonic() - self.start) / max(1, done - saved.earlier) * (saved.total - done)
        return f' ({done}/{saved.total}, {left:.0f} s left)'


def tell_end(saved: Saved, args: argparse.Namespace) -> None:
    """Print what was written and what was not.

    Raises:
        UsageError: If no file could be used.
    """
    images = saved.total - len(saved.others)
    given = ' '.join(args.image)[:200]
    if saved.done == 0:
        rest = f'; {len(saved.others)} are not images: {some(saved.others)}' if saved.others else ''
        first = f'; the first: {next(iter(saved.failed.values()))}' if saved.failed else ''
        raise UsageError(f"no file in '{given}' could be read as an image ({len(saved.failed)} broken{rest}{first})")
    if saved.others:
        print(
            f'warning: {len(saved.others)} files of {given} are not images: {some(saved.others)}; skipped',
            file=sys.stderr,
        )
    if saved.nowhere:
        print(
            f'warning: {len(saved.nowhere)} images say no place, so they have no GeoJSON: {some(saved.nowhere)}',
            file=sys.stderr,
        )
    done = 'drawn' if list(args.save) == ['pictures'] else 'done'
    print(f'{saved.done} of {images} images {done}' + (f' in {args.out}' if saved.total > 1 else ''))
    for file in saved.files:
        print(f'written: {file}')


def tell_uncertainty(detector: Detector) -> None:
    """Print what the standard deviations will mean, before the first of them."""
    model = detector.model
    noise = model.noise.noise_std if model.noise.noise_std is not None else 'that of the config'
    print(f"uncertainty by method '{model.method}', noise in grey levels: {noise}", flush=True)
    if model.method != 'propagated':
        print(f"no heat maps: method 'propagated' has them, '{model.method}' does not", flush=True)
    elif gain_noise(model) is None:
        print(
            'warning: the checkpoint is not calibrated, so bands and heat maps are far too narrow: see '
            'tools/calibrate_uncertainty.py --detector, or use --method monte_carlo',
            file=sys.stderr,
        )
