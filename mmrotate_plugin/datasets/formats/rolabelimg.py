"""Read and write roLabelImg's XML: a rotated box (cx, cy, w, h, angle) for each object.

https://github.com/cgvict/roLabelImg; the angle is in radians, clockwise.
"""

from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from ...registry import DATASETS
from ..dota_format import Annotation, BadAnnotation
from ..folder_dataset import FolderDataset, Found
from ..utils.broken_files import BrokenFileError
from ..utils.foreign_formats import describe, guess_xml
from ..utils.label_files import parse_xml, plain_name, read_bytes
from ..xml_dataset import difficulty_of, each_object, number_in, whole_pair
from .boxes import EXACT, box_of, corners_of
from .sample import Sample, number

WANTED = "wanted is roLabelImg's XML: in each object a robndbox with cx, cy, w, h (pixels) and angle (radians)"


@DATASETS.register_module()
class RoLabelImgDataset(FolderDataset):
    """A folder of images and the XML files that roLabelImg wrote for them.

    Upright boxes that roLabelImg marked as such (``<type>bndbox</type>``) are read too; those of Pascal VOC's files are
    not. Images without XML file are left out and counted. Sizes are those of the images. Objects, files and images that
    cannot be used are left out, named and counted, as `DOTADataset` does it.

    Args:
        diff_thr: Ignore objects with a higher `difficult`, in training and test. None: test mode ignores all difficult
            ones, and training none.
        img_suffix: Suffix of the images, or several. Capitals do not matter.
        strict: Raise at the first object, image or label file that cannot be used.
        check_pixels: Decode every image at the start.
        kwargs: Arguments of mmengine's BaseDataset. `ann_file` is the folder of XML files, ``data_prefix['img_path']``
            that of the images; they may be the same. `metainfo` must name the classes.

    Raises:
        FileNotFoundError: If a folder is missing, or the image of an XML file.
        ValueError: If an argument is wrong, classes are missing (the message lists those of the files), or nothing can
            be used.
    """

    LABELS = ('.xml',)
    NEED_ALL = False
    WANTED = WANTED

    def _found(self, path: Path, width: int, height: int) -> tuple[Found, tuple[int, int] | None]:  # noqa: ARG002
        root = parse_xml(path, read_bytes(path))
        size = whole_pair(root.findtext('size/width'), root.findtext('size/height'))
        return parse_root(path, root), size


def parse_root(path: Path, root: Element) -> Found:
    """Yield the objects of an XML file, each with its number.

    Raises:
        BrokenFileError: If the file has no objects because it is of another format.
    """
    objects = root.findall('object')
    if not objects and root.tag != 'annotation':
        key = guess_xml(ElementTree.tostring(root, encoding='unicode'))
        raise BrokenFileError(f'{path} has no object; it looks like {describe(key)}')
    return each_object(objects, parse_object)


def parse_object(element: Element) -> Annotation:
    """Make an annotation of one object.

    Raises:
        BadAnnotation: If a field is missing or no number, or the object has no rotated box.
    """
    name = plain_name(element.findtext('name') or '')
    if not name:
        raise BadAnnotation('the field name is missing')
    rotated, upright = element.find('robndbox'), element.find('bndbox')
    if rotated is not None and rotated.find('cx') is not None:
        polygon = corners_of(*(number_in(rotated, field) for field in ('cx', 'cy', 'w', 'h', 'angle')))
    elif upright is not None and (element.findtext('type') or '').strip() == 'bndbox':
        x1, y1, x2, y2 = (number_in(upright, field) for field in ('xmin', 'ymin', 'xmax', 'ymax'))
        polygon = [x1, y1, x2, y1, x2, y2, x1, y2]
    else:
        text = ElementTree.tostring(element, encoding='unicode')
        raise BadAnnotation('has no robndbox with cx, cy, w, h and angle', guess_xml(text))
    other = tuple(
        field
        for field, usual in (('pose', 'Unspecified'), ('truncated', '0'))
        if (element.findtext(field) or usual).strip() != usual
    )
    return Annotation(polygon, name, difficulty_of(element), other=other)


def label_text(sample: Sample, image: str) -> str:
    """Write the XML file of an image.

    Args:
        sample: Image and objects.
        image: Name of the image's file.
    """
    root = Element('annotation', verified='no')
    for key, text in (('folder', ''), ('filename', Path(image).stem), ('path', image)):
        SubElement(root, key).text = text
    SubElement(SubElement(root, 'source'), 'database').text = 'Unknown'
    size = SubElement(root, 'size')
    for key, value in (('width', sample.width), ('height', sample.height), ('depth', 3)):
        SubElement(size, key).text = str(value)
    SubElement(root, 'segmented').text = '0'
    for one in sample.objects:
        node = SubElement(root, 'object')
        fields = {'type': 'robndbox', 'name': one.name, 'pose': 'Unspecified', 'truncated': '0'}
        for key, text in {**fields, 'difficult': str(one.difficulty)}.items():
            SubElement(node, key).text = text
        box = SubElement(node, 'robndbox')
        for key, side in zip(('cx', 'cy', 'w', 'h', 'angle'), box_of(one.polygon)[0], strict=True):
            SubElement(box, key).text = number(side, 9 if key == 'angle' else 6)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding='unicode') + '\n'


def shift_of(sample: Sample) -> list[float]:
    """List by how many pixels corners move that are no rectangle, as this format holds nothing else."""
    return [shift for one in sample.objects if (shift := box_of(one.polygon)[1]) > EXACT]
