"""Read and write LabelMe's JSON, and read the XML of the older LabelMe on the web: polygons and boxes by shape.

https://github.com/wkentaro/labelme; X-AnyLabeling writes the same with shapes of the type 'rotation'.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from ...registry import DATASETS
from ...utils.messages import clip
from ..dota_format import FARTHEST, Annotation, BadAnnotation, parse_difficulty
from ..folder_dataset import FolderDataset, Found
from ..utils.broken_files import BrokenFileError
from ..utils.foreign_formats import describe, guess_json, guess_xml
from ..utils.label_files import parse_xml, plain_name, read_bytes, read_json
from ..xml_dataset import each_object, number_in, whole_pair
from .boxes import smallest_rectangle
from .sample import Sample

WANTED = "wanted is LabelMe's JSON: 'shapes', each with a label and the points of a polygon or a box"
LARGEST = 512 * 2**20  # bytes; LabelMe stores the image in the file


@DATASETS.register_module()
class LabelMeDataset(FolderDataset):
    """A folder of images and the JSON files that LabelMe or X-AnyLabeling wrote for them, or the web tool's XML files.

    Polygons of four points are read as they are, of others the smallest rectangle around them; rectangles are boxes
    without a turn, and circles the square around them. Lines, points and masks are left out and named. Images without
    label file are left out and counted. Sizes are those of the images.

    Args:
        diff_thr: Ignore objects with a higher difficulty, in training and test. None: test mode ignores all difficult
            ones, and training none. An object is difficult by its key or its flag `difficult`.
        img_suffix: Suffix of the images, or several. Capitals do not matter.
        strict: Raise at the first object, image or label file that cannot be used.
        check_pixels: Decode every image at the start.
        kwargs: Arguments of mmengine's BaseDataset. `ann_file` is the folder of label files,
            ``data_prefix['img_path']`` that of the images; they may be the same. They are paired by name. `metainfo`
            must name the classes.

    Raises:
        FileNotFoundError: If a folder is missing, or the image of a label file.
        ValueError: If an argument is wrong, classes are missing (the message lists those of the files), or nothing can
            be used.
    """

    LABELS = ('.json', '.xml')
    NEED_ALL = False
    WANTED = WANTED

    def _found(self, path: Path, width: int, height: int) -> tuple[Found, tuple[int, int] | None]:  # noqa: ARG002
        return parse_file(path)


def parse_file(path: Path) -> tuple[Found, tuple[int, int] | None]:
    """Return the objects of a label file, and the width and height that it says, if any.

    Raises:
        BrokenFileError: If it is no JSON or XML of LabelMe.
    """
    if path.suffix.lower() == '.xml':
        root = parse_xml(path, read_bytes(path))
        objects = [node for node in root.findall('object') if (node.findtext('deleted') or '0').strip() != '1']
        if root.tag != 'annotation':
            raise BrokenFileError(f'{path} has no annotation; it looks like {describe(guess_xml(f"<{root.tag}>"))}')
        size = whole_pair(root.findtext('imagesize/ncols'), root.findtext('imagesize/nrows'))
        return each_object(objects, parse_element), size
    content = read_json(path, LARGEST)
    shapes = content.get('shapes')
    if not isinstance(shapes, list):
        key = guess_json(json.dumps(dict.fromkeys(content)))
        raise BrokenFileError(f"{path} has no list of 'shapes'; it looks like {describe(key)}")
    size = whole_pair(str(content.get('imageWidth')), str(content.get('imageHeight')))
    return each_object(shapes, parse_shape), size


def image_flags(path: Path) -> list[str]:
    """Name the flags that a JSON file gives to the whole image, which no other format has."""
    flags = read_json(path, LARGEST).get('flags')
    return [f'flag {key} of an image' for key, value in flags.items() if value] if isinstance(flags, dict) else []


def parse_shape(shape: Any) -> Annotation:
    """Make an annotation of one shape of a JSON file.

    Raises:
        BadAnnotation: If it has no label, or its points make no box.
    """
    if not isinstance(shape, dict):
        raise BadAnnotation(f'{clip(repr(shape))} is no shape')
    name = plain_name(shape.get('label'))
    if not name:
        raise BadAnnotation('its label is missing')
    kind = shape.get('shape_type') or 'polygon'
    make = _SHAPES.get(kind) if isinstance(kind, str) else None
    if make is None:
        raise BadAnnotation(f'its shape_type {clip(str(kind))!r} is none of {", ".join(_SHAPES)}')
    points = shape.get('points')
    pairs = points if isinstance(points, list) else []
    if not all(isinstance(p, list) and len(p) == 2 and all(map(is_number, p)) for p in pairs):
        raise BadAnnotation(f'its points {clip(str(points))!r} must be pairs of finite numbers')
    polygon = make([float(value) for pair in pairs for value in pair])
    flags = as_dict(shape.get('flags'))
    said = shape.get('difficult', flags.get('difficult', 0))
    difficulty = 0 if said is None else parse_difficulty(str(said))
    if difficulty is None:
        raise BadAnnotation(f'difficult is {clip(str(said))!r}; 0 is easy, 1 is difficult')
    other = [key for key in ('group_id', 'description', 'attributes', 'mask') if shape.get(key) not in (None, '', {})]
    other += [f'flag {key}' for key, value in flags.items() if value and key != 'difficult']
    return Annotation(polygon, name, difficulty, other=tuple(other))


def parse_element(element: Element) -> Annotation:
    """Make an annotation of one object of an XML file.

    Raises:
        BadAnnotation: If it has no name, or its points make no box.
    """
    name = plain_name(element.findtext('name') or '')
    if not name:
        raise BadAnnotation('the field name is missing')
    points = element.findall('polygon/pt')
    if not points:
        raise BadAnnotation('has no polygon of points (pt)')
    other = tuple(field for field in ('attributes', 'occluded') if (element.findtext(field) or 'no').strip() != 'no')
    return Annotation(polygon_of([number_in(p, axis) for p in points for axis in 'xy']), name, other=other)


def polygon_of(values: list[float]) -> list[float]:
    """Return four corners as they are, of other polygons the smallest rectangle around them.

    Args:
        values: x1, y1, x2, y2, ...; a last point that repeats the first does not count.

    Raises:
        BadAnnotation: If there are fewer than three points.
    """
    if len(values) == 10 and values[:2] == values[8:]:
        values = values[:8]
    if len(values) < 6:
        raise BadAnnotation(f'its polygon has {len(values) // 2} points; it must have 3 or more')
    return values if len(values) == 8 else smallest_rectangle(values)


def as_dict(value: Any) -> dict[Any, Any]:
    """Return a value of a JSON file if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def is_number(value: Any) -> bool:
    """Tell whether a value of a JSON file is a coordinate: finite, and of a size that images have."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return -FARTHEST <= value <= FARTHEST


def label_text(sample: Sample, image: str) -> str:
    """Write the JSON file of an image.

    Args:
        sample: Image and objects.
        image: Path of the image from the file.
    """
    shapes = []
    for one in sample.objects:
        points = [[round(x, 6), round(y, 6)] for x, y in zip(one.polygon[::2], one.polygon[1::2], strict=True)]
        shape: dict[str, Any] = {'label': one.name, 'points': points, 'group_id': None, 'description': ''}
        shape |= {'shape_type': 'polygon', 'flags': {'difficult': True} if one.difficulty else {}}
        if one.difficulty not in (0, 1):
            shape['difficult'] = one.difficulty
        shapes.append(shape)
    content: dict[str, Any] = {'version': '5.5.0', 'flags': {}, 'shapes': shapes, 'imagePath': image, 'imageData': None}
    content |= {'imageHeight': sample.height, 'imageWidth': sample.width}
    return json.dumps(content, ensure_ascii=False, indent=2) + '\n'


def _rectangle(values: list[float]) -> list[float]:
    if len(values) == 8:  # as newer tools write it
        return values
    if len(values) != 4:
        raise BadAnnotation(f'its rectangle has {len(values) // 2} points; it must have 2 or 4')
    x1, y1, x2, y2 = min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def _turned(values: list[float]) -> list[float]:
    if len(values) != 8:
        raise BadAnnotation(f'its rotated box has {len(values) // 2} points; it must have 4')
    return values


def _circle(values: list[float]) -> list[float]:
    if len(values) != 4:
        raise BadAnnotation(f'its circle has {len(values) // 2} points; it must have a centre and a point on it')
    x, y = values[:2]
    radius = math.hypot(values[2] - x, values[3] - y)
    return [x - radius, y - radius, x + radius, y - radius, x + radius, y + radius, x - radius, y + radius]


_SHAPES: dict[str, Callable[[list[float]], list[float]]] = {
    'polygon': polygon_of,
    'rotation': _turned,
    'oriented_rectangle': _turned,
    'rectangle': _rectangle,
    'circle': _circle,
}
