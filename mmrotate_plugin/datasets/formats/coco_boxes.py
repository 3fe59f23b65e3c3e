"""Find the rotated box in an annotation of COCO's JSON."""

import math
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from ...utils.messages import clip
from ..dota_format import Annotation, BadAnnotation, parse_difficulty
from .boxes import corners_of, smallest_rectangle
from .labelme import as_dict, is_number, polygon_of

ANGLES = {  # factor to radians, clockwise
    'ccw-degrees': -math.pi / 180,
    'cw-degrees': math.pi / 180,
    'ccw-radians': -1.0,
    'cw-radians': 1.0,
}
_USED = {'id', 'image_id', 'category_id', 'bbox', 'segmentation', 'area', 'iscrowd', 'difficult', 'ignore'}
_LARGEST_MASK = 10**9  # pixels


def parse_annotation(one: Any, names: Mapping[Any, str], ann_type: str, angle: str | None) -> Annotation:
    """Make an annotation of one entry.

    Args:
        one: Entry of `annotations`.
        names: Names of the categories by their numbers.
        ann_type: 'obb' or 'hbb'.
        angle: A key of `ANGLES` for a `bbox` of five numbers, or None.

    Raises:
        BadAnnotation: If its category is unknown, or it has no usable box.
    """
    if not isinstance(one, dict):
        raise BadAnnotation(f'{clip(str(one))} is no annotation')
    name = names.get(one.get('category_id')) if isinstance(one.get('category_id'), int) else None
    if name is None:
        raise BadAnnotation(f'its category_id {clip(str(one.get("category_id")))!r} is none of the categories')
    polygon = _upright(one) if ann_type == 'hbb' else _rotated(one, angle)
    attributes = as_dict(one.get('attributes'))
    said = one.get('difficult', attributes.get('difficult', 0))
    difficulty = 0 if said is None else parse_difficulty(str(said))
    if difficulty is None:
        raise BadAnnotation(f'difficult is {clip(str(said))!r}; 0 is easy, 1 is difficult')
    ignored = bool(one.get('iscrowd') or one.get('ignore'))
    other = [key for key in one if key not in _USED and key != 'attributes' and one[key] not in (None, '', [], {})]
    other += [key for key, value in attributes.items() if value and key not in ('difficult', 'rotation')]
    extra = {'ignore_flag': 1} if ignored else {}
    return Annotation(polygon, name, max(difficulty, int(ignored)), extra, tuple(map(str, other)))


def _rotated(one: Mapping[str, Any], angle: str | None) -> list[float]:
    segmentation, box = one.get('segmentation'), one.get('bbox')
    if isinstance(segmentation, dict):
        return _mask(segmentation)
    if isinstance(segmentation, list) and segmentation:
        parts = [segmentation] if all(map(is_number, segmentation)) else segmentation
        if not all(isinstance(part, list) and len(part) % 2 == 0 and all(map(is_number, part)) for part in parts):
            raise BadAnnotation(
                f'its segmentation {clip(str(segmentation))!r} must be polygons: [[x1, y1, x2, y2, ...]]'
            )
        return polygon_of([float(value) for part in parts for value in part])
    if not isinstance(box, list) or not all(map(is_number, box)):
        raise BadAnnotation(f'it has no segmentation, and its bbox {clip(str(box))!r} is no list of finite numbers')
    values = [float(value) for value in box]
    if len(values) == 8:
        return values
    if len(values) == 5:
        if angle is None:
            known = ' or '.join(map(repr, ANGLES))
            raise BadAnnotation(f'its bbox has five numbers, and nothing says what the angle is; give angle={known}')
        x, y, w, h, turn = values
        return corners_of(x, y, w, h, turn * ANGLES[angle])
    rotation = as_dict(one.get('attributes')).get('rotation')
    if len(values) == 4 and is_number(rotation):  # CVAT: the box before it is turned about its centre
        x, y, w, h = values
        return corners_of(x + w / 2, y + h / 2, w, h, math.radians(float(rotation)))  # type: ignore[arg-type]
    looks = 'coco-upright' if len(values) == 4 else None
    raise BadAnnotation(f'it has no segmentation, and its bbox has {len(values)} numbers: no rotated box', looks)


def _upright(one: Mapping[str, Any]) -> list[float]:
    box = one.get('bbox')
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        raise BadAnnotation(f'its bbox {clip(str(box))!r} must be x, y, width and height')
    x, y, w, h = map(float, box)
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def _mask(segmentation: Mapping[str, Any]) -> list[float]:
    """Compute the smallest rectangle around the pixels of a mask in run-length code."""
    try:
        from pycocotools import mask as coding
    except ImportError as error:
        raise BadAnnotation('its segmentation is a mask, which needs pycocotools: pip install pycocotools') from error
    size, counts = segmentation.get('size'), segmentation.get('counts')
    whole = isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size)
    if not whole or not isinstance(counts, (list, str)) or size[0] * size[1] > _LARGEST_MASK:  # type: ignore[index]
        raise BadAnnotation('its segmentation is a mask without size or counts')
    if isinstance(counts, list) and (not all(map(is_number, counts)) or sum(counts) != size[0] * size[1]):  # type: ignore[index]
        raise BadAnnotation('its segmentation is a mask whose counts do not add up to its size')
    try:
        code = coding.frPyObjects(dict(segmentation), *size) if isinstance(counts, list) else dict(segmentation)  # type: ignore[misc]
        pixels = coding.decode(code)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadAnnotation(f'its segmentation is a mask that cannot be decoded ({error})') from None
    if int(coding.area(code)) != int(pixels.sum()):  # of a code that is too short, the rest is random memory
        raise BadAnnotation('its segmentation is a mask whose counts do not add up to its size')
    outlines, _ = cv2.findContours(pixels, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if not outlines:
        raise BadAnnotation('its segmentation is a mask without pixels')
    centres = np.concatenate(outlines).reshape(-1, 2).astype(np.float64)
    steps = [np.array(step) for step in ((0, 0), (1, 0), (1, 1), (0, 1))]  # a pixel's corners, not its centre alone
    return smallest_rectangle(np.concatenate([centres + step for step in steps]).ravel().tolist())
