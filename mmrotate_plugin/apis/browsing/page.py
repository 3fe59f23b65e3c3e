"""Lay out what was found in a data set: a table for the terminal, and a page of HTML."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...datasets.statistics.collect import DataPart
from ...datasets.statistics.measure import Measures
from ...datasets.statistics.problems import Problem
from ...visualization import encode_image
from ...visualization.html import png_uri, render_page
from ...visualization.plots import dataset as plots
from .samples import SamplePicture

QUALITY = 82  # of the JPEGs in the page: a third of the bytes of OpenCV's 95, no difference to the eye


def part_rows(parts: Sequence[DataPart], measures: Sequence[Measures]) -> list[list[str]]:
    """Make a table of the parts of the data, the first row its head."""
    rows = [['', 'images', 'without objects', 'size', 'objects', 'difficult', 'per image', 'beyond the edge']]
    for part, found in zip(parts, measures, strict=True):
        per_image = np.bincount(part.owners, minlength=len(part.paths))
        rows.append(
            [
                part.name or 'all',
                f'{len(part.paths)}',
                f'{int((per_image == 0).sum())}',
                _sizes(part),
                f'{len(part.labels)}',
                f'{int(part.difficult.sum())}',
                f'{per_image.min()} to {per_image.max()}' if len(per_image) else '-',
                f'{int(found.beyond.sum())}',
            ]
        )
    return rows


def class_rows(parts: Sequence[DataPart], measures: Sequence[Measures]) -> list[list[str]]:
    """Make a table of the classes over all parts, the first row its head."""
    names = list(dict.fromkeys(name for part in parts for name in part.classes))
    labels = np.concatenate([_global_labels(part, names) for part in parts])
    size = np.concatenate([found.size for found in measures])
    aspect = np.concatenate([found.aspect for found in measures])
    several = [part.name or 'all' for part in parts]
    rows = [['class', *several, 'share', 'size', '5 %', '95 %', 'aspect ratio']]
    for label, name in enumerate(names):
        mine = labels == label
        counts = [int((_global_labels(part, names) == label).sum()) for part in parts]
        numbers = ['-'] * 4
        if mine.any():
            low, middle, high = np.quantile(size[mine], (0.05, 0.5, 0.95))
            numbers = [f'{middle:.0f}', f'{low:.0f}', f'{high:.0f}', f'{np.median(aspect[mine]):.1f}']
        rows.append([name, *(f'{count}' for count in counts), f'{mine.sum() / max(1, len(labels)):.1%}', *numbers])
    return rows


def render(
    source: str,
    kind: str,
    parts: Sequence[DataPart],
    measures: Sequence[Measures],
    problems: Sequence[Problem],
    samples: Mapping[str, Sequence[SamplePicture]],
) -> str:
    """Fill the page.

    Args:
        source: Config or folder.
        kind: Format of a folder, or ''.
        parts: Parts of the data.
        measures: Of each part.
        problems: Findings.
        samples: Pictures of each part, by its name.
    """
    objects = sum(len(part.labels) for part in parts)
    cards = [(f'{len(part.paths):,}', f'images of {part.name}' if part.name else 'images') for part in parts]
    cards += [
        (f'{objects:,}', 'objects'),
        (f'{len(dict.fromkeys(name for part in parts for name in part.classes))}', 'classes'),
        (f'{len(problems)}', 'findings'),
    ]
    return render_page(
        'dataset.html',
        title='Data set',
        source=source,
        format=kind,
        cards=cards,
        problems=problems,
        part_rows=part_rows(parts, measures),
        class_rows=class_rows(parts, measures),
        figures=_figures(parts, measures),
        samples=[_sample_values(part, samples.get(part.name, ())) for part in parts if samples.get(part.name)],
        footer='made by mmrotate-plugin browse-dataset',
    )


def _figures(parts: Sequence[DataPart], measures: Sequence[Measures]) -> list[dict[str, str]]:
    names = list(dict.fromkeys(name for part in parts for name in part.classes))
    counts = {
        part.name or 'all': np.bincount(_global_labels(part, names), minlength=len(names)).tolist() for part in parts
    }
    named = {part.name or 'all': found for part, found in zip(parts, measures, strict=True)}
    per_image = {part.name or 'all': np.bincount(part.owners, minlength=len(part.paths)) for part in parts}
    drawn = [
        (plots.class_figure(counts, names), 'Objects of each class.'),
        (
            plots.histogram(
                {name: found.size for name, found in named.items()},
                label='size of an object, pixels (square root of its area)',
                logarithmic=True,
            ),
            'Sizes in the stored images.',
        ),
        (
            plots.histogram(
                {name: found.aspect for name, found in named.items()}, label='aspect ratio', logarithmic=True
            ),
            'Longer side divided by the shorter one.',
        ),
        (
            plots.angle_figure({name: found.degrees for name, found in named.items()}),
            'Directions of the longer sides, as seen in the image: 0 degrees is level, 90 is upright.',
        ),
        (plots.histogram(per_image, label='objects in an image'), 'Objects of each image.'),
    ]
    return [{'uri': png_uri(picture), 'text': text} for picture, text in drawn]


def _sample_values(part: DataPart, samples: Sequence[SamplePicture]) -> dict[str, Any]:
    after = [sample for sample in samples if sample.after is not None]
    text = 'Each box has the name of its class and its angle in degrees, clockwise as the image is seen.'
    if after:
        before, kept = sum(sample.objects[0] for sample in after), sum(sample.objects[1] for sample in after)
        shorter = [side for sample in after for side in sample.shorter]
        text += f' The pipeline turns {before} objects of these images into {kept} boxes'
        text += f', half of them narrower than {np.median(shorter):.0f} pixels.' if shorter else '.'
    pictures = []
    for sample in samples:
        shown = [
            {'uri': png_uri(encode_image(image, '.jpg', quality=QUALITY), '.jpg'), 'text': sample.told[when]}
            for when, image in (('before', sample.before), ('after', sample.after))
            if image is not None
        ]
        pictures.append({'name': sample.name, 'pictures': shown})
    return {'name': part.name, 'text': text, 'pictures': pictures}


def _global_labels(part: DataPart, names: Sequence[str]) -> Any:
    """Return the labels of a part as indices into a list of all classes."""
    place = np.array([names.index(name) for name in part.classes], np.int64)
    return place[part.labels] if len(place) else np.zeros(0, np.int64)


def _sizes(part: DataPart) -> str:
    if not len(part.sizes):
        return '-'
    low, high = part.sizes.min(0).tolist(), part.sizes.max(0).tolist()
    small, large = f'{low[0]} x {low[1]}', f'{high[0]} x {high[1]}'
    return small if small == large else f'{small} to {large}'
