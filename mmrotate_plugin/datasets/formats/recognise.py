"""Recognise the format of a folder of label files by what the files contain; a mixture is an error."""

import os
from pathlib import Path

from ...utils.errors import UsageError
from ...utils.messages import some
from ..dota_format import is_number
from ..utils.broken_files import BrokenFileError
from ..utils.folder_files import IMAGES
from ..utils.foreign_formats import describe, guess_line
from ..utils.label_files import parse_xml, read_bytes, read_json, read_text
from .labelme import LARGEST
from .nearby import labels_nearby

FORMATS = {  # name for --from and --to: title and endings of the label files
    'dota': ("DOTA's text files", ('.txt',)),
    'yolo-obb': ('YOLO-OBB', ('.txt',)),
    'coco': ("COCO's JSON", ('.json',)),
    'rolabelimg': ("roLabelImg's XML", ('.xml',)),
    'labelme': ('LabelMe', ('.json', '.xml')),
    'hrsc': ("HRSC2016's XML", ('.xml',)),
    'dior': ("DIOR-R's XML", ('.xml',)),
}
EMPTY = ''  # a label file without objects, which fits several formats
_LINES = 200  # looked at in a text file
_SIDE_FILES = ('classes', 'labels', 'license', 'readme', 'notes')


def recognise(root: Path, wanted: str | None = None) -> tuple[str, list[Path]]:
    """Find the format of the label files below a folder, and the files.

    Args:
        root: The folder.
        wanted: Key of `FORMATS` that is meant; None to find it out.

    Raises:
        UsageError: If there is none, or more than one and none is wanted; the message names files of each.
    """
    kinds: dict[str, list[Path]] = {}
    for file in _label_files(root):
        kind = kind_of(file)
        if kind is not None:
            kinds.setdefault(kind, []).append(file)
    empty = kinds.pop(EMPTY, [])
    if wanted is None:
        if len(kinds) != 1 or not set(kinds) <= set(FORMATS):
            raise UsageError(_refusal(root, kinds, empty))
        wanted = next(iter(kinds))
    elif wanted not in FORMATS:
        raise UsageError(f'from_format={wanted!r} must be one of {", ".join(FORMATS)}')
    suffixes = FORMATS[wanted][1]
    files = [*kinds.get(wanted, []), *(file for file in empty if file.suffix.lower() in suffixes)]
    if '.txt' in suffixes:  # lines that could be of this format as well as of another
        files += [file for kind, found in kinds.items() if kind not in FORMATS for file in found if _is_text(file)]
    if not files:
        hint = _what_else(kinds) or labels_nearby(root)
        raise UsageError(f'--from {wanted}: no file of {FORMATS[wanted][0]} below {root}{hint}')
    return wanted, sorted(files)


def kind_of(file: Path) -> str | None:
    """Find the format of one file: a key of `FORMATS` or of `foreign_formats`, `EMPTY`, or None for no label file.

    Raises:
        UsageError: If its lines are of two formats.
    """
    try:
        suffix = file.suffix.lower()
        return _kind_of_json(file) if suffix == '.json' else _kind_of_xml(file) if suffix == '.xml' else _text(file)
    except BrokenFileError:
        return None  # the reader names it, if it is one of the label files


def _text(file: Path) -> str | None:
    kinds: dict[str | None, int] = {}
    for number, line in enumerate(read_text(file).splitlines()[:_LINES], 1):
        if line.strip() and not line.lower().lstrip().startswith(('imagesource:', 'gsd:')):
            kinds.setdefault(_kind_of_line(line), number)
    both = [key for key in kinds if key in FORMATS]
    if len(both) > 1:
        places = ', '.join(f'line {kinds[key]} is {FORMATS[str(key)][0]}' for key in both)
        raise UsageError(f'{file} mixes formats: {places}; move it away or mend it')
    known = [key for key in kinds if key is not None]
    return EMPTY if not kinds else both[0] if both else known[0] if known else None


def _kind_of_line(line: str) -> str | None:
    fields = line.split()
    key = guess_line(line)
    if len(fields) >= 9 and all(map(is_number, fields[:8])) and not is_number(fields[8]) and key != 'scores':
        return 'dota'
    return key


def _kind_of_json(file: Path) -> str | None:
    content = read_json(file, None if file.stat().st_size > LARGEST else LARGEST)
    if content.get('type') == 'FeatureCollection':
        return 'geojson'
    if isinstance(content.get('shapes'), list):
        return 'labelme'
    lists = [key for key in ('images', 'annotations', 'categories') if isinstance(content.get(key), list)]
    return 'coco' if 'images' in lists and len(lists) > 1 else None


def _kind_of_xml(file: Path) -> str | None:
    root = parse_xml(file, read_bytes(file))
    if root.tag == 'HRSC_Image':
        return 'hrsc'
    if root.tag != 'annotation':
        return None
    objects = root.findall('object')
    for path, kind in (
        ('object/robndbox/cx', 'rolabelimg'),
        ('object/robndbox/x_left_top', 'dior'),
        ('object/polygon/pt', 'labelme'),
    ):
        if root.find(path) is not None:
            return kind
    if any((one.findtext('type') or '').strip() == 'bndbox' for one in objects):
        return 'rolabelimg'
    return 'voc' if root.find('object/bndbox') is not None else EMPTY if not objects else None


def files_below(root: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """List files by suffix, in order, without hidden ones; linked folders are entered once."""
    found, entered = [], set()
    for folder, folders, names in os.walk(root, followlinks=True):
        entered.add(os.path.realpath(folder))
        inner = (name for name in folders if os.path.realpath(os.path.join(folder, name)) not in entered)
        folders[:] = sorted(name for name in inner if not name.startswith('.'))
        for name in sorted(names):
            if name.lower().endswith(suffixes) and not name.startswith('.') and os.path.isfile(f'{folder}/{name}'):
                found.append(Path(folder, name))
    return found


def _label_files(root: Path) -> list[Path]:
    """List what may be label files: not the lists of HRSC2016 and DIOR, nor class lists and texts for people."""
    found = []
    for file in files_below(root, ('.txt', '.json', '.xml')):
        side = file.suffix.lower() == '.txt' and file.stem.lower() in _SIDE_FILES
        if 'ImageSets' not in file.relative_to(root).parts and not (
            side and not any(file.with_suffix(end).exists() for end in IMAGES)
        ):
            found.append(file)
    return found


def _refusal(root: Path, kinds: dict[str, list[Path]], empty: list[Path]) -> str:
    known = [kind for kind in kinds if kind in FORMATS]
    if not kinds:
        what = f'all {len(empty)} label files are empty ({_named(root, empty)})' if empty else 'there is no label file'
        if not empty and (hint := labels_nearby(root)):
            return f'{root}: there is no label file{hint}'
        return f'{root}: {what}, so the format cannot be recognised; name it with --from: {", ".join(FORMATS)}'
    told = '; '.join(
        f'{len(files)} of {FORMATS[kind][0] if kind in FORMATS else describe(kind).partition(":")[0]} '
        f'({_named(root, files)})'
        for kind, files in kinds.items()
    )
    text = any(_is_text(file) for kind, files in kinds.items() if kind not in FORMATS for file in files)
    cures = known or (['dota', 'yolo-obb'] if text else [])
    if not known and not text:
        return f'{root}: the label files are of no format that can be read: {told}; formats: {", ".join(FORMATS)}'
    hint = f'--from {" or --from ".join(cures)} reads those files alone' if known else (
        f'if they are, --from {" or --from ".join(cures)} reads what fits'
    )  # fmt: skip
    what = 'mixes formats' if len(kinds) > 1 else 'has lines of none of the formats'
    return f'{root} {what}: {told}; {hint}'


def _what_else(kinds: dict[str, list[Path]]) -> str:
    known = [f'{len(files)} of {FORMATS[kind][0]}' for kind, files in kinds.items() if kind in FORMATS]
    return f'; there are {", ".join(known)}' if known else ''


def _named(root: Path, files: list[Path]) -> str:
    return some((str(file.relative_to(root)) for file in files), 3)


def _is_text(file: Path) -> bool:
    return file.suffix.lower() == '.txt'
