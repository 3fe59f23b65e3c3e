"""Read the parts of a data set that a config or a folder names."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from ...datasets.formats.readers import read_source
from ...datasets.formats.recognise import FORMATS
from ...datasets.statistics.collect import DataPart, part_of_dataset, parts_of_source
from ...datasets.utils.wrappers import leaves
from ...engine.checks.dataset_classes import reader_hint
from ...utils.errors import UsageError
from ...utils.messages import reason_of, similar_path
from ..config import load_config
from ..runner import data_place

PARTS = ('train', 'val', 'test')
CONFIGS = ('.py',)


@dataclass
class Readable:
    """A part of the data, and how its samples pass the pipeline.

    Attributes:
        part: What was read.
        load: Returns the sample of an image's index after the pipeline; None for a folder, which has no pipeline.
    """

    part: DataPart
    load: Callable[[int], Any] | None = None


def read_parts(
    source: str | os.PathLike[str],
    parts: Sequence[str] = PARTS,
    *,
    options: Mapping[str, Any] | Sequence[str] | None = None,
    from_format: str | None = None,
    angle: str | None = None,
    progress: Callable[[str, int], None] = lambda _what, _count: None,
) -> tuple[list[Readable], str, list[str]]:
    """Read a config's data sets, or a labelled folder.

    Args:
        source: A config, a folder, a ``data.yaml`` or a file of COCO's JSON.
        parts: Parts of a config to read. A folder is read completely.
        options: Values that override those of the config.
        from_format: Format of a folder; None to recognise it.
        angle: What the fifth number of a `bbox` in COCO's JSON is; see `RotatedCocoDataset`.
        progress: Called with the name of a part, and how many images are read.

    Returns:
        The parts; the name of the format, '' for a config; and why parts could not be read, a line each.

    Raises:
        InputError: If nothing can be read; the message says why.
    """
    path = Path(source)
    if path.suffix.lower() not in CONFIGS or path.is_dir():
        if options:
            raise UsageError(f"--cfg-options are for a config, and SOURCE '{path}' is none")
        if not path.exists():
            raise UsageError(f"SOURCE '{path}' does not exist{similar_path(path) if path.suffix else ''}")
        found, name = _read_folder(path, from_format, angle, progress)
        return found, name, []
    if from_format is not None or angle is not None:
        raise UsageError(f"--from and --angle are for a folder, and SOURCE '{path}' is a config")
    found, faults = _read_config(load_config(str(path), options), parts, progress)
    if not found:
        raise UsageError(faults[0] if faults else f"config '{path}' has no {', '.join(parts)} data set")
    return found, '', faults


def _read_folder(
    path: Path, wanted: str | None, angle: str | None, progress: Callable[[str, int], None]
) -> tuple[list[Readable], str]:
    try:
        source = read_source(path, wanted, angle=angle, progress=lambda count: progress('', count))
    except (ValueError, FileNotFoundError) as error:  # as a data set says it
        raise UsageError(str(error)) from error
    order = {name: number for number, name in enumerate(PARTS)}
    found = sorted(parts_of_source(source), key=lambda part: order.get(part.name, len(order)))
    return [Readable(part) for part in found], FORMATS[source.format][0]


def _read_config(
    cfg: Config, parts: Sequence[str], progress: Callable[[str, int], None]
) -> tuple[list[Readable], list[str]]:
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    found: list[Readable] = []
    faults: list[str] = []
    seen: list[Any] = []
    for name in parts:
        loader = cfg.get(f'{name}_dataloader')
        if not loader or loader.get('dataset') in seen:  # test data that are the validation's
            continue
        config = loader['dataset']
        seen.append(config)
        progress(name, 0)
        try:
            dataset = DATASETS.build(config)
            if hasattr(dataset, 'full_init'):
                dataset.full_init()
            part = part_of_dataset(dataset, name)
        except (KeyError, ValueError, TypeError, AttributeError, AssertionError, IndexError, OSError) as error:
            # what data sets raise about their arguments and files
            faults.append(
                f'the data of {name}_dataloader cannot be read ({data_place(config)}): '
                f'{reason_of(error)}{reader_hint(config)}'
            )
            continue
        progress(name, len(part.paths))
        found.append(Readable(part, _loader(dataset)))
    return found, faults


def _loader(dataset: Any) -> Callable[[int], Any]:
    """Return how the sample of an image passes the pipeline, by the image's place among those of all data sets inside.

    A wrapper with a pipeline of its own (`MultiImageMixDataset`, which mixes several images) is asked itself.
    """
    if getattr(dataset, 'dataset', None) is not None and hasattr(dataset, 'pipeline'):
        return lambda i: dataset[i]
    inner = [(leaf, i) for leaf in leaves(dataset) for i in range(len(leaf))]
    return lambda i: inner[i][0].prepare_data(inner[i][1])
