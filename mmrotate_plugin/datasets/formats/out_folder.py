"""Check the folder that a command writes a data set to, and name its images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...utils.errors import UsageError
from ..utils.broken_files import BrokenFileError
from ..utils.label_files import read_json
from .sample import Sample
from .source import Source


def check_out(source: Path, out: Path, mark: str, facts: Mapping[str, Any], work: str) -> bool:
    """Refuse a folder that holds anything but an earlier call with the same arguments.

    Args:
        source: Folder or file that is read.
        out: Folder to write to.
        mark: Name of the file in it that says who wrote it, and from what.
        facts: What that file must hold; `source` and `to` are among them.
        work: What was done, for the message: 'a conversion'.

    Returns:
        Whether an earlier call is continued.

    Raises:
        UsageError: If the folder cannot be used.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"OUT '{out}' is a file; give a folder")
    root = (source.parent if source.is_file() else source).resolve()
    if out.resolve() == root or root in out.resolve().parents or out.resolve() in root.parents:
        raise UsageError(f"OUT '{out}' and SOURCE '{source}' lie in each other; give a folder elsewhere")
    if not out.is_dir() or not any(out.iterdir()):
        return False
    try:
        told = read_json(out / mark)
    except BrokenFileError:
        told = {}
    if {key: told.get(key) for key in facts} != facts:
        what = f'holds {work} of {told["source"]} to {told.get("to")}' if told.get('source') else (
            'holds files that this command did not write'
        )  # fmt: skip
        raise UsageError(f"OUT '{out}' {what}; give an empty or a new folder, or the same arguments to continue")
    return True


def name_images(source: Source, default: str) -> dict[str, list[Sample]]:
    """Sort the images by their splits, in which no two may have one name without ending.

    Args:
        source: The data set.
        default: Name of the split if the data have only one without a name.

    Raises:
        UsageError: If two have.
    """
    splits: dict[str, list[Sample]] = {}
    taken: dict[tuple[str, str], Path] = {}
    for sample in source.samples:
        split, stem = sample.split or default, sample.image.stem.casefold()
        other = taken.setdefault((split, stem), sample.image)
        if other != sample.image:
            raise UsageError(f'{other} and {sample.image} would have one name; rename one of them')
        splits.setdefault(split, []).append(sample)
    return splits
