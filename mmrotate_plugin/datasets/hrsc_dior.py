"""Read HRSC2016 and DIOR-R, data sets with a list of images and an XML file for each.

Liu et al., A High Resolution Optical Satellite Image Dataset for Ship Recognition and Some New Baselines, ICPRAM 2017.
Cheng et al., Anchor-free Oriented Proposal Generator for Object Detection, TGRS 2022 (arXiv:2110.01931).
"""

import math
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from ..registry import DATASETS
from ..utils.typecheck import typed
from .dota_format import Annotation, BadAnnotation
from .hrsc_dior_classes import DIOR, HRSC
from .utils.class_names import metainfo_fault
from .utils.foreign_formats import guess_xml
from .xml_dataset import XMLDataset, difficulty_of, number_in, whole_pair

_CORNERS = ('left_top', 'right_top', 'right_bottom', 'left_bottom')


@DATASETS.register_module()
class HRSCDataset(XMLDataset):
    """HRSC2016, with the arguments and samples of mmrotate's class of the same name.

    ``type='mmrotate_plugin.HRSCDataset'`` finds it from every scope. Unlike mmrotate's class, it takes the size of each
    image from the image. It leaves out single objects with missing or non-numeric fields, and boxes without area or
    outside the image, with one warning per file. Objects of unknown classes are counted and named once. Images that
    are broken or missing, or whose XML file is, are left out, named and counted.

    Args:
        img_subdir: Folder of the images in ``data_prefix['sub_data_root']``.
        ann_subdir: Folder of the XML files there.
        classwise: Distinguish the 31 classes of ships; otherwise all are 'ship'.
        backend_args: Arguments of mmengine's file backend, for files that are not on a local disk.
        diff_thr: Ignore objects whose field `difficult` is higher, in training and test. With None, the default, test
            mode ignores all difficult objects, and training none. mmrotate's class has no such argument.
        img_suffix: Suffix of the images, or several: ``('bmp', 'png')``. Capitals do not matter.
        strict: Raise at the first object, image or XML file that cannot be used.
        check_pixels: Decode every image at the start.
        kwargs: Arguments of mmengine's BaseDataset. `ann_file` is a list of image names. `filter_cfg` may have
            `filter_empty_gt`, `min_size` (of images, pixels) and `bbox_min_size` (smaller boxes are ignored).

    Raises:
        BrokenFileError: With `strict`; in test mode, for an image whose damage shows when it is decoded.
        FileNotFoundError: If there is no list.
        ValueError: If an argument is wrong, or no image or no object can be used.
    """

    METAINFO = {
        'classes': tuple(HRSC),
        'palette': [colour for _, colour in HRSC.values()],
        'classes_id': tuple(number for number, _ in HRSC.values()),
    }
    OBJECTS = 'HRSC_Objects/HRSC_Object'
    KINDS = ('hrsc', 'xml')

    @typed
    def __init__(
        self,
        img_subdir: str = 'AllImages',
        ann_subdir: str = 'Annotations',
        classwise: bool = False,
        file_client_args: dict | None = None,
        backend_args: dict | None = None,
        *,
        diff_thr: int | None = None,
        img_suffix: str | Sequence[str] = 'bmp',
        strict: bool = False,
        check_pixels: bool = False,
        **kwargs: Any,
    ) -> None:
        self.img_subdir = img_subdir
        self.ann_subdir = ann_subdir
        self.classwise = classwise
        if not classwise:
            kwargs['metainfo'] = self._one_class(kwargs.get('metainfo'))
        super().__init__(
            diff_thr, img_suffix, backend_args, file_client_args, strict=strict, check_pixels=check_pixels, **kwargs
        )

    @property
    def sub_data_root(self) -> str:
        """Folder that holds the folders of images and XML files."""
        return self.data_prefix.get('sub_data_root', self.data_root or '')

    def load_data_list(self) -> list[dict]:
        """Read all XML files."""
        numbers = self.metainfo.get('classes_id', ())
        own = len(numbers) == len(self.metainfo['classes'])  # else some of the classes, under their own numbers
        names = self.metainfo['classes'] if own else self.METAINFO['classes']
        self._by_number = dict(zip(numbers if own else self.METAINFO['classes_id'], names, strict=True))
        return super().load_data_list()

    def _one_class(self, metainfo: Mapping[str, Any] | None) -> Any:
        if metainfo_fault(metainfo) is not None:
            return metainfo  # the base class refuses it
        classes = metainfo.get('classes') if isinstance(metainfo, Mapping) else None
        if isinstance(classes, str):
            raise ValueError(f'metainfo: classes={classes!r}: name one class, or set classwise=True')
        if classes is not None and tuple(classes) != self.METAINFO['classes']:
            if len(classes) > 1:
                raise ValueError(f'metainfo has {len(classes)} classes; classwise=True tells them apart, else name one')
            return metainfo
        return {**(metainfo or {}), 'classes': ('ship',), 'palette': self.METAINFO['palette'][:1]}

    def _image(self, name: str) -> str:
        return self._with_suffix(os.path.join(self.sub_data_root, self.img_subdir, name))

    def _label(self, name: str) -> str:
        return os.path.join(self.sub_data_root, self.ann_subdir, f'{name}.xml')

    def _size(self, root: Element) -> tuple[int, int] | None:
        return whole_pair(root.findtext('Img_SizeWidth'), root.findtext('Img_SizeHeight'))

    def _object(self, element: Element) -> Annotation:
        return hrsc_object(element, self._name(element))

    def _name(self, element: Element) -> str:
        if not self.classwise:
            return self.metainfo['classes'][0]
        number = (element.findtext('Class_ID') or '').strip()
        if not number:
            raise BadAnnotation('the field Class_ID is missing')
        name = self._by_number.get(number[7:]) if number.startswith('1000000') else None
        return name or f'Class_ID {number}'


@DATASETS.register_module()
class DIORDataset(XMLDataset):
    """DIOR and DIOR-R, with the arguments and samples of mmrotate's class of the same name.

    It differs from mmrotate's class, and has further arguments, like `HRSCDataset`.

    Args:
        ann_subdir: Folder of the XML files in `data_root`.
        backend_args: Arguments of mmengine's file backend.
        ann_type: 'obb' for the four corners in `robndbox`, 'hbb' for the upright boxes in `bndbox`.
        diff_thr: See `HRSCDataset`.
        img_suffix: Suffix of the images, or several.
        strict: Raise at the first object, image or XML file that cannot be used.
        check_pixels: Decode every image at the start.
        kwargs: Arguments of mmengine's BaseDataset. ``data_prefix['img_path']`` is the folder of images.
    """

    METAINFO = {'classes': tuple(DIOR), 'palette': list(DIOR.values())}

    @typed
    def __init__(
        self,
        ann_subdir: str = 'Annotations/Oriented Bounding Boxes/',
        file_client_args: dict | None = None,
        backend_args: dict | None = None,
        ann_type: str = 'obb',
        *,
        diff_thr: int | None = None,
        img_suffix: str | Sequence[str] = 'jpg',
        strict: bool = False,
        check_pixels: bool = False,
        **kwargs: Any,
    ) -> None:
        if ann_type not in ('obb', 'hbb'):
            raise ValueError(f"ann_type={ann_type!r} must be 'obb' (rotated) or 'hbb' (upright)")
        self.ann_subdir = ann_subdir
        self.ann_type = ann_type
        super().__init__(
            diff_thr, img_suffix, backend_args, file_client_args, strict=strict, check_pixels=check_pixels, **kwargs
        )

    def load_data_list(self) -> list[dict]:
        """Read all XML files."""
        if 'img_path' not in self.data_prefix:
            raise ValueError(f"data_prefix={self.data_prefix}: the images' folder goes under the key 'img_path'")
        return super().load_data_list()

    def _image(self, name: str) -> str:
        return self._with_suffix(os.path.join(self.data_prefix['img_path'], name))

    def _label(self, name: str) -> str:
        return os.path.join(self.data_root or '', self.ann_subdir, f'{name}.xml')

    def _size(self, root: Element) -> tuple[int, int] | None:
        return whole_pair(root.findtext('size/width'), root.findtext('size/height'))

    def _object(self, element: Element) -> Annotation:
        return dior_object(element, self._census.known, self.ann_type)


def hrsc_object(element: Element, name: str) -> Annotation:
    """Make an annotation of an object of HRSC2016.

    Args:
        element: The object.
        name: Name of its class.

    Raises:
        BadAnnotation: If a field is missing or no number.
    """
    x, y, w, h, angle = (number_in(element, f'mbox_{field}') for field in ('cx', 'cy', 'w', 'h', 'ang'))
    cos, sin = math.cos(angle) / 2, math.sin(angle) / 2
    ahead, right = (w * cos, w * sin), (-h * sin, h * cos)
    polygon = [
        centre + along * a + across * b
        for along, across in ((1, 1), (1, -1), (-1, -1), (-1, 1))
        for centre, a, b in zip((x, y), ahead, right, strict=True)
    ]
    head = whole_pair(element.findtext('header_x'), element.findtext('header_y'))
    return Annotation(polygon, name, difficulty_of(element), {} if head is None else {'head': list(head)})


def dior_object(element: Element, known: Collection[str], ann_type: str = 'obb') -> Annotation:
    """Make an annotation of an object of DIOR.

    Args:
        element: The object.
        known: Known class names; others are read in lower case, as DIOR's files capitalise some of them.
        ann_type: 'obb' for the corners in `robndbox`, 'hbb' for the upright box in `bndbox`.

    Raises:
        BadAnnotation: If a field is missing or no number, or the object has no such box.
    """
    name = (element.findtext('name') or '').strip()
    if not name:
        raise BadAnnotation('the field name is missing')
    name = name if name in known else name.lower()
    box = element.find('robndbox' if ann_type == 'obb' else 'bndbox')
    if box is None:
        text = ElementTree.tostring(element, encoding='unicode')
        raise BadAnnotation(f'has no {"robndbox" if ann_type == "obb" else "bndbox"}', guess_xml(text))
    if ann_type == 'obb':
        if box.find('x_left_top') is None and box.find('cx') is not None:
            raise BadAnnotation('its robndbox has no corners', 'rolabelimg')
        polygon = [number_in(box, f'{axis}_{place}') for place in _CORNERS for axis in 'xy']
    else:
        x1, y1, x2, y2 = (number_in(box, field) for field in ('xmin', 'ymin', 'xmax', 'ymax'))
        polygon = [x1, y1, x2, y1, x2, y2, x1, y2]
    return Annotation(polygon, name, difficulty_of(element))
