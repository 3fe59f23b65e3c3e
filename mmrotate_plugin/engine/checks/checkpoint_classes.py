"""Compare the class names that a checkpoint was trained for with the names of a data set or config.

A detector's classes are numbers; names alone tell whether number 2 means the same in both. Numbers in another order
give wrong results without any error: mAP 0.595 instead of 0.941 for one swapped pair.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

from .head_classes import shorten

KEY = 'class_renames'


@dataclass(frozen=True)
class Difference:
    """Tell how the classes of a checkpoint and of the data differ.

    Args:
        kind: 'order' (the same names), 'names' (equally many, some different) or 'number'.
        text: Both lists and the first place where they differ.
        cure: What makes them equal.
    """

    kind: str
    text: str
    cure: str


def checkpoint_classes(checkpoint: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Read names from ``meta['dataset_meta']`` (mmengine) or ``meta['CLASSES']`` (mmdet 2, mmrotate 0.x), else None."""
    meta = checkpoint.get('meta') or {}
    noted = meta.get('dataset_meta') or {}
    for source in (noted, meta):
        for key in ('classes', 'CLASSES'):
            names = source.get(key) if isinstance(source, Mapping) else None
            if isinstance(names, Sequence) and not isinstance(names, str) and names:
                return tuple(map(str, names))
    return None


def configured_classes(cfg: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Read the names of a config's test, validation or training data, without building it; None if it has none."""
    return (configured_meta(cfg) or {}).get('classes')


def configured_meta(cfg: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return `classes`, and `palette` if there is one, of the first data set of a config that tells its classes."""
    for part in ('test_dataloader', 'val_dataloader', 'train_dataloader'):
        dataset = (cfg.get(part) or {}).get('dataset')
        while isinstance(dataset, Mapping) and (inner := dataset.get('dataset') or dataset.get('datasets')):
            dataset = inner[0] if isinstance(inner, (list, tuple)) else inner
        if not isinstance(dataset, Mapping):
            continue
        meta = {**_default_meta(dataset), **(dataset.get('metainfo') or {})}
        names = meta.get('classes')
        if isinstance(names, (list, tuple)) and names:
            return {**meta, 'classes': tuple(map(str, names))}
    return None


def _default_meta(dataset: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the `METAINFO` of a data set's class, found by its name."""
    from mmengine.registry import DATASETS

    kind = dataset.get('type')
    if isinstance(kind, str):
        try:
            with DATASETS.switch_scope_and_registry(dataset.get('_scope_')) as registry:
                kind = registry.get(kind)
        except (ImportError, KeyError, AssertionError):  # a scope that is not installed
            return {}
    meta = getattr(kind, 'METAINFO', None)
    if not isinstance(kind, type) or not isinstance(meta, Mapping):
        return {}
    makers = (vars(cls)['__init__'] for cls in kind.__mro__ if '__init__' in vars(cls))
    if any('classwise' in signature(maker).parameters for maker in makers):
        return {}  # HRSC has 1 class or 31
    return meta


def difference(
    trained: Sequence[str] | None, given: Sequence[str] | None, renames: Any = None, whose: str = 'the data set'
) -> Difference | None:
    """Tell how two lists of classes differ; return None if they agree, or one is unknown.

    Names that differ in case, hyphens, underscores and blanks alone agree.

    Args:
        trained: The checkpoint's names.
        given: The data set's.
        renames: The config's `class_renames`: {checkpoint's name: data set's name}, or True if the checkpoint's names
            are ignored, since the numbers mean the same classes.
        whose: What the second list is called.
    """
    if trained is None or given is None or (renames is True):
        return None
    renames = {str(old): str(new) for old, new in renames.items()} if isinstance(renames, Mapping) else {}
    old = [plain(renames.get(name, name)) for name in trained]
    new = [plain(name) for name in given]
    if old == new:
        return None
    if len(old) != len(new):
        return Difference(
            'number',
            f'it was trained for {len(old)} classes ({shorten(trained)}), '
            f'but {whose} has {len(new)} ({shorten(given)})',
            f"Write the checkpoint's (metainfo.classes), or --cfg-options {KEY}=True if the checkpoint notes them "
            'wrongly',
        )
    first = next(i for i, (a, b) in enumerate(zip(old, new, strict=True)) if a != b)
    both = f"number {first} is '{trained[first]}' in the checkpoint and '{given[first]}' in {whose}"
    if sorted(old) == sorted(new):
        return Difference(
            'order',
            f'it was trained for the same classes in another order: {both}; '
            f'the checkpoint has ({shorten(trained, 20)})',
            f'Write them in that order (metainfo.classes), or --cfg-options {KEY}=True if the checkpoint names them '
            'wrongly',
        )
    pairs = [(a, b) for i, (a, b) in enumerate(zip(trained, given, strict=True)) if old[i] != new[i]]
    return Difference(
        'names',
        f'it was trained for other classes: {both}; the checkpoint has ({shorten(trained, 20)})',
        f'Write its names (metainfo.classes); if they were only renamed, --cfg-options '
        f'{" ".join(f"{KEY}.{a}={b}" for a, b in pairs[:3])}{" ..." if len(pairs) > 3 else ""}, or {KEY}=True for all',
    )


def names_and_palette(
    cfg: Mapping[str, Any], checkpoint: Mapping[str, Any]
) -> tuple[tuple[str, ...], list[Any] | None]:
    """Choose names and colours for what a detector finds.

    Names are the checkpoint's, unless the config's agree or the checkpoint has none. Colours are what the config gives
    these names, else the checkpoint's.

    Returns:
        The names, maybe none, and one colour (red, green, blue) for each, or None.
    """
    configured, trained = configured_meta(cfg) or {}, checkpoint_classes(checkpoint)
    given = configured.get('classes')
    same = given is not None and difference(trained, given, cfg.get(KEY)) is None
    names: Sequence[str] = given if given is not None and same else trained or given or ()
    noted = {key.lower(): value for key, value in ((checkpoint.get('meta') or {}).get('dataset_meta') or {}).items()}
    for classes, palette in ((given, configured.get('palette')), (trained, noted.get('palette'))):
        if classes is None or not isinstance(palette, (list, tuple)) or len(palette) < len(classes):
            continue
        if names == classes or (same and len(classes) == len(names)):
            return tuple(names), list(palette[: len(names)])
        colours = dict(zip(map(plain, classes), palette, strict=False))
        if all(plain(name) in colours for name in names):
            return tuple(names), [colours[plain(name)] for name in names]
    return tuple(names), None


def plain(name: str) -> str:
    """Reduce a name to what spellings share: 'Small vehicle' and 'small-vehicle' are one class."""
    return ''.join(c for c in name.casefold() if c not in '-_ ')
