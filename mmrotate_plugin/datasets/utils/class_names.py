"""Check the class names of a config, and guess which name was meant."""

import colorsys
import difflib
import os
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

Colour = tuple[int, int, int]

_CLOSE = 0.8  # difflib's ratio: 'hellicopter' is close to 'helicopter', 'large-vehicle' is not to 'small-vehicle'
_OTHER_KEYS = ('class', 'class_name', 'class_names', 'names')


def classes_fault(classes: Any) -> str | None:
    """Say what is wrong with a list of class names, or None; the path of an existing file stands for its lines."""
    if isinstance(classes, str):
        if os.path.isfile(classes):
            return None
        if classes.lower().endswith('.txt') or os.sep in classes:
            return f'classes={classes!r}: there is no such file; it must be a text file with a name in each line'
        names = [name for name in re.split(r'\s*[,;]\s*', classes.strip(' ,;')) if name] or ['ship']
        comma = ',' if len(names) == 1 else ''
        return (
            f'classes={classes!r} is a text, whose letters would be the classes; a comma is missing: '
            f'classes=({", ".join(map(repr, names))}{comma})'
        )
    if isinstance(classes, Mapping) or not isinstance(classes, Sequence):
        return f"classes={classes!r} is no list of names; write them in order, such as classes=('plane', 'ship')"
    if not classes:
        return "classes is empty; name at least one, such as classes=('ship',), or leave it out for the data set's own"
    for name in classes:
        if not isinstance(name, str) or not name.strip():
            return f"classes={_short(classes)} holds {name!r}, which is no name; write texts, such as classes=('ship',)"
        if name != name.strip():
            return f'classes={_short(classes)} holds {name!r}, with blanks at its ends; write {name.strip()!r}'
    twice = sorted({name for name in classes if list(classes).count(name) > 1})
    if twice:
        return f'classes={_short(classes)} names {", ".join(map(repr, twice))} more than once; name each class once'
    return None


def metainfo_fault(metainfo: Any) -> str | None:
    """Say what is wrong with the classes and colours of a data set's `metainfo`, or None."""
    if not isinstance(metainfo, Mapping):
        return None
    if 'classes' not in metainfo:
        other = [key for key in metainfo if str(key).lower() in ('classes', *_OTHER_KEYS)]
        if other:
            return f'metainfo has {other[0]!r}, which nothing reads: write metainfo=dict(classes=...)'
        return None
    classes, palette = metainfo['classes'], metainfo.get('palette')
    fault = classes_fault(classes)
    if fault is not None:
        return f'metainfo: {fault}'
    if isinstance(palette, Sequence) and not isinstance(palette, str) and not isinstance(classes, str):
        if len(palette) < len(classes):
            return (
                f'metainfo: palette has {len(palette)} colours for {len(classes)} classes; '
                'give one for each, or leave palette out'
            )
        for colour in palette:
            if isinstance(colour, (str, int)) or len(colour) != 3:
                return f'metainfo: palette holds {colour!r}; a colour is three numbers from 0 to 255: [(255, 0, 255)]'
    return None


def complete_metainfo(metainfo: Any, own: Mapping[str, Any]) -> Any:
    """Check a data set's `metainfo`, and give classes without a palette their colours.

    Args:
        metainfo: Value in the config, or None.
        own: METAINFO of the data set. Its classes keep their colours, whatever their place.

    Raises:
        ValueError: If `metainfo` has impossible classes, or too few colours.
    """
    fault = metainfo_fault(metainfo)
    if fault is not None:
        raise ValueError(fault)
    if not isinstance(metainfo, Mapping) or metainfo.get('palette') is not None or 'classes' not in metainfo:
        return metainfo
    if isinstance(metainfo['classes'], str):  # a file
        return metainfo
    known = dict(zip(own['classes'], own['palette'], strict=True))
    return {**metainfo, 'palette': [known.get(name, _colour(i)) for i, name in enumerate(metainfo['classes'])]}


def palette_for(classes: Sequence[str]) -> list[Colour]:
    """Choose a colour for each class."""
    return [_colour(i) for i in range(len(classes))]


def did_you_mean(name: str, candidates: Collection[str], *, loose: Collection[str] = ()) -> str | None:
    """Find the candidate of which `name` is another spelling, or None.

    Args:
        name: A name that is not among the candidates.
        candidates: Names that may differ in case, blanks, hyphens, underscores or plural.
        loose: Names that may also differ by a few letters, or contain `name`.
    """
    plain = _plain(name)
    for candidate in candidates:
        if plain and _plain(candidate) == plain:
            return candidate
    by_text = {candidate.casefold(): candidate for candidate in loose}
    close = difflib.get_close_matches(name.casefold(), by_text, n=1, cutoff=_CLOSE)
    if close:
        return by_text[close[0]]
    holding = [c for c in loose if min(len(plain), len(_plain(c))) >= 4 and (plain in _plain(c) or _plain(c) in plain)]
    return holding[0] if len(holding) == 1 else None


def _plain(name: str) -> str:
    """Strip a name of case, blanks, signs, and the s of a plural."""
    text = ''.join(letter for letter in name.casefold() if letter.isalnum())
    return text[:-1] if len(text) > 3 and text.endswith('s') and not text.endswith('ss') else text


def _colour(index: int) -> Colour:
    """Choose a hue that differs from its neighbours', by steps of the golden ratio."""
    red, green, blue = colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.85, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def _short(classes: Sequence[Any]) -> str:
    text = repr(tuple(classes))
    return text if len(text) <= 100 else text[:97] + '...'
