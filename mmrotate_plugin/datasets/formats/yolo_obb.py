"""Read and write YOLO-OBB: a line of class number and four corners from 0 to 1 for each object, and a data.yaml.

The layout is that of ultralytics: https://docs.ultralytics.com/datasets/obb.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...registry import DATASETS
from ...utils.messages import clip, some, tell
from ...utils.typecheck import typed
from ..dota_format import FARTHEST, Annotation, BadAnnotation
from ..folder_dataset import FolderDataset, Found, Pair
from ..utils.class_names import palette_for
from ..utils.folder_files import list_folder
from ..utils.foreign_formats import are_fractions, guess_line
from ..utils.label_files import read_text
from .data_yaml import DataYaml, read_data_yaml, split_images
from .detections import check_min_score, confident
from .sample import Sample, number

SUFFIXES = ('bmp', 'jpeg', 'jpg', 'png', 'tif', 'tiff', 'webp')
_SHAPE = "'number x1 y1 x2 y2 x3 y3 x4 y4'"
WANTED = f'wanted is YOLO-OBB, one line for each object: {_SHAPE}, the class number, then four corners from 0 to 1'


@DATASETS.register_module()
class YOLOOBBDataset(FolderDataset):
    """A data set in the format YOLO-OBB, as it is, by its ``data.yaml``.

    .. code-block:: python

        dict(type='mmrotate_plugin.YOLOOBBDataset', data_root='dota8/', ann_file='dota8.yaml', split='train')

    The classes are those of the file, in its order; `metainfo` may name some of them. As ultralytics does it, the label
    file of ``images/train/a.jpg`` is ``labels/train/a.txt``, and an image without one has no objects; both are counted.
    Lines and files that cannot be used are left out, named and counted, as `DOTADataset` does it.

    Args:
        split: Key of the ``data.yaml``: 'train', 'val' or 'test'.
        diff_thr: Has no effect on files of this format, which has no difficult objects; it is there so that data sets
            can be exchanged, and must be None.
        img_suffix: Suffix of the images, or several. Capitals do not matter.
        strict: Raise at the first line, image or label file that cannot be used.
        check_pixels: Decode every image at the start.
        min_score: Read detections as labels, in the lines that ``predict --save yolo-obb`` writes, and take those of
            this score or more. None: a line with a score is no label.
        kwargs: Arguments of mmengine's BaseDataset. `ann_file` is the ``data.yaml``, whose folders are relative to its
            `path` or, if there is no such folder, to the file. `ann_file` may also be a folder of label files with
            ``data_prefix['img_path']``, without `split`; then `metainfo` must name all classes by their numbers.

    Raises:
        FileNotFoundError: If a file or folder is missing.
        ValueError: If an argument or the ``data.yaml`` is wrong, or nothing can be used.
    """

    UNIT = 'line'
    WANTED = WANTED
    NEED_ALL = False

    @typed
    def __init__(
        self,
        split: str | None = None,
        diff_thr: int | None = None,
        img_suffix: str | Sequence[str] = SUFFIXES,
        *,
        strict: bool = False,
        check_pixels: bool = False,
        min_score: float | None = None,
        **kwargs: Any,
    ) -> None:
        check_min_score(min_score)
        self.min_score = min_score
        if diff_thr is not None:
            raise ValueError(f'diff_thr={diff_thr}: YOLO-OBB has no difficult objects; leave it out')
        self.split = split
        self.data_yaml = self._yaml(kwargs)
        if self.data_yaml is not None:
            names = tuple(self.data_yaml.names.values())
            self.METAINFO = {'classes': names, 'palette': palette_for(names)}
            kwargs['metainfo'] = {'classes': names, **(kwargs.get('metainfo') or {})}
            kwargs['data_prefix'] = {'img_path': os.path.abspath(self.data_yaml.root)}
            kwargs['ann_file'] = os.path.abspath(self.data_yaml.path)  # else data_root would come in front of it again
        super().__init__(diff_thr, img_suffix, strict=strict, check_pixels=check_pixels, **kwargs)

    def _yaml(self, kwargs: Mapping[str, Any]) -> DataYaml | None:
        """Read the ``data.yaml``, or return None for a folder of label files."""
        file, root = kwargs.get('ann_file'), kwargs.get('data_root') or ''
        if not isinstance(file, str) or not file.lower().endswith(('.yaml', '.yml')):
            if self.split is not None:
                raise ValueError(f'split={self.split!r} needs ann_file to be a data.yaml, not {file!r}')
            if not (kwargs.get('metainfo') or {}).get('classes'):
                raise ValueError(
                    f'ann_file={file!r} is no data.yaml, so classes have no names; give the data.yaml with '
                    "split='train', or all names by their numbers: metainfo=dict(classes=...)"
                )
            return None
        if kwargs.get('data_prefix'):
            raise ValueError(
                f'data_prefix={kwargs["data_prefix"]!r}: the data.yaml says where images are; leave it out'
            )
        found = read_data_yaml(Path(root, file))
        if self.split not in found.splits:
            raise ValueError(
                f'split={self.split!r}: {found.path} has {some(map(repr, found.splits)) or "no folders of images"}'
            )
        return found

    def _pairs(self) -> list[Pair]:
        if self.data_yaml is None:
            argument = "data_prefix['img_path']"
            images = list_folder(self.data_prefix['img_path'], self.img_suffix, argument, self.data_root).files
            labels = list_folder(self.ann_file, ('.txt',), 'ann_file', self.data_root).files if self.ann_file else {}
            pairs: list[Pair] = [(stem, image, labels.get(stem)) for stem, image in images.items()]
        else:
            pairs = split_images(self.data_yaml, str(self.split), self.img_suffix)
        tell_empty(pairs, self.ann_file)
        self.unlabelled = [stem for stem, _, label in pairs if label is None]
        return pairs

    def _found(self, path: Path, width: int, height: int) -> tuple[Found, None]:
        names = self.data_yaml.names if self.data_yaml is not None else dict(enumerate(self.metainfo['classes']))
        text = read_text(path)
        if self.min_score is not None:
            return confident(text, self.min_score, lambda line: parse_line(line, names, width, height), numbers=9), None
        return parse_text(text, names, width, height), None


def tell_empty(pairs: Sequence[Pair], where: str) -> None:
    """Count the images without label file, which have no objects.

    Raises:
        FileNotFoundError: If no image has one.
    """
    empty = [stem for stem, _, label in pairs if label is None]
    if pairs and len(empty) == len(pairs):
        raise FileNotFoundError(
            f'{where}: none of {len(pairs)} images has a label file. That of images/a.jpg is labels/a.txt, and that of '
            f'{pairs[0][1]} is missing too'
        )
    if empty:
        tell(f'{where}: {len(empty)} of {len(pairs)} images have no label file, so no objects ({some(empty)})')


def parse_text(
    text: str, names: Mapping[int, str], width: int, height: int
) -> Iterator[tuple[int, Annotation | BadAnnotation]]:
    """Yield the objects of a label file, each with the number of its line, counted from 1."""
    for count, line in enumerate(text.replace('\r\n', '\n').replace('\r', '\n').split('\n'), 1):
        if line.strip():
            try:
                yield count, parse_line(line, names, width, height)
            except BadAnnotation as error:
                yield count, error


def parse_line(line: str, names: Mapping[int, str], width: int, height: int) -> Annotation:
    """Parse the class number and the corners of one line.

    Args:
        line: Line of the file.
        names: Names of the classes by their numbers.
        width: Width of the image, pixels.
        height: Height of the image, pixels.

    Raises:
        BadAnnotation: If the line has another form, or no class has its number.
    """
    fields = line.split()
    looks = guess_line(line)
    looks = 'dota' if looks is None and len(fields) in (9, 10) else looks if looks != 'yolo-obb' else None
    if len(fields) == 10 and looks is None:
        raise BadAnnotation(f'{clip(line)!r} has 10 numbers: is the last one the score of a detection?')
    if len(fields) != 9:
        raise BadAnnotation(f'{len(fields)} fields ({clip(line)!r}); it must be {_SHAPE}', looks)
    try:
        which, *values = (float(field) for field in fields)
    except ValueError:
        raise BadAnnotation(f'{clip(line)!r} must be 9 numbers, {_SHAPE}', looks) from None
    if not all(map(math.isfinite, (which, *values))):
        raise BadAnnotation(f'{clip(line)!r} has a number that is not finite')
    if not any(are_fractions([value]) for value in values):
        raise BadAnnotation(f'{clip(line)!r} has corners beyond 1; they must be from 0 to 1', 'number-first')
    name = names.get(int(which)) if which.is_integer() else None
    if name is None:
        raise BadAnnotation(f'its class number {clip(fields[0])} is none of {min(names)} to {max(names)}')
    polygon = [value * (height if place % 2 else width) for place, value in enumerate(values)]
    if max(map(abs, polygon)) > FARTHEST:
        raise BadAnnotation(f'{clip(line)!r} has a corner beyond {FARTHEST:.0f} pixels')
    return Annotation(polygon, name)


def label_text(sample: Sample, classes: Sequence[str]) -> str:
    """Write the label file of an image."""
    lines = []
    for one in sample.objects:
        sides = (sample.width, sample.height) * 4
        corners = ' '.join(number(v / side, 10) for v, side in zip(one.polygon, sides, strict=True))
        lines.append(f'{classes.index(one.name)} {corners}\n')
    return ''.join(lines)
