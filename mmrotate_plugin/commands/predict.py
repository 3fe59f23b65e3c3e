"""Draw detections on an image or on all images of a folder."""

import argparse
import sys
from pathlib import Path

from mmengine.config import Config

from ..adf import gain_noise
from ..apis.checkpoint import read_checkpoint
from ..apis.config import load_config
from ..apis.image_drawing import READS, check_heat_maps, draw_detections, find_jobs
from ..apis.inference import Detections, Detector, select_device
from ..apis.large_images import PatchDetector
from ..apis.uncertain_config import add_uncertainty, is_uncertain
from ..engine.checks.input_images import check_image
from ..engine.hooks.limits_hook import Limits
from ..utils.atomic_files import write_whole
from ..utils.errors import ImageError, UsageError
from ..utils.messages import some
from ..visualization import encode_image
from ..visualization.pixels import Image, as_image


def predict(args: argparse.Namespace) -> None:
    """Detect on each image and draw what is found."""
    jobs = find_jobs(Path(args.image), Path(args.out))
    if args.uncertainty:
        check_heat_maps(jobs)
    device = select_device(args.device)
    cfg = load_config(args.config, args.cfg_options)
    set_uncertainty(cfg, args)
    detector = Detector(cfg, read_checkpoint(args.checkpoint), args.checkpoint, device=device)
    if args.uncertainty:
        tell_uncertainty(detector)

    find = by_patches(detector, args) if args.patch_size is not None else detector
    limits = Limits(detector.model, score_thr=args.score_thr)
    with limits.watching():
        draw_all(find, detector, jobs, args)
    if (text := limits.hint('patches' if args.patch_size is not None else 'images')) is not None:
        print(f'hint: {text}', file=sys.stderr)


def draw_all(
    find: Detector | PatchDetector, detector: Detector, jobs: list[tuple[Path, Path]], args: argparse.Namespace
) -> None:
    """Detect on each image and write its picture.

    Raises:
        UsageError: If no file is an image, or a picture cannot be written.
    """
    broken: list[ImageError] = []
    others: list[str] = []
    for source, target in jobs:
        try:
            image = detector.read(source)
            check_image(detector.model, image, f"'{source}'")
            found = detect(find, image, source, args.score_thr)
        except ImageError as error:
            if Path(args.image).is_file():
                raise
            if source.suffix.lower() in READS:
                print(f'warning: {error}; skipped', file=sys.stderr)
                broken.append(error)
            else:
                others.append(source.name)
            continue
        try:
            pictures = draw_detections(as_image(image, args.bands), found, detector, target)
        except ValueError as error:
            raise UsageError(f"--bands: '{source}': {error}") from error
        try:
            for path, picture in pictures.items():
                write_whole(path, encode_image(picture, path.suffix))
        except OSError as error:
            raise UsageError(f"--out '{target}' cannot be written: {error.strerror or error}") from error
        print(f'{source}: {len(found.boxes)} detections -> {", ".join(map(str, pictures))}', flush=True)
    images = len(jobs) - len(others)
    done = images - len(broken)
    if done == 0:
        rest = f'; {len(others)} are not images: {some(others)}' if others else ''
        first = f'; the first: {broken[0]}' if broken else ''
        raise UsageError(f"no file in '{args.image}' could be read as an image ({len(broken)} broken{rest}{first})")
    if others:
        print(f'warning: {len(others)} files of {args.image} are not images: {some(others)}; skipped', file=sys.stderr)
    print(f'{done} of {images} images drawn' + (f' in {args.out}' if len(jobs) > 1 else ''))


def by_patches(detector: Detector, args: argparse.Namespace) -> PatchDetector:
    """Wrap a detector so that it goes over large images patch by patch."""
    overlap = args.patch_size // 5 if args.patch_overlap is None else args.patch_overlap
    batch_size = 1 if args.patch_batch_size is None else args.patch_batch_size
    return PatchDetector(detector, size=args.patch_size, overlap=overlap, batch_size=batch_size, show=True)


def set_uncertainty(cfg: Config, args: argparse.Namespace) -> None:
    """Wrap the model of a config if uncertainty is to be drawn; else switch off that of a wrapped one."""
    if args.uncertainty:
        add_uncertainty(cfg, noise_std=args.noise_std, method=args.method)
    elif is_uncertain(cfg.model):
        cfg.model.enabled = False


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


def detect(find: Detector | PatchDetector, image: Image, source: Path, score_thr: float) -> Detections:
    """Detect on one image; errors name its file."""
    try:
        return find(image, score_thr=score_thr)
    except ImageError as error:
        raise ImageError(f"'{source}': {error}") from error
