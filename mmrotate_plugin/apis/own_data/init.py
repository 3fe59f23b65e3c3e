"""Look at a folder of images and labels and write a config that trains on it."""

import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from ...datasets.formats.readers import read_source
from ...datasets.formats.recognise import FORMATS
from ...utils.atomic_files import write_whole
from ...utils.errors import InputError, UsageError
from ..browsing.parts import read_parts
from .choices import Choices, choose
from .config_text import config_text
from .images import choose_loading
from .layout import lay_out

DEVICES = ('cpu', 'cuda')


@dataclass
class Written:
    """What was written.

    Attributes:
        config: The file.
        format: Name of the folder's format.
        classes: Names of the classes.
        train, val: Numbers of images.
        objects: Number of objects for training.
        choices: What was chosen, and why.
        notes: What was left out, and what the user should know.
    """

    config: Path
    format: str
    classes: tuple[str, ...]
    train: int
    val: int
    objects: int
    choices: Choices
    notes: list[str]


def init_config(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    from_format: str | None = None,
    device: str | None = None,
    force: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Written:
    """Write a config for a folder of images and labels; `train` on it works at once.

    The config is tried before it is written: its data sets are built, and a sample of each passes its pipeline.

    Args:
        folder: Folder of a format that data sets read, a ``data.yaml``, or a file of COCO's JSON. It is only read.
        out: The config; None for ``<folder>.py`` in the current folder.
        from_format: Format of the folder; None to recognise it.
        device: 'cpu' or 'cuda', for which widths and batch are chosen; None for a GPU if there is one.
        force: Replace an existing file.
        progress: Called with the number of images read so far.

    Raises:
        InputError: If the folder has no labels or mixes formats, or no config reads it as it lies; the message says
            what would work.
    """
    path = Path(folder)
    if device not in (None, *DEVICES):
        raise UsageError(f'device={device!r} must be one of {", ".join(DEVICES)}')
    if device == 'cuda' and not torch.cuda.is_available():
        raise UsageError('--device cuda: there is no GPU here; leave it out, or --device cpu')
    target = Path(out) if out is not None else Path(_file_name(path))
    if target.suffix != '.py' or target.is_dir():
        raise UsageError(f"--out '{target}' must be the name of a config that ends with .py")
    if target.exists() and not force:
        raise UsageError(f"'{target}' exists already; give another --out, or --force to replace it")
    try:
        source = read_source(path, from_format, progress=progress)
    except (ValueError, FileNotFoundError) as error:  # as a data set says it
        raise UsageError(str(error)) from error
    if not source.census.kept:
        raise UsageError(f'{path}: no label file has an object; there is nothing to learn')
    layout = lay_out(source, path)
    loading = choose_loading([sample.image for sample in source.samples])
    chosen = choose(layout.train_samples, device or ('cuda' if torch.cuda.is_available() else 'cpu'))
    title = FORMATS[source.format][0]
    text = config_text(str(folder), title, source.classes, layout, loading, chosen)
    trial = target.with_name(f'.{target.stem}.trial.py')
    try:
        write_whole(trial, text)
        found = _try(trial)
        os.replace(trial, target)
    except OSError as error:
        raise UsageError(f"--out '{target}' cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # its folder is a file
            trial.unlink()
    objects = sum(len(sample.objects) for sample in layout.train_samples)
    notes = [*source.notes, *([layout.note()] if layout.note() else []), *chosen.notes]
    return Written(target, title, tuple(source.classes), *found, objects, chosen, notes)


def _try(config: Path) -> tuple[int, int]:
    """Build the data sets, and pass a sample of each through its pipeline; return their numbers of images.

    Raises:
        InputError: If one of them cannot be read as the config says.
    """
    # without the default --parts: the test data are the validation's
    readable, _, faults = read_parts(config, ('train', 'val'))
    if faults:
        raise UsageError(faults[0])
    for one in readable:
        try:
            if one.load is not None:
                one.load(0)
        except InputError:
            raise
        except Exception as error:  # a pipeline holds any code
            raise UsageError(f'{one.part.paths[0]} does not pass the pipeline: {error}') from error
    count = [len(one.part.paths) for one in readable]
    return count[0], count[-1]


def _file_name(path: Path) -> str:
    """Name the config after the folder; only letters, digits, - and _ stay, as Python imports it."""
    stem = path.resolve().stem if path.is_file() else path.resolve().name
    return f'{re.sub(r"[^0-9A-Za-z_-]+", "_", stem).strip("_") or "my_config"}.py'
