"""Recognise annotations of other tools, so that a message can name them and say what to write instead.

It reads none of them: a wrong guess would train on wrong boxes. The data sets of `formats` read some, where a config
names them.
"""

import re
from collections.abc import Sequence
from pathlib import Path

WANTED = (
    "wanted is DOTA's format, one line for each object: 'x1 y1 x2 y2 x3 y3 x4 y4 class difficulty', four corners in "
    "pixels, the class's name, and 1 if it is difficult, else 0"
)

_FRACTIONS = "multiply x by the image's width and y by its height"
_FORMATS = {
    'yolo-obb': (
        'YOLO-OBB (class number, then corners from 0 to 1)',
        "type='mmrotate_plugin.YOLOOBBDataset' reads it",
    ),
    'dota': ("DOTA's lines (corners in pixels, class, difficulty)", "type='mmrotate_plugin.DOTADataset' reads them"),
    'yolo': (
        "YOLO's upright boxes (class number, then centre, width and height from 0 to 1)",
        f"{_FRACTIONS}, write the four corners, and append the class's name",
    ),
    'yolo-polygon': (
        "YOLO's segments (class number, then points from 0 to 1)",
        f'{_FRACTIONS}, write the corners of the smallest rectangle around them, and append the name of the class',
    ),
    'fractions': ('lines of DOTA with corners from 0 to 1', _FRACTIONS),
    'class-first': ('corners after their class', 'write the class after the corners'),
    'number-first': ('corners after a class number', "write the class's name after the corners"),
    'no-class': ('corners without a class', "write the class's name after the corners"),
    'many-corners': (
        'polygons of more than four corners',
        'write the corners of the smallest rectangle around each',
    ),
    'commas': ('lines with commas', 'put blanks in their place'),
    'decimal-commas': ('lines with decimal commas', 'write points in their place: 10.5'),
    'semicolons': ('lines with semicolons', 'put blanks in their place'),
    'xywha': ('centre, width, height and angle of each box (x y w h angle)', 'write its four corners'),
    'upright': ('upright boxes of four numbers', 'write the four corners, and the class after them'),
    'results': ("detections for DOTA's server (image, score, corners)", 'labels are wanted, not detections'),
    'scores': ('detections with a score in place of the difficulty', 'labels are wanted, not detections'),
    'header': ('a table with a line of column names', 'leave that line out'),
    'ucas': ("UCAS-AOD's lines (corners, angle, x y w h, no class)", 'keep the eight corners, and append the class'),
    'kitti': ("KITTI's lines", 'write the four corners, and the class after them'),
    'coco': ("COCO's JSON", "type='mmrotate_plugin.RotatedCocoDataset' reads it"),
    'coco-upright': (
        "COCO's JSON with upright boxes alone",
        "ann_type='hbb' of RotatedCocoDataset reads them; they have no angle",
    ),
    'labelme': ("LabelMe's JSON", "type='mmrotate_plugin.LabelMeDataset' reads it"),
    'labelme-xml': ("LabelMe's XML", "type='mmrotate_plugin.LabelMeDataset' reads it"),
    'geojson': ('GeoJSON', 'write a text file for each image'),
    'json': ('JSON', 'write a text file for each image'),
    'rolabelimg': ("roLabelImg's XML (robndbox: cx cy w h angle)", "type='mmrotate_plugin.RoLabelImgDataset' reads it"),
    'dior': ("DIOR-R's XML", "type='mmrotate_plugin.DIORDataset' reads it"),
    'hrsc': ("HRSC2016's XML", "type='mmrotate_plugin.HRSCDataset' reads it"),
    'voc': (
        "Pascal VOC's XML (bndbox: upright boxes)",
        "type='mmrotate_plugin.DIORDataset' with ann_type='hbb' reads it; they have no angle",
    ),
    'xml': ('XML', 'write a text file for each image'),
    'csv': ('a table (CSV)', 'write a text file for each image, with blanks in place of commas'),
}
_COLUMN_NAMES = re.compile(r'\b([xy]_?[0-4]|[xy]_?min|[xy]_?max|category|label|class|difficult\w*|angle)\b')
_DECIMAL_COMMA = re.compile(r'[-+]?\d+,\d+')


def describe(key: str) -> str:
    """Name a format and say how to convert it, in half a sentence."""
    name, cure = _FORMATS[key]
    return f'{name}: {cure}'


def guess_line(line: str) -> str | None:
    """Guess the format of a line that is not DOTA's, as a key for `describe`; None if unknown."""
    line = line.strip()[:2000]
    if line.startswith(('{', '[')):
        return 'json'
    if line.startswith('<'):
        return 'xml'
    if _has_decimal_commas(line):
        return 'decimal-commas'
    if ',' in line or ';' in line:
        fields = [field for field in re.split(r'[\s,;]+', line) if field]
        if len(fields) >= 5 and sum(map(_is_number, fields)) >= 4:
            return 'commas' if ',' in line else 'semicolons'
    else:
        fields = line.split()
    numbers = [_is_number(field) for field in fields]
    if all(numbers):
        return _guess_numbers([float(field) for field in fields])
    if not any(numbers):
        return 'header' if len(_COLUMN_NAMES.findall(line.lower())) >= 3 else None
    return _guess_mixed(fields, numbers)


def are_fractions(values: Sequence[float]) -> bool:
    """Whether coordinates are from 0 to 1, or a little beyond: fractions of an image's sides instead of pixels."""
    return all(-0.5 <= value <= 1.5 for value in values)


def guess_file(path: Path) -> str | None:
    """Guess the format of a whole file from its suffix and beginning, as a key for `describe`."""
    suffix = path.suffix.lower()
    try:
        with path.open('rb') as file:
            start = file.read(65536).decode('utf-8', errors='replace').lstrip('\ufeff \t\r\n')
    except OSError:
        return None
    if suffix in ('.json', '.geojson') or start[:1] in ('{', '['):
        return guess_json(start)
    if suffix == '.xml' or start.startswith('<'):
        return guess_xml(start)
    return 'csv' if suffix in ('.csv', '.tsv') else None


def guess_json(text: str) -> str:
    """Guess the format of a JSON text, as a key for `describe`."""
    if '"FeatureCollection"' in text:
        return 'geojson'
    if '"shapes"' in text:
        return 'labelme'
    return 'coco' if re.search(r'"(images|annotations|categories|licenses)"\s*:', text) else 'json'


def guess_xml(text: str) -> str:
    """Guess the format of an XML text, as a key for `describe`."""
    if 'HRSC_Object' in text:
        return 'hrsc'
    if '<x_left_top>' in text:
        return 'dior'
    if '<robndbox>' in text:
        return 'rolabelimg'
    if '<polygon>' in text and '<pt>' in text:
        return 'labelme-xml'
    return 'voc' if '<bndbox>' in text else 'xml'


def _guess_numbers(values: list[float]) -> str | None:
    count, number = len(values), values[0] >= 0 and values[0].is_integer() if values else False
    if not number:
        return {4: 'upright', 5: 'xywha', 8: 'no-class', 13: 'ucas'}.get(count)
    if are_fractions(values[1:]) and count >= 5:
        if count <= 6:
            return 'yolo'  # a sixth number is a score
        return 'yolo-obb' if count in (9, 10) else 'yolo-polygon' if count % 2 else None
    if count in (9, 10):
        return 'number-first'
    return {4: 'upright', 5: 'upright', 6: 'xywha', 8: 'no-class', 13: 'ucas'}.get(count)


def _guess_mixed(fields: list[str], numbers: list[bool]) -> str | None:
    if not numbers[0]:
        rest = numbers[1:]
        if len(fields) == 10 and all(rest):
            return 'results' if 0 <= float(fields[1]) <= 1 else 'class-first'
        if len(fields) in (15, 16) and all(rest):
            return 'kitti'
        if len(rest) >= 8 and all(rest[:8]):
            return 'class-first'
        return 'xywha' if len(rest) == 5 and all(rest) else 'upright' if len(rest) == 4 and all(rest) else None
    leading = numbers.index(False)
    if leading == 8 and numbers[-1] and len(fields) == 10 and not float(fields[-1]).is_integer():
        return 'scores'
    if leading >= 10 and leading % 2 == 0:
        return 'many-corners'
    return {4: 'upright', 5: 'xywha'}.get(leading)


def _has_decimal_commas(line: str) -> bool:
    fields = line.split()
    return len(fields) >= 5 and sum(_DECIMAL_COMMA.fullmatch(field) is not None for field in fields) >= 4


def _is_number(text: str) -> bool:
    try:
        value = float(text)
    except ValueError:
        return False
    return abs(value) < 1e300  # neither infinite nor NaN
