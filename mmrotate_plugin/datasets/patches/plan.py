"""Plan the patches of a data set before the first pixel is read: their names, windows and objects."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..formats.sample import Sample
from ..utils.broken_files import checked_header
from .patch_file import check_ending, ending_for
from .window_reader import WindowReader
from .windows import WHOLE, Window, lay_windows, moved, objects_in_windows


@dataclass
class Patch:
    """A patch to write.

    Args:
        window: Where it lies.
        name: Name of its file.
        sample: Its image file, size and objects.
    """

    window: Window
    name: str
    sample: Sample


@dataclass
class Cut:
    """An image to cut.

    Args:
        sample: The image with its objects.
        split: Its part of the new data.
        reader: Reads its windows.
        patches: What is made of it.
        before, after, whole, lost: Objects by class: of the image, in patches, whole in at least one, and in none.
        partial: Objects in patches that an edge cuts.
    """

    sample: Sample
    split: str
    reader: WindowReader
    patches: list[Patch]
    before: Counter[str] = field(default_factory=Counter)
    after: Counter[str] = field(default_factory=Counter)
    whole: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    partial: int = 0

    @property
    def cost(self) -> int:
        """Estimate the bytes of its pixels in memory."""
        kind = self.reader.header.kind
        tall = max((patch.window.side for patch in self.patches), default=0) if self.reader.in_parts else 10**9
        return self.sample.width * min(self.sample.height, tall) * max(kind.channels, 1) * max(kind.bits // 8, 1)


@dataclass(frozen=True)
class Rules:
    """How images are cut; see `split_dataset`.

    Args:
        sides: Sides of the windows and their overlaps, pixels.
        img_rate_thr: Smallest part of a window that the image fills.
        iof_thr: Smallest share of an object in a patch.
        padding: Whether patches beyond the image are padded.
        ending: Of the patches' files; None for each image's own.
    """

    sides: Sequence[tuple[int, int]]
    img_rate_thr: float
    iof_thr: float
    padding: bool
    ending: str | None


def plan_image(sample: Sample, split: str, folder: Path, rules: Rules) -> Cut:
    """Plan the patches of one image.

    Args:
        sample: The image with its objects.
        split: Its part of the new data.
        folder: Folder of the patches.
        rules: How images are cut.

    Raises:
        UsageError: If the ending of the patches cannot hold it.
        BrokenFileError: If the file cannot be read.
    """
    header = checked_header(sample.image)
    ending = rules.ending or ending_for(header.kind)
    check_ending(ending, header.kind, str(sample.image))
    width, height = sample.width, sample.height
    windows = lay_windows(width, height, rules.sides, rules.img_rate_thr)
    found = objects_in_windows(sample.objects, width, height, windows, rules.iof_thr)
    cut = Cut(sample, split, WindowReader(sample.image, header), [])
    names = [one.name for one in sample.objects]
    kept: set[int] = set()
    whole: set[int] = set()
    for window, objects in zip(windows, found, strict=True):
        name = f'{patch_name(sample.image.stem, window)}{ending}'
        sides = (window.side, window.side) if rules.padding else inside(window, width, height)
        patch = Sample(folder / name, split, *sides)
        for held in objects:
            patch.objects.append(moved(sample.objects[held.place], held, window))
            cut.after[names[held.place]] += 1
            kept.add(held.place)
            if held.share < WHOLE:
                cut.partial += 1
            else:
                whole.add(held.place)
        cut.patches.append(Patch(window, name, patch))
    cut.before.update(names)
    cut.whole.update(names[index] for index in whole)
    cut.lost.update(name for index, name in enumerate(names) if index not in kept)
    return cut


def patch_name(stem: str, window: Window) -> str:
    """Name a patch as mmrotate's splitter does: IMAGE__SIDE__X___Y.

    `evaluation.functional.submission.parse_patch` reads it back, whatever the name of the image is.
    """
    return f'{stem}__{window.side}__{window.x}___{window.y}'


def inside(window: Window, width: int, height: int) -> tuple[int, int]:
    """Return width and height of the part of a window within the image."""
    return min(window.side, width - window.x), min(window.side, height - window.y)


def sum_of(counts: Mapping[str, int]) -> int:
    """Add up counts by class."""
    return sum(counts.values())
