"""Write synthetic aerial scenes to disk in DOTA format."""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import cv2

from ..datasets.synthetic.scenes import CLASSES, Scene, draw_scene
from ..utils.atomic_files import write_whole
from ..utils.errors import UsageError

MOST = 99_999  # scenes of a split; their names have five digits
MARK = 'synthetic.json'  # says that this command made the folder, and from what


def make_synthetic(args: argparse.Namespace) -> None:
    """Write both splits.

    Raises:
        UsageError: If an option is out of range, or the folder is not for us to write to.
    """
    out: Path = args.out
    if out.exists() and not out.is_dir():
        raise UsageError(f'--out {out} is a file; give a folder')
    foreign = out.is_dir() and any(out.iterdir()) and not (out / MARK).exists()
    if foreign and not args.force:
        raise UsageError(
            f'--out {out} holds files that this command did not write; give an empty or a new folder, or --force to '
            'write next to them'
        )
    for option in ('train', 'val'):
        if not 0 <= getattr(args, option) <= MOST:
            raise UsageError(f'--{option} {getattr(args, option)}: must be from 0 to {MOST}')
    try:  # before anything is written
        draw_scene(args.seed, 0, **look(args))
    except ValueError as error:
        raise UsageError(str(error)) from error

    facts = {key: getattr(args, key) for key in ('train', 'val', 'size', 'objects', 'noise_std', 'seed', 'header')}
    try:
        write_whole(out / MARK, json.dumps({**facts, 'classes': CLASSES}, indent=2))
        write_split(out / 'train', args.train, args.seed, args)
        write_split(out / 'val', args.val, args.seed + 1, args)
    except OSError as error:
        raise UsageError(f'--out {out} cannot be written: {error.strerror or error}') from error


def write_split(folder: Path, count: int, seed: int, args: argparse.Namespace) -> None:
    """Write one split; remove files of an earlier, longer one."""
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
        write_whole(labels / f'{name}.txt', label_text(scene, args.header))
        objects += len(scene.labels)
        if (index + 1) % 50 == 0 or index + 1 == count:
            left = (time.monotonic() - start) / (index + 1) * (count - index - 1)
            print(f'\r{folder.name}: {index + 1}/{count} scenes, {left:.0f} s left ', end='', flush=True)
    print(f'\r{folder.name}: {count} scenes with {objects} objects in {folder}')


def look(args: argparse.Namespace) -> dict[str, Any]:
    """Collect the arguments of `draw_scene`."""
    noise = args.noise_std[0] if len(args.noise_std) == 1 else tuple(args.noise_std)
    return {'size': args.size, 'num_objects': tuple(args.objects), 'noise_std': noise}


def label_text(scene: Scene, header: bool) -> str:
    """Write the objects of a scene as lines of DOTA's label format."""
    lines = ['imagesource:synthetic', 'gsd:0.25'] if header else []
    for label, polygon in zip(scene.labels, scene.polygons, strict=True):
        numbers = ' '.join(f'{value:.2f}' for value in polygon.reshape(8))
        lines.append(f'{numbers} {CLASSES[label]} 0')
    return ''.join(line + '\n' for line in lines)
