"""Write detections on patches as files for DOTA's evaluation server: whole images, one file per class."""

import os
import re
import shutil
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...structures.rotated_iou import Polygons
from ...structures.rotated_nms import rotated_nms
from ..errors import EvaluationError

PATCH = re.compile(r'(?P<image>.+?)(?:__(?P<scale>\d+(?:\.\d+)?))?__(?P<x>\d+)___(?P<y>\d+)', re.DOTALL)
SMALLEST_SIDE = 16  # a larger or equal scale is the side of the patch
COLUMNS = {'rbox': 5, 'qbox': 8, 'hbox': 4}


class Patch(NamedTuple):
    """Where a patch was cut from an image.

    Attributes:
        image: Name of the whole image.
        rate: Pixels of the patch per pixel of the image.
        x, y: Left and upper edge, in pixels of the patch.
    """

    image: str
    rate: float
    x: int
    y: int


def parse_patch(name: str, *, blanks: bool = False) -> Patch:
    """Parse the name of a patch: IMAGE__SCALE__X___Y, as DOTA's and mmrotate's splitters write it.

    SCALE is the factor by which DOTA's splitter resized the image before it cut (0.5, 1, 1.5), or the side of the patch
    in pixels, which mmrotate's cuts without resizing; numbers of 16 or more are sides. SCALE may be missing.

    Args:
        name: The name.
        blanks: Take names of images with blanks, which a submission cannot have.

    Raises:
        EvaluationError: If the name has another form, blanks, or a scale of 0.
    """
    match = PATCH.fullmatch(str(name))
    if match is None:
        raise EvaluationError(
            f"image '{name}': the name does not say where the patch was cut; to merge patches it must be "
            'IMAGE__SCALE__X___Y, such as P0001__1__824___0 (or set merge_patches=False)'
        )
    if not blanks and re.search(r'\s', match['image']):
        raise EvaluationError(
            f"image '{name}': a submission separates its fields by blanks, so '{match['image']}' cannot be an image's "
            'name: rename the files'
        )
    scale = float(match['scale'] or 1)
    if not scale:
        raise EvaluationError(f"image '{name}': the scale of a patch cannot be 0; 1 is the size of the image")
    return Patch(match['image'], scale if scale < SMALLEST_SIDE else 1.0, int(match['x']), int(match['y']))


def check_submission(
    names: Iterable[str], classes: Sequence[str], folder: str | os.PathLike[str], *, argument: str = 'outfile_prefix='
) -> None:
    """Refuse names and folders that would spoil a submission, before the first image is processed.

    Args:
        names: Names of the patches, `img_id` of the samples.
        classes: Class names, which become parts of file names.
        folder: Folder to create.
        argument: What names the folder, for messages.

    Raises:
        EvaluationError: If a name does not tell where its patch is, two names are equal, a class cannot be part of a
            file's name, or the folder exists already or cannot be created.
    """
    seen = set()
    for name in names:
        parse_patch(name)
        if name in seen:
            raise EvaluationError(f"image '{name}' is there twice; its objects would count twice")
        seen.add(name)
    files = set()
    for name in classes:
        if not name or not name.isprintable() or set(name) & set('/\\') or name != name.strip():
            raise EvaluationError(
                f'class {name!r}: a submission has one file for each class, and this cannot be part of its name; name '
                "the class without '/', '\\' and blanks at its ends (metainfo of the data set, and the label files)"
            )
        if name.lower() in files:
            raise EvaluationError(f'class {name!r}: another class differs in capitals alone; their files could be one')
        files.add(name.lower())
    folder = Path(folder)
    if os.path.lexists(folder):
        raise EvaluationError(f"{argument}'{folder}' exists already: remove it, or name a new folder")
    parent = next(path for path in folder.absolute().parents if path.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise EvaluationError(f"{argument}'{folder}' cannot be made: '{parent}' cannot be written")


def merge_patches(
    images: Iterable[Mapping[str, Any]], iou_thr: float, *, blanks: bool = False
) -> dict[str, dict[str, np.ndarray]]:
    """Merge detections on patches into those of whole images, without those that several patches found.

    Args:
        images: For each patch a dict of `img_id` and arrays `bboxes` (N, D), `scores` and `labels` (N,).
        iou_thr: Threshold of the suppression, see `rotated_nms`.
        blanks: See `parse_patch`.

    Returns:
        For each image, in order of names, `bboxes`, `scores` and `labels`, best first, in pixels of the image.
    """
    whole: dict[str, list[Mapping[str, Any]]] = {}
    for image in images:
        patch = parse_patch(image['img_id'], blanks=blanks)
        boxes = image['bboxes'].astype(np.float64)
        if boxes.shape[1] == 5:
            boxes[:, :2] += (patch.x, patch.y)
            boxes[:, :4] /= patch.rate
        else:
            boxes = (boxes + np.tile((patch.x, patch.y), boxes.shape[1] // 2)) / patch.rate
        whole.setdefault(patch.image, []).append({**image, 'bboxes': boxes})
    merged = {}
    for name in sorted(whole):
        found = [part for part in whole[name] if len(part['scores'])] or whole[name][:1]
        arrays = {key: np.concatenate([part[key] for part in found]) for key in ('bboxes', 'scores', 'labels')}
        kept = rotated_nms(arrays['bboxes'], arrays['scores'], iou_thr, arrays['labels'])
        merged[name] = {key: values[kept] for key, values in arrays.items()}
    return merged


def write_submission(
    merged: Mapping[str, Mapping[str, np.ndarray]], classes: Sequence[str], folder: str | os.PathLike[str]
) -> Path:
    """Write one file per class and a zip file of them all, as the server takes it.

    Task1_CLASS.txt has lines of image, score and eight coordinates; for horizontal boxes Task2_CLASS.txt has four.

    Returns:
        FOLDER/FOLDER.zip.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f'.{folder.name}.{os.getpid()}')
    unfinished.mkdir()
    try:
        horizontal = any(image['bboxes'].shape[1] == COLUMNS['hbox'] for image in merged.values())
        files = []
        for label, name in enumerate(classes):
            files.append(unfinished / f'Task{2 if horizontal else 1}_{name}.txt')
            lines = [line for image in merged for line in _lines(image, merged[image], label)]
            files[-1].write_text(''.join(f'{line}\n' for line in lines), encoding='utf-8')
        with zipfile.ZipFile(unfinished / f'{folder.name}.zip', 'w', zipfile.ZIP_DEFLATED) as archive:
            for file in files:
                archive.write(file, file.name)
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return folder / f'{folder.name}.zip'


def _lines(name: str, image: Mapping[str, np.ndarray], label: int) -> list[str]:
    chosen = image['labels'] == label
    boxes = image['bboxes'][chosen]
    if boxes.shape[1] == COLUMNS['rbox']:
        polygons = Polygons(boxes)
        boxes = (polygons.corners + polygons.centre[:, None]).reshape(-1, 8)
    return [
        f'{name} {score:.6f} ' + ' '.join(f'{value:.2f}' for value in box)
        for box, score in zip(boxes, image['scores'][chosen], strict=True)
    ]
