"""Split a labelled data set of large images into one of overlapping patches."""

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...utils.atomic_files import write_whole
from ...utils.errors import UsageError
from ...utils.messages import warn
from ..formats.out_folder import check_out, name_images
from ..formats.readers import read_source
from ..formats.recognise import FORMATS, files_below
from ..formats.source import Source
from ..formats.writers import WRITERS, losses
from ..utils.folder_files import IMAGES
from .cutting import cut_images
from .patch_file import ENDINGS
from .plan import Cut, Rules, plan_image, sum_of
from .windows import window_sides

MARK = '.split-dataset.json'  # says that this function made the folder, from what, and how
WITHOUT_LABELS = 'images'
SMALLEST = 32  # pixels; smaller numbers in the name of a patch are scales (evaluation.functional.submission)


@dataclass
class Split:
    """What was cut.

    Args:
        format: Format of the source; 'images' for images without labels.
        to: Format of the patches.
        images: Number of images.
        patches: Number of patches.
        empty: Number of patches without objects.
        continued: Number of patches that an earlier call had written.
        classes: Class names in the order of their numbers.
        before: Number of objects by class.
        after: Number of objects in patches by class; one that several patches have counts in each.
        whole: Number of objects that at least one patch has whole, by class.
        lost: Number of objects that no patch has, by class.
        partial: Number of objects in patches that an edge cuts.
        splits: Number of patches in each part of the data; '' for data of one part.
        notes: What was left out, and what the format cannot hold, one line each.
    """

    format: str
    to: str
    images: int = 0
    patches: int = 0
    empty: int = 0
    continued: int = 0
    classes: list[str] = field(default_factory=list)
    before: Counter[str] = field(default_factory=Counter)
    after: Counter[str] = field(default_factory=Counter)
    whole: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    partial: int = 0
    splits: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def split_dataset(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    to: str | None = None,
    from_format: str | None = None,
    sizes: Sequence[int] = (1024,),
    gaps: Sequence[int] = (200,),
    rates: Sequence[float] = (1.0,),
    img_rate_thr: float = 0.6,
    iof_thr: float = 0.7,
    padding: bool = True,
    padding_value: Sequence[float] = (0,),
    save_ext: str | None = None,
    nproc: int | None = None,
    strict: bool = False,
    angle: str | None = None,
    progress: Callable[[str, int, int], None] = lambda _what, _count, _total: None,
) -> Split:
    """Split a labelled data set of large images into one of overlapping patches.

    The options have the names of mmrotate's ``img_split.py``. A patch IMAGE__SIDE__X___Y keeps the pixels, bits and
    channels of the image; `merge_predictions` puts detections back by that name. Neighbours overlap by the gap at
    least, so an object that is no longer and no wider than the gap is whole in a patch.

    An object belongs to a patch that has a share of at least `iof_thr` of it, of its area within the image, with all
    its corners. One that an edge cuts gets the difficulty 2 unless it was difficult before. An object that no patch has
    by this share is lost: it is counted, and named in a warning.

    Args:
        source: Folder of the data set, its ``data.yaml`` or its file of COCO's JSON, in any format that
            `convert_dataset` reads. It is only read.
        out: Folder to write to: new, empty, or of an earlier call with the same arguments, which is then continued:
            patches that are there and newer than their image stay.
        to: 'dota', 'yolo-obb', 'coco', 'rolabelimg' or 'labelme'; None for the source's own format, or DOTA's where
            that can only be read.
        from_format: Format of the source; None to recognise it; 'images' for images without labels.
        sizes: Sides of the patches, pixels; all windows are squares.
        gaps: Overlaps of neighbouring patches, pixels: one, or one for each size.
        rates: Sides and gaps are divided by each of these; pixels are never resized.
        img_rate_thr: Windows that the image fills by a smaller part are left out, unless all are.
        iof_thr: Smallest share of an object in a patch, above 0 and at most 1.
        padding: Pad patches beyond the image to squares; if not, they are smaller.
        padding_value: Value of the padding, one or one for each channel in the order of the file.
        save_ext: Ending of the patches' files; None for '.tif' if the image is a TIFF, else '.png'.
        nproc: Threads; None for one per core. Decoded images of all threads share one budget of memory.
        strict: Raise at the first object or file that cannot be used, instead of leaving it out.
        angle: What the fifth number of a `bbox` in COCO's JSON is; see `RotatedCocoDataset`.
        progress: Called with 'read' or 'written', the number of images or patches so far and of all, 0 if unknown.

    Raises:
        InputError: If an argument is wrong, the format cannot be recognised or is mixed, images or label files are
            missing, or `out` cannot be written.
        ValueError: If nothing can be used, or with `strict` an object cannot.
    """
    path, folder = Path(source), Path(out)
    pairs = _check_numbers(sizes, gaps, rates, img_rate_thr, iof_thr)
    ending = None if save_ext is None else f'.{save_ext.lower().lstrip(".")}'
    if ending is not None and ending not in ENDINGS:
        raise UsageError(f'save_ext={save_ext!r} must be one of {", ".join(ENDINGS)}')
    if nproc is not None and nproc < 1:
        raise UsageError(f'nproc={nproc} must be 1 or more')
    if to is not None and to not in WRITERS:
        more = f'; {FORMATS[to][0]} can only be read' if to in FORMATS else ''
        raise UsageError(f'to={to!r} must be one of {", ".join(WRITERS)}{more}')
    facts = {
        'source': str(path.resolve()), 'to': to, 'from': from_format, 'sides': [list(pair) for pair in pairs],
        'img_rate_thr': img_rate_thr, 'iof_thr': iof_thr, 'padding': padding, 'padding_value': list(padding_value),
        'save_ext': ending, 'angle': angle,
    }  # fmt: skip
    check_out(path, folder, MARK, facts, 'patches')
    found = _read(path, from_format, strict, angle, lambda count: progress('read', count, 0))
    to = to or (found.format if found.format in WRITERS else 'dota')
    writer = WRITERS[to]
    rules = Rules(pairs, img_rate_thr, iof_thr, padding, ending)
    cuts = []
    for split, samples in name_images(found, writer.default).items():
        for sample in samples:
            cuts.append(plan_image(sample, split, folder / writer.images(split), rules))
    labelled = found.format != WITHOUT_LABELS

    def label(cut: Cut, patch: Any) -> tuple[Path, str] | None:
        if not labelled or writer.labels is None or writer.text is None:
            return None
        place, suffix = writer.labels(cut.split)
        file = folder / place / f'{Path(patch.name).stem}{suffix}'
        there = os.path.relpath(patch.sample.image, file.parent).replace(os.sep, '/')
        return file, writer.text(patch.sample, found.classes, there)

    try:
        write_whole(folder / MARK, json.dumps(facts, ensure_ascii=False, indent=2) + '\n')
        total = sum(len(cut.patches) for cut in cuts)
        broken, continued = cut_images(
            cuts,
            label,
            padding=tuple(padding_value) if padding else None,
            nproc=nproc or len(os.sched_getaffinity(0)),
            progress=lambda count: progress('written', count, total),
        )
        if broken and (strict or len(broken) == len(cuts)):
            raise broken[0][1]
        for _, error in broken:
            warn(f'{error}; the image is left out')
        left_out = [cut for cut, _ in broken]
        cuts = [cut for cut in cuts if not any(cut is other for other in left_out)]
        done = _summary(found, to, cuts, continued)
        if broken:
            done.notes.append(f'{len(broken)} images were left out, as they cannot be decoded')
        if labelled:
            splits: dict[str, list[Any]] = {}
            for cut in cuts:
                splits.setdefault(cut.split, []).extend((patch.sample, patch.name) for patch in cut.patches)
            for name, text in writer.further(splits, done.classes).items():
                write_whole(folder / name, text)
    except OSError as error:
        raise UsageError(f"OUT '{folder}' could not be written: {error.strerror or error}") from error
    return done


def _check_numbers(
    sizes: Sequence[int], gaps: Sequence[int], rates: Sequence[float], img_rate_thr: float, iof_thr: float
) -> list[tuple[int, int]]:
    gaps = list(gaps) * (len(sizes) if len(gaps) == 1 else 1)
    if not sizes or len(gaps) != len(sizes):
        raise UsageError(f'gaps={tuple(gaps)} must be one number, or one for each of sizes={tuple(sizes)}')
    if not rates or not all(0 < rate < 1000 for rate in rates):
        raise UsageError(f'rates={tuple(rates)} must be numbers above 0, such as 0.5 1')
    pairs = window_sides(sizes, gaps, rates)
    for side, gap in pairs:
        if side < SMALLEST:
            raise UsageError(f'sizes={tuple(sizes)} with rates={tuple(rates)} gives patches of {side} pixels; '
                             f'they must have {SMALLEST} or more')  # fmt: skip
        if not 0 <= gap < side:
            raise UsageError(f'gaps={tuple(gaps)} must be 0 or more and below sizes={tuple(sizes)}')
    if not 0 <= img_rate_thr <= 1:
        raise UsageError(f'img_rate_thr={img_rate_thr} must be from 0 to 1')
    if not 0 < iof_thr <= 1:
        raise UsageError(f'iof_thr={iof_thr} must be above 0 and at most 1')
    return pairs


def _read(path: Path, wanted: str | None, strict: bool, angle: str | None, progress: Callable[[int], None]) -> Source:
    if wanted != WITHOUT_LABELS:
        return read_source(path, wanted, strict=strict, angle=angle, progress=progress)
    if not path.is_dir():
        raise UsageError(f"--from {WITHOUT_LABELS}: SOURCE '{path}' must be a folder of images")
    if angle is not None:
        raise UsageError(f"angle={angle!r} is for COCO's JSON, and --from {WITHOUT_LABELS} reads no labels")
    found = Source(WITHOUT_LABELS, path, str(path), 'object', strict, progress=progress)
    images = files_below(path, IMAGES)
    if not images:
        raise UsageError(f"--from {WITHOUT_LABELS}: no image below SOURCE '{path}'")
    for image in images:
        found.add(image, '', None, lambda _width, _height: ())
    if not found.samples:
        raise UsageError(f'{path}: none of {len(found.broken_files)} images can be used')
    if found.broken_files:
        found.notes.append(f'{len(found.broken_files)} images were left out, as they are broken')
    return found


def _summary(found: Source, to: str, cuts: list[Cut], continued: int) -> Split:
    patches = [patch.sample for cut in cuts for patch in cut.patches]
    done = Split(found.format, to, len(cuts), len(patches), continued=continued, classes=found.classes)
    for cut in cuts:
        done.splits[cut.split] = done.splits.get(cut.split, 0) + len(cut.patches)
        done.partial += cut.partial
        for name in ('before', 'after', 'whole', 'lost'):
            getattr(done, name).update(getattr(cut, name))
    done.empty = sum(not patch.objects for patch in patches)
    done.notes = [*found.notes, *losses(to, patches)]
    if sum_of(done.lost):
        done.notes.append(
            f'{sum_of(done.lost)} of {sum_of(done.before)} objects are in no patch by the share of iof_thr; larger '
            'gaps, or a smaller iof_thr, keep them'
        )
    return done
