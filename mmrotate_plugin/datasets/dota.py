"""DOTA's label files, read as they are: header lines, careless annotations and all.

Xia et al., DOTA: A Large-scale Dataset for Object Detection in Aerial Images, CVPR 2018 (arXiv:1711.10398).
"""

import logging
import math
import os
from pathlib import Path

import cv2
import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from ..arguments import typed
from ..registry import DATASETS
from .broken import BrokenFileError, SkipsBrokenFiles
from .filtering import filter_empty

_THINNEST = 0.1  # pixels; a thinner box has no area to speak of, and its logarithm ruins a training
_FARTHEST = 1e6  # pixels; no image is as large, and sides of 1e20 overflow float32
_LARGEST = 64 * 2**20  # bytes of a label file; DOTA's largest has 2 MB
_HEADERS = ('imagesource:', 'gsd:')
_SHAPE_OF_A_LINE = "'x1 y1 x2 y2 x3 y3 x4 y4 class difficulty'"

_V1 = {
    'plane': (165, 42, 42),
    'baseball-diamond': (189, 183, 107),
    'bridge': (0, 255, 0),
    'ground-track-field': (255, 0, 0),
    'small-vehicle': (138, 43, 226),
    'large-vehicle': (255, 128, 0),
    'ship': (255, 0, 255),
    'tennis-court': (0, 255, 255),
    'basketball-court': (255, 193, 193),
    'storage-tank': (0, 51, 153),
    'soccer-ball-field': (255, 250, 205),
    'roundabout': (0, 139, 139),
    'harbor': (255, 255, 0),
    'swimming-pool': (147, 116, 116),
    'helicopter': (0, 0, 255),
}
_V15 = {**_V1, 'container-crane': (220, 20, 60)}
_V2 = {**_V15, 'airport': (119, 11, 32), 'helipad': (0, 0, 142)}


class BadLine(ValueError):
    """One annotation line that cannot be used."""


@DATASETS.register_module()
class DOTADataset(SkipsBrokenFiles, BaseDataset):
    """DOTA-v1.0, with the arguments and the samples of mmrotate's class of this name.

    ``type='mmrotate_plugin.DOTADataset'`` finds it from every scope. Unlike mmrotate's it reads DOTA's own files
    (two header lines, CRLF, blank lines, no difficulty), knows the images' sizes, and looks at what it reads. A line
    that cannot be used is left out, with one warning per file that names the lines: fields that are missing or no
    finite numbers, a class that DOTA does not have, a box without area, a box that lies outside the image. A box that
    is partly inside stays as it is.

    An image is left out too, with a warning that names it and one that counts them, if its file is empty, cut off or no
    image, or if its label file cannot be read as text. Damage amid a file shows when it is decoded: a training then
    takes another image, and a test, where leaving one out would change the result, raises.

    Args:
        diff_thr: Objects of a difficulty above it are marked to be ignored.
        img_suffix: Ending of the images' names.
        strict: Raise at the first line, image or label file that cannot be used.
        check_pixels: Decode every image at the start, to leave damaged ones out of a test as well; takes minutes for
            thousands of them.
        kwargs: Of mmengine's BaseDataset. `ann_file` is the folder of label files, ``data_prefix['img_path']`` the
            folder of images; they may be one. Without `ann_file` all images of the folder are read, without objects.
            `metainfo` may name a part of the classes; objects of the others are left out.

    Raises:
        FileNotFoundError: If a folder, its files, or the partner of an image or label file is missing.
        ValueError: If an argument is wrong, no image can be used, or (`strict`) a line or a file cannot.

    Files are found by listing the two folders, so nothing in a label file can name one elsewhere. Links in the folders
    are followed.
    """

    METAINFO = {'classes': tuple(_V1), 'palette': list(_V1.values())}

    @typed
    def __init__(
        self,
        diff_thr: int = 100,
        img_suffix: str = 'png',
        *,
        strict: bool = False,
        check_pixels: bool = False,
        **kwargs,
    ) -> None:
        self.diff_thr = diff_thr
        self.img_suffix = img_suffix.lstrip('.')
        super().__init__(strict=strict, check_pixels=check_pixels, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Read all label files; every image needs one, an empty one if it has no objects."""
        if 'img_path' not in self.data_prefix:
            raise ValueError(f"data_prefix={self.data_prefix}: the images' folder goes under the key 'img_path'")
        images = self._find(self.data_prefix['img_path'], f'.{self.img_suffix}', "data_prefix['img_path']")
        labels: dict[str, Path] = {}
        if self.ann_file:
            labels = self._find(self.ann_file, '.txt', 'ann_file')
            self._check_partners(images, labels)
        return self._keep_usable(
            [self._or_none(self._describe, path, labels.get(stem)) for stem, path in images.items()]
        )

    def _find(self, folder: str, suffix: str, argument: str) -> dict[str, Path]:
        """Files of a folder by their stems, in order of their names."""
        if not os.path.isdir(folder):
            what = 'is a file, not a folder' if os.path.exists(folder) else 'does not exist'
            raise FileNotFoundError(
                f'{argument}: {folder!r} {what}. It must be a folder with *{suffix} files '
                f'(data_root={self.data_root!r} is put in front of it).'
            )
        names = sorted(os.listdir(folder))
        found = {name[: -len(suffix)]: Path(folder, name) for name in names if name.endswith(suffix)}
        for path in found.values():
            if not path.is_file():  # opening a pipe would wait for ever
                raise FileNotFoundError(f'{argument}: {str(path)!r} is no file (a folder, a pipe or a broken link).')
        if not found:
            others = sorted({os.path.splitext(name)[1] for name in names} - {''})
            there = f'it holds files ending in {", ".join(others)}' if others else 'it holds no files'
            hint = "; set img_suffix to the images' ending" if argument != 'ann_file' and others else ''
            raise FileNotFoundError(f'{argument}: no *{suffix} in {folder!r}; {there}{hint}.')
        return found

    def _check_partners(self, images: dict[str, Path], labels: dict[str, Path]) -> None:
        for lone, kind, folder, cure in (
            (sorted(set(labels) - set(images)), f'.{self.img_suffix} image', self.data_prefix['img_path'],
             'add the images, set img_suffix, or remove the label files'),
            (sorted(set(images) - set(labels)), '.txt label file', self.ann_file,
             'an image without objects needs an empty one; without ann_file images are read without objects'),
        ):  # fmt: skip
            if lone:
                names = ', '.join(lone[:5]) + (', ...' if len(lone) > 5 else '')
                raise FileNotFoundError(f'no {kind} in {folder!r} for {len(lone)} of them: {names}; {cure}.')

    def _describe(self, image: Path, label: Path | None) -> dict:
        width, height = self._check_image(image)
        return dict(
            img_id=image.name[: -len(self.img_suffix) - 1],
            file_name=image.name,
            img_path=str(image),
            width=width,
            height=height,
            instances=[] if label is None else self._read(label, width, height),
        )

    def _read(self, path: Path, width: int, height: int) -> list[dict]:
        """The usable lines of one label file."""
        labels = {name: label for label, name in enumerate(self.metainfo['classes'])}
        known = set(labels) | set(self.METAINFO['classes'])
        instances, refused = [], []
        try:
            size = path.stat().st_size
            if size > _LARGEST:
                raise BrokenFileError(f'{path} has {size} bytes; a label file has at most {_LARGEST}. Is it one?')
            data = path.read_bytes()
        except OSError as error:
            raise BrokenFileError(f'{path} cannot be read ({error.strerror})') from error
        if b'\0' in data:
            raise BrokenFileError(f'{path} is no text: it has zero bytes')
        text = data.decode('utf-8-sig', errors='replace').replace('\r\n', '\n').replace('\r', '\n')
        for number, line in enumerate(text.split('\n'), 1):  # as editors count, unlike splitlines
            if not line.strip() or line.strip().lower().startswith(_HEADERS):
                continue
            try:
                polygon, name, difficulty = parse_line(line, known)
                check_polygon(polygon, width, height)
            except BadLine as error:
                if self.strict:
                    raise ValueError(f'{path}:{number}: {error}') from None
                refused.append((number, str(error)))
                continue
            if name in labels:
                instances.append(
                    dict(bbox=polygon, bbox_label=labels[name], ignore_flag=int(difficulty > self.diff_thr))
                )
        if refused:
            shown = '; '.join(f'line {number}: {reason}' for number, reason in refused[:8])
            more = f'; and lines {", ".join(str(number) for number, _ in refused[8:100])}' if len(refused) > 8 else ''
            more += ', ...' if len(refused) > 100 else ''
            _warn(f'{path}: left out {len(refused)} of {len(refused) + len(instances)} objects: {shown}{more}')
        return instances

    def filter_data(self) -> list[dict]:
        """Apply `filter_cfg`; in test mode keep everything."""
        return filter_empty(self)

    def get_cat_ids(self, idx: int) -> list[int]:
        """Labels of the objects in one image."""
        return [instance['bbox_label'] for instance in self.get_data_info(idx)['instances']]


@DATASETS.register_module()
class DOTAv15Dataset(DOTADataset):
    """DOTA-v1.5: one more class."""

    METAINFO = {'classes': tuple(_V15), 'palette': list(_V15.values())}


@DATASETS.register_module()
class DOTAv2Dataset(DOTADataset):
    """DOTA-v2.0: three more classes than v1.0."""

    METAINFO = {'classes': tuple(_V2), 'palette': list(_V2.values())}


def parse_line(line: str, known: set[str]) -> tuple[list[float], str, int]:
    """Corners (8 numbers), class and difficulty (0 if missing) of one annotation line.

    Raises:
        BadLine: If the line is not of that shape, or the class is not in `known`.
    """
    fields = line.split()
    if len(fields) not in (9, 10):
        raise BadLine(f'{len(fields)} fields ({_clip(line)!r}); it must be {_SHAPE_OF_A_LINE}')
    try:
        polygon = [float(value) for value in fields[:8]]
    except ValueError:
        raise BadLine(f'{_clip(line)!r} does not begin with 8 numbers; it must be {_SHAPE_OF_A_LINE}') from None
    if not all(map(math.isfinite, polygon)):
        raise BadLine(f'{_clip(line)!r} has a coordinate that is not finite')
    if max(map(abs, polygon)) > _FARTHEST:
        raise BadLine(f'{_clip(line)!r} has a coordinate beyond {_FARTHEST:.0f} pixels')
    name = fields[8]
    if name not in known:
        raise BadLine(f'class {_clip(name)!r} is unknown; known are {", ".join(sorted(known))}')
    try:
        difficulty = int(fields[9]) if len(fields) == 10 else 0
    except ValueError:
        raise BadLine(f'difficulty {_clip(fields[9])!r} is no whole number; 0 is easy, 1 is difficult') from None
    return polygon, name, difficulty


def check_polygon(polygon: list[float], width: int, height: int) -> None:
    """Refuse a box that has no area or no part in the image.

    Raises:
        BadLine: Says which.
    """
    points = np.array(polygon, np.float32).reshape(4, 2)
    sides = cv2.minAreaRect(points)[1]
    if min(sides) < _THINNEST:
        raise BadLine(f'its box is {sides[0]:.3g} x {sides[1]:.3g} pixels; it must have an area')
    low, high = points.min(0), points.max(0)
    if (low >= 0).all() and (high <= (width, height)).all():
        return
    image = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    area, _ = cv2.intersectConvexConvex(cv2.convexHull(points), image)
    if area <= 0:
        x, y = ' to '.join(f'{v:g}' for v in (low[0], high[0])), ' to '.join(f'{v:g}' for v in (low[1], high[1]))
        raise BadLine(f'its box (x {x}, y {y}) lies outside the image of {width} x {height} pixels')


def _warn(text: str) -> None:
    print_log(text, logger='current', level=logging.WARNING)


def _clip(line: str) -> str:
    line = line.strip()
    return line if len(line) <= 80 else line[:77] + '...'
