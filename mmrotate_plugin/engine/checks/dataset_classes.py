"""Find faults in how a config names classes before anything is built, also for the hosts' data sets."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...datasets.utils.class_names import classes_fault, metainfo_fault
from ...datasets.utils.wrappers import leaves

_READERS = ('DOTADataset', 'DOTAv15Dataset', 'DOTAv2Dataset', 'HRSCDataset', 'DIORDataset')
_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def find_class_faults(cfg: Mapping[str, Any]) -> list[str]:
    """Say what is wrong with the classes of a config's data sets, wrapped ones included.

    Args:
        cfg: A whole config.

    Returns:
        One sentence per finding, none if all is well: the key in the config, what it holds, and what would work.
    """
    found = []
    for place, dataset in data_sets(cfg):
        fault = metainfo_fault(dataset.get('metainfo'))
        if fault is not None:
            found.append(f'{place}.{fault}')
        for key in ('classes', 'CLASSES'):
            if key in dataset and _is_detection(dataset, cfg.get('default_scope')):
                reason = classes_fault(dataset[key]) or f"{key} is mmdet 2's"
                found.append(f'{place}.{key}: {reason}; write metainfo=dict(classes=...)')
    return found


def data_sets(cfg: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the data sets of a config's loaders and the wrappers around them, with their places in the config."""
    for loader in _LOADERS:
        node = cfg.get(loader)
        if isinstance(node, Mapping):
            yield from _below(f'{loader}.dataset', node.get('dataset'))


def reader_hint(dataset: Any) -> str:
    """Suggest the reader of this package for an error of a host's data set."""
    for _, node in _below('', dataset):
        name = str(node.get('type')).removeprefix('mmrotate.')
        if name in _READERS:
            return f"; type='mmrotate_plugin.{name}' names the file and the line, and leaves out what cannot be used"
    return ''


def has_objects(dataset: Any) -> bool:
    """Tell whether any sample of a built data set has an object that counts; True if it cannot tell.

    Args:
        dataset: An mmengine BaseDataset or a wrapper of such.
    """
    for part in leaves(dataset):
        if not hasattr(part, 'get_data_info'):
            return True
        for index in range(len(part)):
            instances = part.get_data_info(index).get('instances')
            if instances is None or any(not one.get('ignore_flag') for one in instances):
                return True
    return False


def _is_detection(dataset: Mapping[str, Any], scope: Any) -> bool:
    """Tell whether a data set is from mmdet, mmrotate or this package; mmpretrain's take an argument `classes`."""
    prefix = str(dataset.get('type')).rpartition('.')[0] or scope or 'mmdet'
    return str(prefix).split('.')[0] in ('mmdet', 'mmrotate', 'mmrotate_plugin')


def _below(place: str, node: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(node, Mapping):
        yield place, node
        yield from _below(f'{place}.dataset', node.get('dataset'))
        yield from _below(f'{place}.datasets', node.get('datasets'))
    elif isinstance(node, Sequence) and not isinstance(node, str):
        for i, part in enumerate(node):
            yield from _below(f'{place}[{i}]', part)
