#!/usr/bin/env python
"""Draw detections on an image or a folder of images: python tools/image_demo.py IMAGE CONFIG CHECKPOINT --out FILE."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mmengine.config import DictAction

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works uninstalled

if TYPE_CHECKING:
    from mmrotate_plugin.engine.inference import Detector
    from mmrotate_plugin.engine.patches import PatchDetector

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
    parser.add_argument('--device', help='cpu, cuda:0, ... (default: a GPU if there is one)')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='change the config, see train.py'
    )
    args = parser.parse_args(argv)
    if args.patch_size is None and (args.patch_overlap, args.patch_batch_size) != (None, None):
        parser.error('--patch-overlap and --patch-batch-size need --patch-size')
    return args


def image_demo(args: argparse.Namespace) -> None:
    from mmrotate_plugin.engine import cli
    from mmrotate_plugin.engine.files import write_whole
    from mmrotate_plugin.engine.inference import Detector, ImageError, read_image, select_device
    from mmrotate_plugin.visualization import draw_boxes, encode_image

    jobs = find_jobs(Path(args.image), Path(args.out))
    device = select_device(args.device)
    cfg = cli.load_config(args.config, args.cfg_options)
    detector = Detector(cfg, cli.read_checkpoint(args.checkpoint), args.checkpoint, device=device)

    find = by_patches(detector, args) if args.patch_size is not None else detector

    done, broken, others = 0, 0, []
    for source, target in jobs:
        try:
            image = read_image(source)
        except ImageError as error:
            if Path(args.image).is_file():
                raise cli.UsageError(str(error)) from error
            if source.suffix.lower() in (*WRITES, '.webp', '.gif'):
                print(f'warning: {error}; skipped', file=sys.stderr)
                broken += 1
            else:
                others.append(source.name)
            continue
        found = find(image, score_thr=args.score_thr)
        picture = draw_boxes(
            image, found.boxes, found.labels, found.scores, classes=detector.classes, colours=detector.colours
        )
        try:
            write_whole(target, encode_image(picture, target.suffix))
        except OSError as error:
            raise cli.UsageError(f"--out '{target}' cannot be written: {error.strerror or error}") from error
        done += 1
        print(f'{source}: {len(found.boxes)} detections -> {target}', flush=True)
    names = ', '.join(others[:5]) + (', ...' if len(others) > 5 else '')
    if done == 0:
        rest = f'; {len(others)} are not images: {names}' if others else ''
        raise cli.UsageError(f"no file in '{args.image}' could be read as an image ({broken} broken{rest})")
    if others:
        print(f'warning: {len(others)} files of {args.image} are not images: {names}; skipped', file=sys.stderr)
    print(f'{done} of {done + broken} images drawn' + (f' in {args.out}' if len(jobs) > 1 else ''))


def by_patches(detector: 'Detector', args: argparse.Namespace) -> 'PatchDetector':
    from mmrotate_plugin.engine.patches import PatchDetector

    overlap = args.patch_size // 5 if args.patch_overlap is None else args.patch_overlap
    batch_size = 1 if args.patch_batch_size is None else args.patch_batch_size
    return PatchDetector(detector, size=args.patch_size, overlap=overlap, batch_size=batch_size, show=True)


def find_jobs(image: Path, out: Path) -> list[tuple[Path, Path]]:
    """Pairs of a file to read and a picture to write.

    Raises:
        UsageError: If there is nothing to read, or the picture would replace an image.
    """
    from mmrotate_plugin.engine import cli

    if not image.exists():
        raise cli.UsageError(f"image '{image}' does not exist")
    if image.is_file():
        names_file = out.suffix.lower() in WRITES and not out.is_dir()
        if not names_file and out.suffix and not out.is_dir():
            raise cli.UsageError(f"--out '{out}' must end with one of {', '.join(WRITES)}, or be a folder")
        target = out if names_file else out / picture_name(image)
        if target.resolve() == image.resolve():
            raise cli.UsageError(f"--out '{out}' would replace the image itself; give another name")
        cli.writable_folder(target.parent, '--out')
        return [(image, target)]
    files = sorted(file for file in image.iterdir() if file.is_file() and not file.name.startswith('.'))
    if not files:
        raise cli.UsageError(f"the folder '{image}' is empty: no images")
    if out.is_file() or (out.suffix.lower() in WRITES and not out.is_dir()):
        raise cli.UsageError(f"--out '{out}' is the name of one picture, but '{image}' is a folder; give a folder")
    if out.resolve() == image.resolve():
        raise cli.UsageError(f"--out '{out}' is the folder of the images, which would be replaced; give another one")
    cli.writable_folder(out, '--out')
    return [(file, out / picture_name(file)) for file in files]


def picture_name(file: Path) -> str:
    """The name of the image; its kind is kept in the name, so that a.png and a.webp do not collide."""
    return file.name if file.suffix.lower() in ('.png', '.jpg', '.jpeg') else f'{file.name}.png'


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    from mmrotate_plugin.engine import cli

    return cli.run(image_demo, args)


if __name__ == '__main__':
    sys.exit(main())
