"""Note what is done as predictions are written, to continue after an interruption and to write one file of all."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from ..datasets.formats.detections import UNFINISHED, coco_annotation
from ..utils.atomic_files import whole_file
from .prediction_sources import Source

NAME = UNFINISHED  # hidden, in the folder that is written to; removed at the end


class Journal:
    """A file with a line for each begun source, each image or frame in it, and each finished source.

    Args:
        path: The file. If it was begun with the same facts, what is finished in it stays, and so do the frames of a
            video that is not; else it begins anew.
        facts: What the results depend on: detector, options, kinds of files.

    Attributes:
        finished: What came of each source that is done, by name: the error, or None.

    Raises:
        OSError: If the file cannot be written.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        self.path, self.finished = path, dict[str, str | None]()
        self._stamps: dict[str, Any] = {}
        self._begun: tuple[str, Any] | None = None  # the source that an interruption left unfinished
        self._file: TextIO | None = None
        head = json.dumps({'facts': facts}, sort_keys=True)
        with whole_file(path) as temporary, temporary.open('w', encoding='utf-8') as file:
            file.write(f'{head}\n')
            for lines in self._groups(head):
                begin, end = json.loads(lines[0]), json.loads(lines[-1])
                if 'end' in end:
                    self.finished[begin['begin']] = end['error']
                    self._stamps[begin['begin']] = begin['stamp']
                else:
                    self._begun = begin['begin'], begin['stamp']
                file.writelines(lines)

    def is_done(self, source: Source) -> bool:
        """Tell whether a source is finished, and its file is still the same."""
        return source.name in self.finished and self._stamps[source.name] == _stamp(source)

    def begin(self, source: Source) -> None:
        """Note that a source is begun; what was noted of it before counts only for a video that goes on."""
        self.finished.pop(source.name, None)
        begun, self._begun = self._begun, None
        if source.kind != 'video' or begun != (source.name, _stamp(source)):
            self._write({'begin': source.name, 'stamp': _stamp(source)})

    def note(self, **facts: Any) -> None:
        """Note an image or frame of the source that was begun last: its `result`, and what else is known of it."""
        self._write(facts)

    def frames(self, source: Source) -> Iterator[dict[str, Any]]:
        """Yield what was noted of the frames of a video that an interruption left unfinished, in their order."""
        if source.kind != 'video' or self._begun != (source.name, _stamp(source)):
            return
        last = list(self._groups())[-1:]
        for line in last[0][1:] if last else ():
            yield json.loads(line)

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
                    if 'result' in (noted := json.loads(line)):
                        yield noted['result']

    def close(self) -> None:
        """Close the file, which then tells a later call where to continue."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):  # of a full disk, told as the line was written; what is cut of it does not count
                file.close()

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
        """Yield the lines of each finished source, and last those of an unfinished one.

        Args:
            head: First line that the file must have; None for any.
        """
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
        group = [line for line in group if line.endswith('}\n')]  # without what a power failure cut
        if group and group[0].startswith('{"begin"'):
            yield group


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
