#!/usr/bin/env python
"""Draw detections on an image or a folder of images: python tools/image_demo.py IMAGE CONFIG CHECKPOINT --out FILE."""

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works uninstalled

if TYPE_CHECKING:
    from mmengine.config import Config

    from mmrotate_plugin.apis.inference import Detections, Detector
    from mmrotate_plugin.apis.large_images import PatchDetector
    from mmrotate_plugin.visualization.pixels import Image

METHODS = ('propagated', 'jacobian', 'monte_carlo')
BANDS_SIZE = 1024  # pixels that smaller pictures are enlarged to: bands are often a pixel of the image wide
WRITES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff')


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Draw rotated or horizontal detections on images.')
    parser.add_argument('image', help='image file, or a folder of them')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', required=True, help='picture to write; for a folder of images, a folder')
    parser.add_argument('--score-thr', type=float, default=0.3, help='draw detections from this score on (default 0.3)')
    parser.add_argument('--patch-size', type=int, metavar='PIXELS', help='go over large images in patches of this side')
    parser.add_argument(
        '--patch-overlap', type=int, metavar='PIXELS', help='of patches; the longest object (default: a fifth of them)'
    )
    parser.add_argument('--patch-batch-size', type=int, metavar='N', help='patches at a time (default 1)')
    parser.add_argument(
        '--bands', nargs=3, type=int, metavar=('RED', 'GREEN', 'BLUE'),
        help='channels, counted from 0, to draw images of several bands with (default: 2 1 0)',
    )  # fmt: skip
    parser.add_argument('--device', help='cpu, cuda:0, ... (default: a GPU if there is one)')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='change the config, see train.py')
    parser.add_argument(
        '--unsafe-checkpoint', action='store_true', help='take any pickle for a checkpoint, and run what it says'
    )
    group = parser.add_argument_group(
        'uncertainty', 'a config needs no change, a checkpoint calibration for the propagated method'
    )
    group.add_argument(
        '--uncertainty',
        action='store_true',
        help='draw the one-sigma band of each box, and the heat map of the scores beside the picture, *.heatmap.png',
    )
    group.add_argument(
        '--noise-std',
        metavar='N',
        type=noise_level,
        help="noise of the images in grey levels, or 'estimate' (default: the config's, else estimate)",
    )
    group.add_argument(
        '--method', choices=METHODS, help="how the noise gets to the boxes (default: the config's, else propagated)"
    )
    args = parser.parse_args(argv)
    for name in ('noise_std', 'method'):
        if getattr(args, name) is not None and not args.uncertainty:
            parser.error(f'--{name.replace("_", "-")} {getattr(args, name)} needs --uncertainty')
    if args.patch_size is None and (args.patch_overlap, args.patch_batch_size) != (None, None):
        parser.error('--patch-overlap and --patch-batch-size need --patch-size')
    return args


def noise_level(text: str) -> float | str:
    """Of an option.

    Raises:
        ArgumentTypeError: If it is neither a level nor 'estimate'.
    """
    if text == 'estimate':
        return text
    try:
        level = float(text)
    except ValueError:
        level = math.nan
    if not (math.isfinite(level) and level >= 0):
        raise argparse.ArgumentTypeError(f"'{text}' must be grey levels, such as 8, or 'estimate'")
    return level


def image_demo(args: argparse.Namespace) -> None:
    from mmrotate_plugin.apis.checkpoint import read_checkpoint
    from mmrotate_plugin.apis.config import load_config
    from mmrotate_plugin.apis.inference import Detector, select_device
    from mmrotate_plugin.engine.hooks.limits_hook import Limits

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
    find: 'Detector | PatchDetector', detector: 'Detector', jobs: list[tuple[Path, Path]], args: argparse.Namespace
) -> None:
    """Detect on each image and write its picture.

    Raises:
        UsageError: If no file is an image, or a picture cannot be written.
    """
    from mmrotate_plugin.engine.checks.input_images import check_image
    from mmrotate_plugin.utils.atomic_files import write_whole
    from mmrotate_plugin.utils.errors import ImageError, UsageError
    from mmrotate_plugin.visualization import encode_image
    from mmrotate_plugin.visualization.pixels import as_image

    done, broken, others, first = 0, 0, [], ''
    for source, target in jobs:
        try:
            image = detector.read(source)
            check_image(detector.model, image, f"'{source}'")
            found = detect(find, image, source, args.score_thr)
        except ImageError as error:
            if Path(args.image).is_file():
                raise UsageError(str(error)) from error
            if source.suffix.lower() in (*WRITES, '.webp', '.gif'):
                print(f'warning: {error}; skipped', file=sys.stderr)
                broken += 1
                first = first or f'; the first: {error}'
            else:
                others.append(source.name)
            continue
        try:
            pictures = draw(as_image(image, args.bands), found, detector, target)
        except ValueError as error:
            raise UsageError(f"--bands: '{source}': {error}") from error
        try:
            for path, picture in pictures.items():
                write_whole(path, encode_image(picture, path.suffix))
        except OSError as error:
            raise UsageError(f"--out '{target}' cannot be written: {error.strerror or error}") from error
        done += 1
        print(f'{source}: {len(found.boxes)} detections -> {", ".join(map(str, pictures))}', flush=True)
    names = ', '.join(others[:5]) + (', ...' if len(others) > 5 else '')
    if done == 0:
        rest = f'; {len(others)} are not images: {names}' if others else ''
        raise UsageError(f"no file in '{args.image}' could be read as an image ({broken} broken{rest}{first})")
    if others:
        print(f'warning: {len(others)} files of {args.image} are not images: {names}; skipped', file=sys.stderr)
    print(f'{done} of {done + broken} images drawn' + (f' in {args.out}' if len(jobs) > 1 else ''))


def by_patches(detector: 'Detector', args: argparse.Namespace) -> 'PatchDetector':
    from mmrotate_plugin.apis.large_images import PatchDetector

    overlap = args.patch_size // 5 if args.patch_overlap is None else args.patch_overlap
    batch_size = 1 if args.patch_batch_size is None else args.patch_batch_size
    return PatchDetector(detector, size=args.patch_size, overlap=overlap, batch_size=batch_size, show=True)


def set_uncertainty(cfg: 'Config', args: argparse.Namespace) -> None:
    """Wrap the model of a config if it is asked for; else one that is wrapped need not compute what is not drawn."""
    from mmrotate_plugin.apis.uncertain_config import add_uncertainty, is_uncertain

    if args.uncertainty:
        add_uncertainty(cfg, noise_std=args.noise_std, method=args.method)
    elif is_uncertain(cfg.model):
        cfg.model.enabled = False


def tell_uncertainty(detector: 'Detector') -> None:
    """What the numbers will mean, before the first of them."""
    from mmrotate_plugin.adf import gain_noise

    model = detector.model
    noise = model.noise.noise_std if model.noise.noise_std is not None else 'that of the config'
    print(f"uncertainty by method '{model.method}', noise in grey levels: {noise}", flush=True)
    if model.method != 'propagated':
        print(f"no heat maps: method 'propagated' has them, '{model.method}' has not", flush=True)
    elif gain_noise(model) is None:
        print(
            'warning: the checkpoint is not calibrated, so bands and heat maps are far too sure: see '
            'tools/calibrate_uncertainty.py --detector, or take --method monte_carlo',
            file=sys.stderr,
        )


def draw(image: 'Image', found: 'Detections', detector: 'Detector', target: Path) -> dict[Path, 'Image']:
    """The picture, and the heat map if there is one, by their files."""
    from mmrotate_plugin.evaluation.functional.box_bands import box_bands
    from mmrotate_plugin.visualization import draw_boxes, heat_map

    bands = None if found.boxes_std is None else box_bands(found.boxes, found.boxes_std)
    size = {} if bands is None else {'min_size': BANDS_SIZE}
    pictures = {
        target: draw_boxes(
            image,
            found.boxes,
            found.labels,
            found.scores,
            classes=detector.classes,
            colours=detector.colours,
            scores_std=found.scores_std,
            bands=bands,
            **size,
        )
    }
    if found.score_std_map is not None:
        title = 'standard deviation of the score'
        pictures[heat_map_name(target)] = heat_map(image, found.score_std_map, title=title)
    return pictures


def heat_map_name(picture: Path) -> Path:
    return picture.with_suffix(f'.heatmap{picture.suffix}')


def check_heat_maps(jobs: list[tuple[Path, Path]]) -> None:
    """Heat maps replace no image, and no picture.

    Raises:
        UsageError: If one would.
    """
    from mmrotate_plugin.utils.errors import UsageError

    taken = {path.resolve(): path for job in jobs for path in job}
    for _, target in jobs:
        path = heat_map_name(target)
        if path.resolve() in taken:
            raise UsageError(f"the heat map of '{target}' would replace '{path}'; rename it, or give another --out")


def detect(find: 'Detector | PatchDetector', image: 'Image', source: Path, score_thr: float) -> 'Detections':
    from mmrotate_plugin.utils.errors import ImageError

    try:
        return find(image, score_thr=score_thr)
    except ImageError as error:
        raise ImageError(f"'{source}': {error}") from error


def find_jobs(image: Path, out: Path) -> list[tuple[Path, Path]]:
    """Pairs of a file to read and a picture to write.

    Raises:
        UsageError: If there is nothing to read, or the picture would replace an image.
    """
    from mmrotate_plugin.apis.runner import writable_folder
    from mmrotate_plugin.utils.errors import UsageError

    if not image.exists():
        raise UsageError(f"image '{image}' does not exist")
    if image.is_file():
        names_file = out.suffix.lower() in WRITES and not out.is_dir()
        if not names_file and out.suffix and not out.is_dir():
            raise UsageError(f"--out '{out}' must end with one of {', '.join(WRITES)}, or be a folder")
        target = out if names_file else out / picture_name(image)
        if target.resolve() == image.resolve():
            raise UsageError(f"--out '{out}' would replace the image itself; give another name")
        writable_folder(target.parent, '--out')
        return [(image, target)]
    files = sorted(file for file in image.iterdir() if file.is_file() and not file.name.startswith('.'))
    if not files:
        raise UsageError(f"the folder '{image}' is empty: no images")
    if out.is_file() or (out.suffix.lower() in WRITES and not out.is_dir()):
        raise UsageError(f"--out '{out}' is the name of one picture, but '{image}' is a folder; give a folder")
    if out.resolve() == image.resolve():
        raise UsageError(f"--out '{out}' is the folder of the images, which would be replaced; give another one")
    writable_folder(out, '--out')
    return [(file, out / picture_name(file)) for file in files]


def picture_name(file: Path) -> str:
    """The name of the image; its kind is kept in the name, so that a.png and a.webp do not collide."""
    return file.name if file.suffix.lower() in ('.png', '.jpg', '.jpeg') else f'{file.name}.png'


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    from mmrotate_plugin.apis.run_command import run

    return run(image_demo, args)


if __name__ == '__main__':
    sys.exit(main())
