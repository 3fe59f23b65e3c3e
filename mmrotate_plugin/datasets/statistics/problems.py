"""Find what is wrong with a data set, one finding a line."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ...utils.messages import some
from .collect import DataPart
from .duplicates import same_files, twice_labelled
from .measure import Measures

_NAMED = 12  # examples of a finding that are kept
_MOSTLY = 0.5  # share of the area outside from which a box is named


@dataclass
class Problem:
    """One finding.

    Args:
        kind: Short name, the same for all findings of a kind.
        part: Part of the data; '' if it is about several.
        count: How many images or objects.
        text: The finding in a sentence.
        examples: Images or classes, at most a dozen.
    """

    kind: str
    part: str
    count: int
    text: str
    examples: list[str] = field(default_factory=list)


def find_problems(parts: Sequence[DataPart], measures: Sequence[Measures]) -> list[Problem]:
    """Look for what training would stumble over or learn wrongly.

    Args:
        parts: Parts of the data, in the order train, val, test.
        measures: Of each, from `measure_objects`.
    """
    found: list[Problem] = []
    for part, measured in zip(parts, measures, strict=True):
        found += _of_files(part)
        found += _of_objects(part, measured)
    return [*found, *_copies(parts), *_of_classes(parts)]


def _of_files(part: DataPart) -> list[Problem]:
    found = []
    if part.unlabelled:
        count = len(part.unlabelled)
        found.append(
            _problem('no label file', part, count, f'{_counted(count, "image")} without label file', part.unlabelled)
        )
    if part.broken:
        count = len(part.broken)
        found.append(
            _problem(
                'broken',
                part,
                count,
                f'{_counted(count, "image")} left out, as the image or its label file is broken',
                part.broken,
            )
        )
    if part.refused:
        text = f'{_counted(part.refused, "object")} left out that cannot be used, {part.outside} outside of the image'
        found.append(_problem('left out', part, part.refused, text, [part.refused_first]))
    if part.other_classes:
        names = [f'{name} ({count})' for name, count in part.other_classes.items()]
        count = sum(part.other_classes.values())
        found.append(
            _problem(
                'other classes',
                part,
                count,
                f'{_counted(count, "object")} left out, of classes that the config does not have',
                names,
            )
        )
    return found


def _of_objects(part: DataPart, measured: Measures) -> list[Problem]:
    found = []
    mostly = np.flatnonzero(measured.outside > _MOSTLY)
    if len(mostly):
        worst = mostly[np.argsort(-measured.outside[mostly], kind='stable')]
        text = f'{_counted(len(mostly), "box", "boxes")} with more than half of the area outside of the image'
        found.append(_problem('mostly outside', part, len(mostly), text, _images(part, worst)))
    pairs = twice_labelled(part)
    alike = [pair for pair in pairs if part.labels[pair[0]] == part.labels[pair[1]]]
    if alike:
        text = f'{_counted(len(alike), "box", "boxes")} labelled twice, with the same class'
        found.append(_problem('labelled twice', part, len(alike), text, _images(part, [b for _, b in alike])))
    other = [pair for pair in pairs if part.labels[pair[0]] != part.labels[pair[1]]]
    if other:
        places = [
            f'{os.path.basename(part.paths[part.owners[a]])}: {_class(part, a)} and {_class(part, b)}' for a, b in other
        ]
        text = f'{_counted(len(other), "box", "boxes")} labelled twice, with two classes'
        found.append(_problem('two classes', part, len(other), text, list(dict.fromkeys(places))))
    return found


def _copies(parts: Sequence[DataPart]) -> list[Problem]:
    """Find images that are there twice, within a part and in two parts."""
    paths = [(path, part.name) for part in parts for path in part.paths]
    distinct = dict.fromkeys((os.path.realpath(path), name) for path, name in paths)
    files = list(distinct)
    within, between = [], []
    whole = 'train' not in {part.name for part in parts}  # val and test may be one on purpose
    for group in same_files([path for path, _ in files]):
        names = [files[i][1] for i in group]
        shown = ' = '.join(f'{files[i][1]}/{os.path.basename(files[i][0])}'.lstrip('/') for i in group[:4])
        if len(set(names)) > 1 and (whole or 'train' in names):
            between.append(shown)
        if len({files[i][0] for i in group}) > 1 and len(names) > len(set(names)):
            within.append(shown)
    found = []
    if between:
        text = f'{_counted(len(between), "image")} in more than one part, so a test on them says too much'
        found.append(Problem('image in two parts', '', len(between), text, between[:_NAMED]))
    if within:
        text = f'{_counted(len(within), "image")} there more than once, under other names'
        found.append(Problem('same image', '', len(within), text, within[:_NAMED]))
    return found


def _of_classes(parts: Sequence[DataPart]) -> list[Problem]:
    found = []
    first = parts[0]
    for part in parts[1:]:
        if part.classes != first.classes:
            text = f'{first.name} and {part.name} have different lists of classes, or another order'
            unlike = sorted(set(part.classes) ^ set(first.classes)) or ['the order']
            found.append(Problem('other lists', '', len(unlike), text, unlike[:_NAMED]))
    has = {part.name: {_class(part, i) for i in np.unique(part.labels, return_index=True)[1]} for part in parts}
    for one, part in ((a, b) for a in parts for b in parts if a is not b and {a.name, b.name} >= {'train'}):
        missing = [name for name in one.classes if name in has[one.name] - has[part.name]]
        if missing:
            text = f'{_counted(len(missing), "class", "classes")} with objects in {one.name} and none in {part.name}'
            found.append(Problem('not shared', part.name, len(missing), text, missing[:_NAMED]))
    names = list(dict.fromkeys(name for part in parts for name in part.classes))
    unused = [name for name in names if not any(name in kept for kept in has.values())]
    if unused:
        text = f'{_counted(len(unused), "class", "classes")} of {len(names)} without any object'
        found.append(Problem('no object', '', len(unused), text, unused[:_NAMED]))
    return found


def _problem(kind: str, part: DataPart, count: int, text: str, examples: Sequence[str]) -> Problem:
    return Problem(kind, part.name, count, text, list(examples[:_NAMED]))


def _counted(count: int, name: str, names: str = '') -> str:
    return f'{count} {name if count == 1 else names or f"{name}s"}'


def _class(part: DataPart, i: int) -> str:
    label = int(part.labels[i])
    return part.classes[label] if 0 <= label < len(part.classes) else str(label)


def _images(part: DataPart, objects: Sequence[int] | np.ndarray) -> list[str]:
    """Name the images of some objects, each once."""
    return list(dict.fromkeys(os.path.basename(part.paths[part.owners[i]]) for i in objects))


def line_of(problem: Problem) -> str:
    """Write a finding in one line, with its part and its examples."""
    begin = f'{problem.part}: ' if problem.part else ''
    end = f' ({some(problem.examples)})' if problem.examples else ''
    return f'{begin}{problem.text}{end}'
