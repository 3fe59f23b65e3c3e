"""Count the objects of a data set while they are read: by class, and those left out with the reason."""

import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from ...utils.messages import clip, some, tell, warn
from ..dota_format import BadAnnotation
from .class_names import did_you_mean
from .foreign_formats import describe

_NAMED_FILES = 20  # files named in warnings; the rest is only counted
_NAMED_CLASSES = 12


class Census:
    """Count the objects of one data set, and report on them once all are read.

    Args:
        classes: Class names of the config, in the order of their labels.
        own: Class names of the data set itself. A config may leave some of them out on purpose.
        unit: Name of an object in a file: 'line' or 'object'.
        strict: Raise instead of leaving something out.
        wanted: What an object should look like, for messages.
    """

    def __init__(self, classes: Sequence[str], own: Collection[str], *, unit: str, strict: bool, wanted: str) -> None:
        self.labels = {_nfc(name): label for label, name in enumerate(classes)}
        self.own = set(own)
        self.known = self.own | set(self.labels)
        self.unit = unit
        self.strict = strict
        self.wanted = wanted
        self.kept: Counter[str] = Counter()
        self.left: Counter[str] = Counter()  # of classes that the config does not have
        self.refused = 0
        self.files = 0  # with refused objects
        self.looks: Counter[str] = Counter()
        self.outside: list[BadAnnotation] = []
        self.first = ''

    def label(self, name: str) -> int | None:
        """Count an object and return the label of its class, or None if the config does not have the class.

        Raises:
            BadAnnotation: If neither config nor data set knows the class, and the census is strict.
        """
        name = _nfc(name)
        label = self.labels.get(name)
        if label is not None:
            self.kept[name] += 1
            return label
        if self.strict and name not in self.known:
            meant = did_you_mean(name, self.labels, loose=self.labels)
            hint = f'; did you mean {meant!r}?' if meant else f'; known are {", ".join(sorted(self.known))}'
            raise BadAnnotation(f'class {clip(name)!r} is unknown{hint}')
        self.left[clip(name)] += 1
        return None

    def refuse(self, path: Path | str, refused: Sequence[tuple[int, BadAnnotation]], total: int) -> None:
        """Count the unusable objects of a file, and name them.

        Args:
            path: The file.
            refused: Unusable objects, each with its number or that of its line.
            total: Number of objects in the file.

        Raises:
            ValueError: If the census is strict.
        """
        if not refused:
            return
        number, error = refused[0]
        place = f'{path}:{number}' if self.unit == 'line' else f'{path}: object {number}'
        if self.strict:
            raise ValueError(f'{place}: {error}')
        self.first = self.first or f'{place}: {error}'
        self.refused += len(refused)
        self.files += 1
        self.outside += [error for _, error in refused if error.reach is not None]
        self.looks.update(error.looks for _, error in refused if error.looks)
        if self.files > _NAMED_FILES:
            return
        shown = '; '.join(f'{self.unit} {number}: {error}' for number, error in refused[:8])
        more = f'; and {self.unit}s {", ".join(str(n) for n, _ in refused[8:100])}' if len(refused) > 8 else ''
        more += ', ...' if len(refused) > 100 else ''
        warn(f'{path}: left out {len(refused)} of {total} objects: {shown}{more}')

    def report(self, where: str, *, training: bool) -> None:
        """Say once what was left out and which classes lack objects.

        Args:
            where: The folder or list of the label files.
            training: Whether it is an error if there is no object to learn.

        Raises:
            ValueError: If there are objects but none can be used; with `training`, if no class matches.
        """
        usable = self.kept.total() + self.left.total()
        if training and not usable and not self.refused:
            warn(f'{where}: there is no object in any label file; training on it learns the background alone')
        if self.refused and not usable:
            raise ValueError(
                f'{where}: none of {self.refused} {self.unit}s can be used'
                + (f'; they look like {describe(self.looks.most_common(1)[0][0])}; {self.wanted}' if self.looks else '')
                + f'; the first: {self.first}{self._why_outside()}'
                + ('; nothing was trained' if training else '')
            )
        if self.files > _NAMED_FILES:
            warn(
                f'{where}: left out {self.refused} of {self.refused + usable} objects in {self.files} files, '
                f'of which the first {_NAMED_FILES} are named above'
            )
        if self.looks:
            key, count = self.looks.most_common(1)[0]
            warn(f'{where}: {count} of the {self.unit}s that are left out look like {describe(key)}; {self.wanted}')
        elif self._why_outside():
            total = self.refused + usable
            warn(f'{where}: {len(self.outside)} of {total} boxes lie outside their images{self._why_outside()}')
        self._report_classes(where, training)

    def _why_outside(self) -> str:
        """Guess why boxes lie outside their images, if a fifth or more of all do."""
        if not self.outside or 5 * len(self.outside) < self.refused + self.kept.total() + self.left.total():
            return ''
        if all(error.swapped for error in self.outside):
            return '; with x and y exchanged they would lie inside: write x first'
        reach = max(error.reach for error in self.outside if error.reach is not None)
        return f'; they reach {reach:.3g} times as far as the images: are these of the size that was labelled?'

    def _report_classes(self, where: str, training: bool) -> None:
        total = self.kept.total() + self.left.total()
        missing = [name for name in self.labels if not self.kept[name]]
        if not total or not (self.left or missing):
            return
        meant = {name: did_you_mean(name, self.labels, loose=missing) for name in self.left}
        back = {right: wrong for wrong, right in reversed(meant.items()) if right in missing}  # keeps the first
        left = [
            f'{name!r} ({count}{self._hint(name, meant[name], missing)})' for name, count in self.left.most_common()
        ]
        missing.sort(key=lambda name: name not in back)  # those with a suggestion first
        lack = [f'{name!r}' + (f' (did you mean {back[name]!r}?)' if name in back else '') for name in missing]
        parts = []
        if left:
            parts.append(
                f'{self.left.total()} of {total} objects are left out, because the config does not have their class: '
                f'{some(left, _NAMED_CLASSES)}'
            )
        if lack:
            parts.append(f'classes of the config without any object: {some(lack, _NAMED_CLASSES)}')
        text = f'{where}: {"; ".join(parts)}'
        if not self.kept and training:
            raise ValueError(f'{text}; no object is left to learn, nothing was trained')
        strange = any(name not in self.own or meant[name] for name in self.left)
        if strange and self.strict and back:
            raise ValueError(text)
        # leaving out some of the data set's own classes, or rare ones that a split lacks, may be intended
        unseen = training and any(name not in self.own for name in missing)
        (warn if strange or unseen or not self.kept else tell)(text)

    @staticmethod
    def _hint(name: str, meant: str | None, missing: Collection[str]) -> str:
        if meant is not None and meant not in missing:  # else the hint stands with the class that lacks objects
            return f', did you mean {meant!r}?'
        if '\ufffd' in name:
            return ', not UTF-8: save the label files as UTF-8'
        return ', a number: the label files must name classes' if name.isdigit() else ''


def _nfc(name: str) -> str:
    """Give accented letters one spelling; macOS stores them in another way than other systems."""
    return unicodedata.normalize('NFC', name)
