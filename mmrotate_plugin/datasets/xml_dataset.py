"""Read data sets that have a list of image names and an XML file per image, object by object."""

import io
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from mmengine.fileio import get, list_from_file
from PIL import Image

from ..utils.messages import clip
from .dota_format import FARTHEST, Annotation, BadAnnotation, parse_difficulty
from .labelled_dataset import LabelledDataset
from .utils.broken_files import BrokenFileError
from .utils.folder_files import IMAGES, suffixes_of
from .utils.foreign_formats import describe, guess_xml
from .utils.label_files import parse_xml

Found = Iterator[tuple[int, Annotation | BadAnnotation]]


class XMLDataset(LabelledDataset):
    """Base of `HRSCDataset` and `DIORDataset`: a list of image names, and an XML file for each.

    Args:
        diff_thr: See `LabelledDataset`.
        img_suffix: Suffix of the images, or several; capitals do not matter.
        backend_args: Arguments of mmengine's file backend, for files that are not on a local disk. There the sizes of
            the images are those in the XML files, and broken images show when they are decoded.
        kwargs: Of `LabelledDataset`.
    """

    FILTERS = ('bbox_min_size',)
    OBJECTS = 'object'  # path of an object in the XML file
    KINDS: tuple[str, ...] = ('dior', 'voc', 'xml')  # keys of foreign_formats that the files may have

    def __init__(
        self,
        diff_thr: int | None,
        img_suffix: str | Sequence[str],
        backend_args: dict | None,
        file_client_args: dict | None,
        **kwargs: Any,
    ) -> None:
        if file_client_args is not None:
            raise ValueError(f'file_client_args={file_client_args!r} is an argument of mmdet 2; write backend_args')
        if (kwargs.get('filter_cfg') or {}).get('bbox_min_size') is not None and kwargs.get('test_mode'):
            raise ValueError("filter_cfg has 'bbox_min_size', which is for training; leave it out in a test")
        self.img_suffix = suffixes_of(img_suffix)
        self.backend_args = backend_args
        super().__init__(diff_thr, **kwargs)

    @property
    def bbox_min_size(self) -> float:
        """Length in pixels; boxes with a shorter side are ignored in training."""
        return (self.filter_cfg or {}).get('bbox_min_size') or 0

    def load_data_list(self) -> list[dict]:
        """Read all XML files."""
        self._begin()
        usable = self._keep_usable([self._or_none(self._describe, name) for name in self._names()])
        self._end(self.ann_file)
        return usable

    def _names(self) -> list[str]:
        """Read the names in the list file, without blank lines, suffixes and repetitions."""
        if not self.backend_args and not os.path.isfile(self.ann_file):
            what = 'is a folder, not a file' if os.path.isdir(self.ann_file) else 'does not exist'
            raise FileNotFoundError(
                f'ann_file: {self.ann_file!r} {what}. It must be a list of image names, one a line '
                f'(data_root={self.data_root!r} is put in front of it).'
            )
        names: dict[str, None] = {}
        for line in list_from_file(self.ann_file, backend_args=self.backend_args):
            words = line.lstrip('\ufeff').split()
            if len(words) == 2 and words[1] in ('1', '0', '-1'):  # Pascal VOC's lists say whether a class is present
                words = words[:1]
            stem, suffix = os.path.splitext(' '.join(words))
            names[stem if suffix.lower() in (*IMAGES, '.xml') else stem + suffix] = None
        names.pop('', None)
        if not names:
            raise ValueError(f'ann_file: {self.ann_file!r} names no image')
        return list(names)

    def _describe(self, name: str) -> dict:
        image, label = self._image(name), self._label(name)
        size = None if self.backend_args else self._check_image(Path(image))
        try:
            data = get(label, backend_args=self.backend_args)
        except OSError as error:
            raise BrokenFileError(f'{label} cannot be used ({type(error).__name__}: {error})') from error
        root = parse_xml(label, data)
        said = self._size(root)
        width, height = size or said or self._decoded(image)
        self._compare_size(name, said, (width, height))
        objects = root.findall(self.OBJECTS)
        if not objects:
            self._check_kind(label, root)
        return dict(
            img_id=name,
            file_name=os.path.basename(image),
            img_path=image,
            xml_path=label,
            width=width,
            height=height,
            instances=self._shrink(self._instances(label, each_object(objects, self._object), width, height)),
        )

    def _shrink(self, instances: list[dict]) -> list[dict]:
        """Mark boxes below `bbox_min_size` to be ignored."""
        if self.bbox_min_size:
            for one in instances:
                x1, y1, x2, y2, x3, y3 = one['bbox'][:6]
                if min(math.hypot(x2 - x1, y2 - y1), math.hypot(x3 - x2, y3 - y2)) < self.bbox_min_size:
                    one['ignore_flag'] = 1
        return instances

    def _check_kind(self, path: str, root: Element) -> None:
        """Refuse a file in the format of another data set."""
        kind = guess_xml(ElementTree.tostring(root, encoding='unicode'))
        if kind not in self.KINDS:
            raise BrokenFileError(f'{path} has no {self.OBJECTS}; it looks like {describe(kind)}')

    def _decoded(self, path: str) -> tuple[int, int]:
        try:
            with Image.open(io.BytesIO(get(path, backend_args=self.backend_args))) as image:
                return image.size
        except OSError as error:
            raise BrokenFileError(f'{path} cannot be read as an image ({error})') from error

    def _with_suffix(self, path: str) -> str:
        """Find the image file of that name; if there is none, return the name that it should have."""
        there = [path + form for suffix in self.img_suffix for form in (suffix, suffix.upper())]
        return next((file for file in there if not self.backend_args and os.path.exists(file)), there[0])

    def _image(self, name: str) -> str:
        raise NotImplementedError

    def _label(self, name: str) -> str:
        raise NotImplementedError

    def _size(self, root: Element) -> tuple[int, int] | None:
        raise NotImplementedError

    def _object(self, element: Element) -> Annotation:
        raise NotImplementedError


def each_object(objects: Iterable[Any], parse: Callable[[Any], Annotation]) -> Found:
    """Yield the objects of a label file, each with its number, counted from 1.

    Args:
        objects: Objects as the file has them.
        parse: Makes an annotation of one, or raises BadAnnotation.
    """
    for number, item in enumerate(objects, 1):
        try:
            yield number, parse(item)
        except BadAnnotation as error:
            yield number, error


def number_in(element: Element, name: str) -> float:
    """Read the finite number in a field.

    Raises:
        BadAnnotation: If it is missing, or not a finite number.
    """
    text = (element.findtext(name) or '').strip()
    if not text:
        raise BadAnnotation(f'the field {name} is missing')
    try:
        value = float(text)
    except ValueError:
        raise BadAnnotation(f'the field {name} is {clip(text)!r}, no number') from None
    if not abs(value) <= FARTHEST:
        raise BadAnnotation(f'the field {name} is {clip(text)}; it must be finite and below {FARTHEST:.0f}')
    return value


def difficulty_of(element: Element) -> int:
    """Read the difficulty of an object, 0 if missing.

    Raises:
        BadAnnotation: If it is not a whole number.
    """
    text = element.findtext('difficult')
    if text is None or not text.strip():
        return 0
    difficulty = parse_difficulty(text)
    if difficulty is None:
        raise BadAnnotation(f'the field difficult is {clip(text)!r}; 0 is easy, 1 is difficult')
    return difficulty


def whole_pair(first: str | None, second: str | None) -> tuple[int, int] | None:
    """Parse two whole numbers; None if one of them is missing or not a number."""
    try:
        return int(float(first or '')), int(float(second or ''))
    except (ValueError, OverflowError):
        return None
