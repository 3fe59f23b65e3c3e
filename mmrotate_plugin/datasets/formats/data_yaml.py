"""Read and write the ``data.yaml`` of a YOLO data set: its folders and the names of its classes."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ...utils.messages import some, warn
from ..folder_dataset import Pair
from ..utils.broken_files import BrokenFileError
from ..utils.class_names import classes_fault
from ..utils.folder_files import list_folder
from ..utils.label_files import plain_name, read_text

_NO_SPLITS = ('path', 'names', 'nc', 'download', 'channels', 'kpt_shape', 'flip_idx', 'yaml_file')


@dataclass(frozen=True)
class DataYaml:
    """What a ``data.yaml`` says.

    Args:
        path: The file.
        root: Folder that its folders are relative to.
        names: Names of the classes by their numbers.
        splits: Folders or lists of images by their keys: 'train', 'val', ...
    """

    path: Path
    root: Path
    names: dict[int, str]
    splits: dict[str, list[Path]]


def read_data_yaml(path: Path) -> DataYaml:
    """Read a ``data.yaml``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no YAML, or its names or folders are wrong; the message names the file and the key.
    """
    if not path.is_file():
        raise FileNotFoundError(f'ann_file: {str(path)!r} is no file; it must be the data.yaml of a YOLO data set')
    try:
        content = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f'{path} is no YAML: {" ".join(str(error).split())[:300]}') from error
    if not isinstance(content, Mapping):
        raise ValueError(f'{path} is no data.yaml: it must have the keys train, val and names')
    names = _names(path, content)
    root = _root(path, content.get('path'))
    splits = {
        str(key): _folders(path, root, str(key), value)
        for key, value in content.items()
        if key not in _NO_SPLITS and (isinstance(value, str) or _is_list(value)) and value
    }
    return DataYaml(path, root, names, splits)


def split_images(data: DataYaml, split: str, suffixes: tuple[str, ...]) -> list[Pair]:
    """List the images of a split by name, each with its label file, or None where there is no such file.

    Raises:
        FileNotFoundError: If a folder, or an image of a list, is missing.
        ValueError: If two images share a name.
    """
    found: dict[str, Pair] = {}
    for place in data.splits[split]:
        if place.suffix.lower() == '.txt':
            images = _listed(place, data.root)
        else:
            folder = list_folder(str(place), suffixes, f'{split} of {data.path}', str(data.root))
            images = list(folder.files.values())
        for image in images:
            if image.stem in found:
                raise ValueError(f'{data.path}: {split} has two images of one name: {found[image.stem][1]} and {image}')
            label = label_of(image)
            found[image.stem] = (image.stem, image, label if label.is_file() else None)
    return list(found.values())


def label_of(image: Path) -> Path:
    """Return the label file of an image: in a folder `labels` in place of the last `images`, with the suffix .txt."""
    parts = list(image.parts)
    places = [i for i, part in enumerate(parts[:-1]) if part == 'images']
    if places:
        parts[places[-1]] = 'labels'
    return Path(*parts).with_suffix('.txt')


def yaml_text(splits: Mapping[str, str], classes: Sequence[str]) -> str:
    """Write a ``data.yaml`` whose folders are relative to it."""
    content: dict[str, Any] = {**splits, 'names': dict(enumerate(classes))}
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)


def _names(path: Path, content: Mapping[Any, Any]) -> dict[int, str]:
    value = content.get('names')
    if isinstance(value, Mapping):
        items = list(value.items())
    elif _is_list(value):
        items = list(enumerate(value))  # type: ignore[arg-type]  # it is one
    else:
        raise ValueError(f"{path}: names={value!r} must list the classes, such as names: ['plane', 'ship']")
    names: dict[int, str] = {}
    for key, name in items:
        key = int(key) if isinstance(key, str) and key.isdecimal() else key
        if isinstance(key, bool) or not isinstance(key, int) or key < 0:
            raise ValueError(f'{path}: names has the key {key!r}; it must be the number of a class')
        if isinstance(name, bool) or name is None:
            raise ValueError(f'{path}: class {key} of names is {name!r} to YAML; put its name in quotes')
        names[key] = plain_name(str(name))
    fault = classes_fault(list(names.values()))
    if fault is not None:
        raise ValueError(f'{path}: names: {fault}')
    count = content.get('nc', len(names))
    if count != len(names):
        raise ValueError(f'{path}: nc={count!r}, but names has {len(names)} classes')
    return dict(sorted(names.items()))


def _root(path: Path, value: Any) -> Path:
    if value is None or value == '':
        return path.parent
    root = Path(os.path.expanduser(str(value)))
    if not root.is_absolute():
        root = path.parent / root
    if root.is_dir():
        return root
    warn(f'{path}: path={str(value)!r} is no folder here; its folders are looked for next to the file')
    return path.parent


def _folders(path: Path, root: Path, key: str, value: Any) -> list[Path]:
    texts = [value] if isinstance(value, str) else list(value)
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f'{path}: {key}={value!r} must be a folder of images, a list of images (.txt), or several')
    places = []
    for text in texts:
        place = root / text
        if not place.exists() and text.startswith('../'):
            place = root / text[3:] if (root / text[3:]).exists() else place  # as exported by Roboflow
        places.append(place)
    return places


def _listed(file: Path, root: Path) -> list[Path]:
    try:
        lines = [line.strip() for line in read_text(file).splitlines()]
    except BrokenFileError as error:
        raise FileNotFoundError(str(error)) from error
    images = [file.parent / line if line.startswith('./') else root / line for line in lines if line]
    missing = [str(image) for image in images if not image.is_file()]
    if missing or not images:
        raise FileNotFoundError(f'{file} lists {len(missing) or "no"} images that are missing ({some(missing)})')
    return images


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
