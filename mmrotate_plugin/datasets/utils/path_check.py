"""Reject annotation paths that leave the configured data folders."""

import os
from collections.abc import Mapping
from typing import Any

from .wrappers import leaves


def files_outside(dataset: Any) -> list[str]:
    """Find paths in a data set's samples (``img_path`` and other keys ending in ``_path``) that leave its folders.

    The folders are `data_prefix` and `data_root` of the config, which are trusted, as are links in them. Data sets
    without any, or on remote storage, are not checked.

    Args:
        dataset: An mmengine BaseDataset, or a wrapper of one.
    """
    return [path for part in leaves(dataset) for path in _outside(part)]


def _outside(dataset: Any) -> list[str]:
    prefix = getattr(dataset, 'data_prefix', None)
    named = [*(prefix.values() if isinstance(prefix, Mapping) else ()), getattr(dataset, 'data_root', None)]
    folders = [folder for folder in named if isinstance(folder, str) and folder]
    if not folders or any('://' in folder for folder in folders) or not hasattr(dataset, 'get_data_info'):
        return []
    inside = tuple(os.path.join(os.path.abspath(folder), '') for folder in folders)
    outside = []
    for i in range(len(dataset)):
        for key, path in dataset.get_data_info(i).items():
            if key.endswith('_path') and isinstance(path, str) and not os.path.abspath(path).startswith(inside):
                outside.append(path)
    return outside
