"""Look at a data set: counts, measures, findings and pictures, as JSON and as one page."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...datasets.statistics.collect import DataPart
from ...datasets.statistics.measure import Measures, measure, measure_objects
from ...datasets.statistics.problems import Problem, find_problems
from ...utils.atomic_files import write_json, write_whole
from ...utils.errors import UsageError
from ...visualization import encode_image
from ..runner import writable_folder
from .page import render
from .parts import PARTS, read_parts
from .samples import SMALL, SamplePicture, choose, draw_samples

PAGE, NUMBERS, PICTURES = 'dataset.html', 'dataset.json', 'pictures'


@dataclass
class Browsed:
    """What was found in a data set.

    Attributes:
        source: Config or folder, as it was named.
        format: Name of the folder's format; '' for a config.
        parts: Parts of the data.
        measures: Measures of the objects of each part.
        problems: Findings.
        samples: Pictures of each part, by its name.
        page: The page of HTML.
        numbers: The file of JSON.
    """

    source: str
    format: str
    parts: list[DataPart]
    measures: list[Measures]
    problems: list[Problem]
    samples: dict[str, list[SamplePicture]] = field(default_factory=dict)
    page: Path = Path(PAGE)
    numbers: Path = Path(NUMBERS)

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers and the findings, for JSON."""
        return {
            'source': self.source,
            'format': self.format or None,
            'parts': {
                part.name or 'all': {
                    **measure(part, found),
                    'samples': [
                        {
                            'image': sample.name,
                            'index': sample.index,
                            'objects_before': sample.objects[0],
                            'objects_after': None if sample.after is None else sample.objects[1],
                            'fault': sample.fault or None,
                        }
                        for sample in self.samples.get(part.name, ())
                    ],
                }
                for part, found in zip(self.parts, self.measures, strict=True)
            },
            'problems': [vars(problem) for problem in self.problems],
        }


def browse_dataset(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    number: int = 6,
    seed: int = 0,
    parts: Sequence[str] = PARTS,
    options: Mapping[str, Any] | Sequence[str] | None = None,
    from_format: str | None = None,
    angle: str | None = None,
    progress: Callable[[str, int], None] = lambda _what, _count: None,
) -> Browsed:
    """Look at a data set and write ``dataset.html``, ``dataset.json`` and ``pictures/``.

    Args:
        source: A config, whose pipelines are tried; or a folder of a format that `convert_dataset` reads, a
            ``data.yaml``, or a file of COCO's JSON.
        out: Folder to write to.
        number: Samples of each part to draw.
        seed: Of the choice of samples, and of what pipelines draw by chance.
        parts: Parts of a config to look at: 'train', 'val', 'test'. Data that an earlier part has are left out.
        options: Values that override those of the config.
        from_format: Format of the folder; None to recognise it.
        angle: What the fifth number of a `bbox` in COCO's JSON is; see `RotatedCocoDataset`.
        progress: Called with 'read NAME' or 'draw NAME' and the number of images so far.

    Raises:
        InputError: If nothing can be read or `out` not be written; the message says why.
    """
    if number < 0:
        raise UsageError(f'number={number} must be 0 or more')
    unknown = [name for name in parts if name not in PARTS]
    if unknown or not parts:
        raise UsageError(f'parts={list(parts)} must be some of {", ".join(PARTS)}')
    folder = writable_folder(out, '--out')
    readable, kind, faults = read_parts(
        source,
        parts,
        options=options,
        from_format=from_format,
        angle=angle,
        progress=lambda name, count: progress(f'read {name}'.strip(), count),
    )
    found = [one.part for one in readable]
    measures = [measure_objects(part) for part in found]
    problems = [Problem('unreadable', '', 1, fault) for fault in faults] + find_problems(found, measures)
    done = Browsed(str(source), kind, found, measures, problems, page=folder / PAGE, numbers=folder / NUMBERS)
    for one in readable:
        name = one.part.name
        done.samples[name] = draw_samples(
            one.part,
            choose(one.part, number, seed),
            one.load,
            seed,
            lambda count, name=name: progress(f'draw {name}'.strip(), count),  # type: ignore[misc]
        )
        problems += _of_samples(one.part, done.samples[name])
    try:
        _write(done, folder)
    except OSError as error:
        raise UsageError(f"--out '{out}' could not be written: {error.strerror or error}") from error
    return done


def _write(done: Browsed, folder: Path) -> None:
    for name, samples in done.samples.items():
        for sample in samples:
            for when, image in (('before', sample.before), ('after', sample.after)):
                if image is not None:
                    file = folder / PICTURES / f'{name or "all"}-{sample.index:05d}-{when}.jpg'
                    write_whole(file, encode_image(image, '.jpg'))
    write_json(done.numbers, done.as_dict())
    write_whole(
        done.page,
        render(done.source, done.format, done.parts, done.measures, done.problems, done.samples),
    )


def _of_samples(part: DataPart, samples: Sequence[SamplePicture]) -> list[Problem]:
    """Find what goes wrong in the pipeline."""
    found = []
    faults = [sample.fault for sample in samples if sample.fault]
    if faults:
        text = f'{len(faults)} of {len(samples)} samples that were drawn fail'
        found.append(Problem('sample', part.name, len(faults), text, faults))
    shorter = np.array([side for sample in samples for side in sample.shorter])
    small = int((shorter < SMALL).sum())
    if small > 0.1 * len(shorter):
        text = (
            f'{small} of {len(shorter)} boxes of the samples are narrower than {SMALL:g} pixels after the pipeline: '
            'a larger scale, or patches, would keep them visible'
        )
        found.append(Problem('small', part.name, small, text))
    return found
