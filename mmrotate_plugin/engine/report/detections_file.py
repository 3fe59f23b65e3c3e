"""Keep the detections and objects of a data set in one file of arrays."""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...utils.atomic_files import write_whole
from ...utils.errors import UsageError
from ...utils.messages import first_line, why_no_file

FOUND = ('bboxes', 'scores', 'labels', 'bboxes_std')
TRUE = ('gt_bboxes', 'gt_labels', 'gt_ignored')
FORMAT = 'mmrotate_plugin detections 1'

Image = dict[str, Any]


def save_detections(path: Path, images: Sequence[Mapping[str, Any]], classes: Sequence[str], **facts: Any) -> Path:
    """Write detections and objects, without compression or pickle (NumPy's npz).

    Args:
        path: File to write, whole.
        images: As `evaluation.detection_report.measure_detections` takes them.
        classes: Names, by label.
        facts: Numbers and texts to keep with them, such as `eval_mode`.
    """
    arrays: dict[str, Any] = {}
    for names, count in ((FOUND, 'found'), (TRUE, 'true')):
        key = names[1]
        arrays[count] = np.array([len(image[key]) for image in images], dtype=np.int64)
        for name in names:
            parts = [image[name] for image in images if image.get(name) is not None and len(image[name])]
            if parts or name != 'bboxes_std':
                arrays[name] = np.concatenate(parts) if parts else np.zeros(0)
    ids = [str(image.get('img_id', i)) for i, image in enumerate(images)]
    head = {'format': FORMAT, 'classes': list(classes), 'ids': ids, 'facts': facts}
    arrays['head'] = np.frombuffer(json.dumps(head).encode(), dtype=np.uint8)
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return write_whole(path, stream.getvalue())


def load_detections(path: Path) -> tuple[list[Image], list[str], dict[str, Any]]:
    """Read a file of `save_detections`: images, classes, facts.

    Raises:
        UsageError: If it is no such file.
    """
    if not path.is_file():
        raise UsageError(f"'{path}' {why_no_file(path)}")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        head = json.loads(arrays.pop('head').tobytes())
        if head['format'] != FORMAT:
            raise ValueError(f'its format is {head["format"]}')
        ends = {count: arrays.pop(count).cumsum()[:-1] for count in ('found', 'true')}
        images: list[Image] = [{'img_id': name} for name in head['ids']]
        for name, values in arrays.items():
            for image, part in zip(images, np.split(values, ends['found' if name in FOUND else 'true']), strict=True):
                image[name] = part.astype(bool) if name == 'gt_ignored' else part
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"'{path}' holds no detections of a report: {first_line(error)}") from error
    return images, list(head['classes']), dict(head['facts'])
