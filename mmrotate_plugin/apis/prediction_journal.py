"""Note what is done as predictions are written, to continue after an interruption and to write one file of all."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from ..datasets.formats.detections import coco_annotation
from ..utils.atomic_files import whole_file
from .prediction_sources import Source

NAME = '.predict.jsonl'  # hidden, in the folder that is written to; removed at the end


class Journal:
    """A file with a line for each begun source, each image or frame in it, and each finished source.

    Args:
        path: The file. If it was begun with the same facts, what is finished in it stays; else it begins anew.
        facts: What the results depend on: detector, options, kinds of files.

    Attributes:
        finished: What came of each source that is done, by name: the error, or None.

    Raises:
        OSError: If the file cannot be written.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        self.path, self.finished = path, dict[str, str | None]()
        self._stamps: dict[str, Any] = {}
        self._file: TextIO | None = None
        head = json.dumps({'facts': facts}, sort_keys=True)
        with whole_file(path) as temporary, temporary.open('w', encoding='utf-8') as file:
            file.write(f'{head}\n')
            for lines in self._groups(head):  # without what an interruption left unfinished
                begin, end = json.loads(lines[0]), json.loads(lines[-1])
                self.finished[begin['begin']] = end['error']
                self._stamps[begin['begin']] = begin['stamp']
                file.writelines(lines)

    def is_done(self, source: Source) -> bool:
        """Tell whether a source is finished, and its file is still the same."""
        return source.name in self.finished and self._stamps[source.name] == _stamp(source)

    def begin(self, source: Source) -> None:
        """Note that a source is begun; what was noted of it before no longer counts."""
        self.finished.pop(source.name, None)
        self._write({'begin': source.name, 'stamp': _stamp(source)})

    def note(self, result: Mapping[str, Any]) -> None:
        """Note an image or frame of the source that was begun last."""
        self._write({'result': result})

    def end(self, source: Source, error: str | None) -> None:
        """Note that a source is finished, and with which error."""
        self._write({'end': source.name, 'error': error})
        self.finished[source.name] = error

    def results(self) -> Iterator[dict[str, Any]]:
        """Yield what was noted of the images of all finished sources, each once."""
        latest = {json.loads(lines[0])['begin']: i for i, lines in enumerate(self._groups())}
        for i, lines in enumerate(self._groups()):
            if latest[json.loads(lines[0])['begin']] == i:
                for line in lines[1:-1]:
                    yield json.loads(line)['result']

    def close(self) -> None:
        """Close the file, which then tells a later call where to continue."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """Remove the file: all is done."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _write(self, record: Mapping[str, Any]) -> None:
        if self._file is None:
            self._file = self.path.open('a', encoding='utf-8')
        self._file.write(json.dumps(record, ensure_ascii=True) + '\n')
        self._file.flush()

    def _groups(self, head: str | None = None) -> Iterator[list[str]]:
        """Yield the lines of each finished source; with `head` only of a file that begins so."""
        if not self.path.is_file():
            return
        with self.path.open(encoding='utf-8', errors='replace') as file:
            if head is not None and file.readline() != f'{head}\n':
                return
            group: list[str] = []
            for line in file:
                if line.startswith('{"begin"'):
                    group = []
                group.append(line)
                if line.startswith('{"end"') and line.endswith('}\n') and group[0].startswith('{"begin"'):
                    yield group
                    group = []


def _stamp(source: Source) -> list[int]:
    try:
        stat = source.path.stat()
    except OSError:
        return []
    return [stat.st_size, stat.st_mtime_ns]


def write_coco(path: Path, results: Callable[[], Iterator[dict[str, Any]]], classes: list[str]) -> None:
    """Write all results as one file of COCO's JSON, which `RotatedCocoDataset` reads; memory holds one image's.

    Args:
        path: File to write.
        results: Yields the images; it is called twice.
        classes: Class names; category numbers count from 1, as COCO's do.

    Raises:
        OSError: If the file cannot be written.
    """
    # names of files that are no UTF-8 become JSON's own escapes
    with whole_file(path) as temporary, temporary.open('w', encoding='utf-8', errors='backslashreplace') as file:
        file.write('{"images": [')
        for number, result in enumerate(results(), 1):
            image = {'id': number, **result['image']}
            file.write(f'{"," * (number > 1)}\n{json.dumps(image, ensure_ascii=False)}')
        file.write('],\n"annotations": [')
        count = 0
        for number, result in enumerate(results(), 1):
            for one in result['found']:
                count += 1
                facts = {'id': count, 'image_id': number, 'category_id': one['label'] + 1, **one['more']}
                entry = coco_annotation(one['polygon'], one['score'], facts)
                file.write(f'{"," * (count > 1)}\n{json.dumps(entry, ensure_ascii=False)}')
        categories = [{'id': i, 'name': name, 'supercategory': ''} for i, name in enumerate(classes, 1)]
        file.write(f'],\n"categories": {json.dumps(categories, ensure_ascii=False)}}}\n')
