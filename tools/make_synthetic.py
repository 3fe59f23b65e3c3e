"""Write synthetic aerial scenes to disk in DOTA format.

    python tools/make_synthetic.py --out data/synthetic --train 500 --val 100 --size 193

makes data/synthetic/{train,val}/images/*.png and {train,val}/labelTxt/*.txt, which mmrotate's DOTADataset reads.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import cv2

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works uninstalled

from mmrotate_plugin.datasets.synthetic.scenes import CLASSES, Scene, draw_scene

MOST = 99_999  # scenes of a split; their names have five digits
MARK = 'synthetic.json'  # says that this program made the directory, and from what


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Write synthetic aerial scenes to disk in DOTA format.')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='directory to write to')
    parser.add_argument('--train', type=int, default=500, metavar='N', help='training scenes (default: 500)')
    parser.add_argument('--val', type=int, default=100, metavar='N', help='validation scenes (default: 100)')
    parser.add_argument('--size', type=int, default=193, metavar='S', help='side of an image in pixels (default: 193)')
    parser.add_argument('--objects', type=int, nargs=2, default=(6, 14), metavar=('LEAST', 'MOST'), help='per scene')
    parser.add_argument(
        '--noise-std', type=float, nargs='+', default=[0.0], metavar='N', help='grey levels of noise; two: left, right'
    )
    parser.add_argument('--seed', type=int, default=0, metavar='K', help='training takes K, validation K + 1')
    parser.add_argument('--header', action='store_true', help="begin label files with DOTA's two header lines")
    parser.add_argument('--force', action='store_true', help='write into a directory that holds other files')
    return parser.parse_args(argv)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    temporary = path.with_name(f'.{path.name}.part')
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def label_text(scene: Scene, header: bool) -> str:
    """The objects of a scene as lines of DOTA's label format."""
    lines = ['imagesource:synthetic', 'gsd:0.25'] if header else []
    for label, polygon in zip(scene.labels, scene.polygons, strict=True):
        numbers = ' '.join(f'{value:.2f}' for value in polygon.reshape(8))
        lines.append(f'{numbers} {CLASSES[label]} 0')
    return ''.join(line + '\n' for line in lines)


def look(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `draw_scene`."""
    noise = args.noise_std[0] if len(args.noise_std) == 1 else tuple(args.noise_std)
    return {'size': args.size, 'num_objects': tuple(args.objects), 'noise_std': noise}


def write_split(folder: Path, count: int, seed: int, args: argparse.Namespace) -> int:
    """Write one split; files of an earlier, longer one go. Returns the number of objects."""
    images, labels = folder / 'images', folder / 'labelTxt'
    names = [f'synthetic-{seed}-{index:05d}' for index in range(count)]
    for directory, suffix in ((images, '.png'), (labels, '.txt')):
        directory.mkdir(parents=True, exist_ok=True)
        for old in directory.glob(f'synthetic-*{suffix}'):
            if old.stem not in names:
                old.unlink()
    objects, start = 0, time.monotonic()
    for index, name in enumerate(names):
        scene = draw_scene(seed, index, **look(args))
        write_whole(images / f'{name}.png', cv2.imencode('.png', scene.image)[1].tobytes())
        write_whole(labels / f'{name}.txt', label_text(scene, args.header).encode())
        objects += len(scene.labels)
        if (index + 1) % 50 == 0 or index + 1 == count:
            left = (time.monotonic() - start) / (index + 1) * (count - index - 1)
            print(f'\r{folder.name}: {index + 1}/{count} scenes, {left:.0f} s left ', end='', flush=True)
    print(f'\r{folder.name}: {count} scenes with {objects} objects in {folder}')
    return objects


def make(args: argparse.Namespace) -> str | None:
    """Write both splits; returns what is wrong with the arguments."""
    out: Path = args.out
    if out.exists() and not out.is_dir():
        return f'--out {out} is a file; give a directory'
    foreign = out.is_dir() and any(out.iterdir()) and not (out / MARK).exists()
    if foreign and not args.force:
        return (
            f'--out {out} holds files that this program did not write; give an empty or a new directory, or --force '
            'to write beside them'
        )
    for option in ('train', 'val'):
        if not 0 <= getattr(args, option) <= MOST:
            return f'--{option} {getattr(args, option)}: must be from 0 to {MOST}'
    try:  # before anything is written
        draw_scene(args.seed, 0, **look(args))
    except ValueError as error:
        return str(error)

    facts = {key: getattr(args, key) for key in ('train', 'val', 'size', 'objects', 'noise_std', 'seed', 'header')}
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / MARK, json.dumps({**facts, 'classes': CLASSES}, indent=2).encode())
    write_split(out / 'train', args.train, args.seed, args)
    write_split(out / 'val', args.val, args.seed + 1, args)
    return None


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    try:
        wrong = make(args)
    except OSError as error:
        wrong = f'--out {args.out} cannot be written: {error.strerror or error}'
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        return 130
    if wrong is not None:
        print(f'error: {wrong}', file=sys.stderr)
    return 0 if wrong is None else 2


if __name__ == '__main__':
    sys.exit(main())
