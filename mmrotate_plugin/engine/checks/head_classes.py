"""Compare a detector's heads and transforms with the classes of its data, before the first iteration.

A head for too few classes trains without an error: the last class becomes background. One for too many ends in a
traceback far from its cause. Labels written as numbers (`rect_obj_labels`) mean other classes in other data.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ...datasets.utils.wrappers import leaves

# DOTA's round and square classes, in the pipelines of mmrotate's "rr" configs
DOTA_RECT = {9: 'storage-tank', 11: 'roundabout'}
_LABELS = ('rect_obj_labels', 'rect_labels')
_OTHER_CLASSES = ('rpn_head', 'semantic_head', 'semantic_seg_head', 'panoptic_head', 'seg_head', 'backbone', 'neck')


def classes_of(dataset: Any) -> tuple[str, ...] | None:
    """Return the class names of a data set, also of a wrapped one; None if it does not tell them."""
    for leaf in leaves(dataset):
        meta = getattr(leaf, 'metainfo', None)
        names = meta.get('classes') if isinstance(meta, Mapping) else None
        if names is not None and not isinstance(names, str):
            return tuple(map(str, names))
    return None


def wrong_heads(model: nn.Module, dataset: Any, where: str) -> str | None:
    """Say in one sentence which numbers of classes in a detector are wrong; return None if all agree with the data.

    Every module with `num_classes` counts (heads, stages of heads, losses), except those whose classes are not the
    data set's: RPN heads, class-agnostic mask heads, semantic heads, classifiers that serve as backbones, and heads
    that compare with words. The weights of a loss, `class_weight`, are counted too.

    Args:
        model: A detector of mmdet or mmrotate, also within `UncertainDetector`; other models have no findings.
        dataset: Built, maybe wrapped.
        where: What the data set is called in the message, such as 'train_dataloader'.
    """
    if not is_detector(model):
        return None
    for leaf in leaves(dataset):
        names = classes_of(leaf)
        if 'stuff_classes' in (getattr(leaf, 'metainfo', None) or {}):  # panoptic: boxes for some of the classes
            continue
        if names and (text := _wrong_numbers(model, len(names))):
            data = f'the data set of {where} has {len(names)} classes ({shorten(names)})'
            return f'{text}, but {data}. {_cure(text, len(names))}'
    return None


def unlike_parts(model: nn.Module, dataset: Any, where: str) -> str | None:
    """Say in one sentence where the parts of a `ConcatDataset` give one number to different classes; None if nowhere.

    mmdet joins them without a word. Detectors that read class names (`language_model`) may be given any.
    """
    if not is_detector(model) or hasattr(model, 'language_model'):
        return None
    lists = [names for leaf in leaves(dataset) if (names := classes_of(leaf))]
    for number, names in enumerate(lists):
        for label, (first, other) in enumerate(zip(lists[0], names, strict=False)):
            if first != other:
                return (
                    f"the data sets joined in {where} number their classes differently: {label} is '{first}' in the "
                    f"first and '{other}' in number {number + 1}. Give all the same metainfo.classes"
                )
    return None


def wrong_count(model: nn.Module, names: Sequence[str], whose: str) -> str | None:
    """Do the same for a plain list of names; the message calls their owner `whose`."""
    if not names or not is_detector(model) or not (text := _wrong_numbers(model, len(names))):
        return None
    return f'{text}, but {whose} names {len(names)} classes ({shorten(names)})'


def is_detector(model: nn.Module) -> bool:
    """Tell whether a model is, or holds, a detector of mmdet that has its own classes."""
    try:
        from mmdet.models.detectors.base import BaseDetector
    except ImportError:
        return False
    model = getattr(model, 'module', model)
    while (inner := model.__dict__.get('detector')) is not None:
        model = inner
    return isinstance(model, BaseDetector) and getattr(model, 'language_model', None) is None


def heads_of(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield modules whose `num_classes` must be that of the data, with their keys in the config."""
    model, prefix = getattr(model, 'module', model), 'model'
    while (inner := model.__dict__.get('detector')) is not None:
        model, prefix = inner, f'{prefix}.detector'
    for name, module in model.named_modules():
        number = getattr(module, 'num_classes', None)
        if isinstance(number, bool) or not isinstance(number, int):
            continue
        parts = name.split('.')
        # 'detector' may be another module's own network; what names itself RPN looks for objects of any class
        if set(parts) & set(_OTHER_CLASSES) or 'RPN' in type(module).__name__ or 'Semantic' in type(module).__name__:
            continue
        if getattr(module, 'class_agnostic', False) is True:
            continue
        yield config_key(prefix, parts), module


def config_key(prefix: str, parts: Sequence[str]) -> str:
    """Write a module's place as a config does: ``model.roi_head.bbox_head[1]``."""
    return prefix + ''.join(f'[{part}]' if part.isdigit() else f'.{part}' for part in parts if part)


def _wrong_numbers(model: nn.Module, number: int) -> str:
    found = [f'{key}.num_classes={head.num_classes}' for key, head in heads_of(model) if head.num_classes != number]
    if not found:
        found = _wrong_weights(model, number)
    return ', '.join(found)


def _wrong_weights(model: nn.Module, number: int) -> list[str]:
    """Yield losses whose weights per class, and for the background where it is one, are too many or too few."""
    found = []
    for key, head in heads_of(model):
        for name, loss in head.named_modules():
            weight = getattr(loss, 'class_weight', None)
            if not isinstance(weight, (list, tuple, Tensor)) or not len(weight):
                continue
            sigmoid = getattr(loss, 'use_sigmoid', False)
            if len(weight) not in ({number} if sigmoid else {number, number + 1}):
                background = '' if sigmoid else f' (or {number + 1}, with the background)'
                found.append(f'{config_key(key, name.split("."))}.class_weight has {len(weight)} numbers{background}')
    return list(dict.fromkeys(found))


def _cure(text: str, number: int) -> str:
    if 'num_classes=' not in text:
        return f'Give it {number} numbers, in the order of the classes'
    keys = [part.partition('=')[0] for part in text.split(', ')]
    options = ' '.join(f'{_option(key)}={number}' for key in keys)
    return f'Write num_classes={number} there, or --cfg-options {options}'


def _option(key: str) -> str:
    """Write a place in the config as `--cfg-options` takes it."""
    return key.replace('[', '.').replace(']', '')


def shorten(names: Sequence[str], most: int = 6) -> str:
    return ', '.join(names[:most]) + (', ...' if len(names) > most else '')


def labels_by_number(cfg: Mapping[str, Any], names: Sequence[str], part: str) -> tuple[list[str], list[str], list[str]]:
    """Look for labels that a pipeline writes as numbers, and say which classes they are.

    Args:
        cfg: The dataloader's config; nested pipelines are found too.
        names: Classes of its data set.
        part: The dataloader's key, which begins that of a finding.

    Returns:
        What is wrong, what is doubtful, and what is worth knowing, one sentence each.
    """
    wrong, doubtful, known = [], [], []
    for key, labels in _label_lists(cfg, part):
        inherited = bool(labels) and set(labels) <= set(DOTA_RECT)
        if bad := [label for label in labels if not 0 <= label < len(names)]:
            numbers = ', '.join(map(str, bad))
            text = (
                f'{key}={labels}: the data set has no class of number {numbers}; its {len(names)} classes '
                f'({shorten(names)}) have the numbers 0 to {len(names) - 1}'
            )
            cure = f'Write those that keep their sides parallel to the image, or --cfg-options {_option(key)}=None'
            if not inherited:
                wrong.append(f'{text}. {cure}')
                continue
            doubtful.append(f"{text}, and the base config's {numbers} of DOTA has no effect. {cure}")
        meant = ', '.join(f"{label} is '{names[label]}'" for label in labels if label not in bad)
        other = [label for label in labels if label not in bad and names[label] != DOTA_RECT.get(label)]
        if other and inherited:
            theirs = ' and '.join(f"'{DOTA_RECT[label]}'" for label in other)
            doubtful.append(
                f"{key}={labels}: {meant} in this data set; the base config's numbers mean {theirs} of "
                'DOTA. Images with these classes are turned by multiples of 90 degrees only: write the numbers of yours'
            )
        elif meant:
            known.append(f'{key}={labels}: {meant}; images with these classes are turned by multiples of 90 degrees')
    return wrong, doubtful, known


def _label_lists(node: Any, path: str) -> Iterator[tuple[str, list[int]]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key in _LABELS and isinstance(value, (list, tuple)):
                yield f'{path}.{key}', [int(label) for label in value]
            else:
                yield from _label_lists(value, f'{path}.{key}')
    elif isinstance(node, (list, tuple)):
        for i, value in enumerate(node):
            yield from _label_lists(value, f'{path}[{i}]')
