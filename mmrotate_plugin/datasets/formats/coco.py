"""Read and write COCO's JSON with polygons or rotated boxes.

Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014 (arXiv:1405.0312).
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...registry import DATASETS
from ...utils.messages import clip, warn
from ...utils.typecheck import typed
from ..labelled_dataset import LabelledDataset
from ..utils.class_names import palette_for
from ..utils.foreign_formats import describe, guess_file, guess_json
from ..utils.label_files import plain_name, read_json
from ..xml_dataset import each_object, whole_pair
from .boxes import area_of, upright_box
from .coco_boxes import ANGLES, parse_annotation
from .detections import check_min_score
from .sample import Sample

WANTED = (
    "wanted is COCO's JSON whose annotations have a segmentation of polygons, a bbox of eight numbers (corners) or of "
    'five (cx, cy, w, h, angle)'
)


@DATASETS.register_module()
class RotatedCocoDataset(LabelledDataset):
    """COCO's JSON with rotated boxes, from whatever an annotation holds.

    It takes, in this order: the polygons of `segmentation` (four corners as they are, of other polygons the smallest
    rectangle around them; masks in run-length code too), a `bbox` of eight numbers, a `bbox` of five (cx, cy, w, h,
    angle), and CVAT's upright `bbox` that is turned by ``attributes.rotation``. An upright `bbox` alone is refused, as
    it has no angle; ``ann_type='hbb'`` reads it. Annotations with ``iscrowd=1`` are ignored, in training too.

    The classes are the `categories` of the file in the order of their numbers; `metainfo` may name some of them. The
    sizes are those of the images. Annotations and images that cannot be used are left out, named and counted, as
    `DOTADataset` does it.

    Args:
        ann_type: 'obb' for rotated boxes, 'hbb' for upright ones.
        angle: What the fifth number of a `bbox` is: 'ccw-degrees' (detectron2), 'cw-degrees', 'cw-radians' (mmrotate)
            or 'ccw-radians'. Files do not say it, so there is no default.
        diff_thr: Ignore objects whose key `difficult` is higher, in training and test. None: test mode ignores all
            difficult ones, and training none.
        strict: Raise at the first annotation or image that cannot be used.
        check_pixels: Decode every image at the start.
        min_score: Take the annotations alone whose `score` is this or more, of a file that ``predict --save coco``
            wrote. None: all, whatever their score.
        kwargs: Arguments of mmengine's BaseDataset. `ann_file` is the JSON file, ``data_prefix['img_path']`` the folder
            that its names of images are relative to.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If an argument or the file is wrong, or nothing can be used.
    """

    UNIT = 'annotation'
    WANTED = WANTED

    @typed
    def __init__(
        self,
        ann_type: str = 'obb',
        angle: str | None = None,
        diff_thr: int | None = None,
        *,
        strict: bool = False,
        check_pixels: bool = False,
        min_score: float | None = None,
        **kwargs: Any,
    ) -> None:
        check_min_score(min_score)
        self.min_score = min_score
        if ann_type not in ('obb', 'hbb'):
            raise ValueError(f"ann_type={ann_type!r} must be 'obb' (rotated) or 'hbb' (upright)")
        check_angle(angle)
        self.ann_type = ann_type
        self.angle = angle
        super().__init__(diff_thr, strict=strict, check_pixels=check_pixels, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Read the file."""
        if 'img_path' not in self.data_prefix:
            raise ValueError(f"data_prefix={self.data_prefix}: the images' folder goes under the key 'img_path'")
        content = CocoFile(Path(self.ann_file))
        names = tuple(content.names.values())
        self.METAINFO = {'classes': names, 'palette': palette_for(names)}
        if not self.metainfo['classes']:
            self._metainfo.update(self.METAINFO)
        self._begin()
        usable = self._keep_usable(
            [self._or_none(self._describe_image, content, image) for image in content.images.values()]
        )
        self._end(self.ann_file)
        return usable

    def _describe_image(self, content: 'CocoFile', image: Mapping[str, Any]) -> dict:
        path = os.path.join(self.data_prefix['img_path'], image['file_name'])
        width, height = self._check_image(Path(path))
        self._compare_size(image['file_name'], said_size(image), (width, height))
        found = content.objects(image['id'], self.ann_type, self.angle, self.min_score)
        return dict(
            img_id=image['id'],
            file_name=image['file_name'],
            img_path=path,
            width=width,
            height=height,
            instances=self._instances(f'{self.ann_file}, image {image["file_name"]}', found, width, height),
        )


class CocoFile:
    """A JSON file of COCO's form, by images.

    Args:
        path: The file.

    Attributes:
        names: Names of the categories by their numbers, in order.
        images: Entries of the images by their numbers.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is another JSON, or its images or categories are wrong.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            what = 'is a folder, not a file' if path.is_dir() else 'does not exist'
            raise FileNotFoundError(f"ann_file: {str(path)!r} {what}. It must be a file of COCO's JSON.")
        if path.suffix.lower() != '.json' and (looks := guess_file(path)) not in ('coco', None):
            raise ValueError(f'ann_file: {str(path)!r} is no JSON; it looks like {describe(looks)}')
        content = read_json(path, None)
        lists = {key: content.get(key) for key in ('images', 'annotations', 'categories')}
        missing = [key for key, value in lists.items() if not isinstance(value, list)]
        if missing:
            key = guess_json(json.dumps(dict.fromkeys(content)))
            hint = '' if key in ('coco', 'json') else f'; it looks like {describe(key)}'
            raise ValueError(f"{path} has no list of {', '.join(missing)}, which COCO's JSON has{hint}")
        self.path = path
        self.images: dict[Any, dict[str, Any]] = {}
        for image in lists['images'] or ():
            named = isinstance(image, dict) and isinstance(image.get('file_name'), str) and 'id' in image
            if not named or not image['file_name'] or '\0' in image['file_name']:
                raise ValueError(f'{path}: an image must have an id and a file_name, got {clip(str(image))}')
            if self.images.setdefault(_key(image['id']), image) is not image:
                raise ValueError(f'{path}: two images have the id {image["id"]!r}')
        self.names = _names(path, lists['categories'] or ())
        self._annotations: dict[Any, list[Any]] = {}
        for one in lists['annotations'] or ():
            image_id = _key(one.get('image_id')) if isinstance(one, dict) else None
            self._annotations.setdefault(image_id, []).append(one)
        lost = sum(len(found) for key, found in self._annotations.items() if key not in self.images)
        if lost:
            warn(f'{path}: {lost} annotations belong to no image of the file (image_id); they are left out')

    def objects(self, image_id: Any, ann_type: str, angle: str | None, min_score: float | None = None) -> Iterator[Any]:
        """Yield the objects of an image, each with its number in it; with `min_score` those that are sure enough."""
        found = self._annotations.get(_key(image_id), [])
        if min_score is not None:
            found = [one for one in found if not _is_below(one, min_score)]
        yield from each_object(found, lambda one: parse_annotation(one, self.names, ann_type, angle))


def _is_below(one: Any, min_score: float) -> bool:
    score = one.get('score') if isinstance(one, dict) else None
    return not isinstance(score, (int, float)) or not score >= min_score


def check_angle(angle: str | None) -> None:
    """Refuse an unknown kind of angle.

    Raises:
        ValueError: If it is none of `ANGLES`.
    """
    if angle is not None and angle not in ANGLES:
        raise ValueError(f'angle={angle!r} must be one of {", ".join(map(repr, ANGLES))}')


def said_size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the width and height that a file gives for an image, or None."""
    return whole_pair(str(image.get('width')), str(image.get('height')))


def file_text(samples: Sequence[tuple[Sample, str]], classes: Sequence[str]) -> str:
    """Write one JSON file: corners as `segmentation`, the upright box as `bbox`, and `difficult` beside it.

    Args:
        samples: Images with objects, each with the name of its file.
        classes: Class names; category numbers count from 1, as COCO's do.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (sample, name) in enumerate(samples, 1):
        images.append({'id': image_id, 'file_name': name, 'width': sample.width, 'height': sample.height})
        for one in sample.objects:
            polygon = [round(value, 6) for value in one.polygon]
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': image_id,
                    'category_id': classes.index(one.name) + 1,
                    'segmentation': [polygon],
                    'bbox': [round(value, 6) for value in upright_box(polygon)],
                    'area': round(area_of(polygon), 6),
                    'iscrowd': 0,
                    'difficult': one.difficulty,
                }
            )
    categories = [{'id': i, 'name': name, 'supercategory': ''} for i, name in enumerate(classes, 1)]
    return json.dumps({'images': images, 'annotations': annotations, 'categories': categories}, ensure_ascii=False)


def _names(path: Path, categories: Sequence[Any]) -> dict[Any, str]:
    names: dict[Any, str] = {}
    for one in categories:
        name = plain_name(one.get('name')) if isinstance(one, dict) else ''
        if not name or not isinstance(one.get('id'), int):
            raise ValueError(f'{path}: a category must have a whole number as id and a name, got {clip(str(one))}')
        if one['id'] in names or name in names.values():
            raise ValueError(f'{path}: two categories have the id {one["id"]} or the name {name!r}')
        names[one['id']] = name
    if not names:
        raise ValueError(f'{path}: categories is empty')
    return dict(sorted(names.items()))


def _key(value: Any) -> Any:
    return value if isinstance(value, (int, str)) else str(value)
