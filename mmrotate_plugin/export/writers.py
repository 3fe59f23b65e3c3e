"""Write the files of an exported detector: config, checkpoint, safetensors, and standalone modules."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from numpy.typing import NDArray
from torch import Tensor

from ..apis.checkpoint import write_checkpoint
from ..apis.inference import Detector
from ..engine.checks.checkpoint_classes import names_and_palette
from ..utils.atomic_files import write_whole
from ..visualization import class_colours
from .config_rewrite import our_class
from .model_config import plain_config, plain_weights
from .onnx_network import plain_detector
from .runtime_config import plain_imports, plain_runtime
from .standalone_modules import FIND, MENDS, RESIZE, part_files

CONFIG, CHECKPOINT = 'config.py', 'weights.pth'
SAFETENSORS, ONNX, REPORT = 'weights.safetensors', 'model.onnx', 'export.json'
HEAD = '# A detector of mmrotate_plugin as mmdet and mmrotate have it. Needs neither that package nor e2cnn.\n'
# sizes tried in addition to the image's, to see which sizes a test pipeline makes
PROBES = ((600, 800), (800, 600), (1024, 1024), (333, 499))


def write_plain(
    folder: Path, detector: Detector, cfg: Config, meta: Mapping[str, Any], image: NDArray[Any]
) -> list[str]:
    """Write config and checkpoint, and next to them the modules that mmdet and mmrotate lack.

    Args:
        folder: Where to write.
        detector: With the weights, on the CPU.
        cfg: Its config.
        meta: `classes` and `palette` of the data set.
        image: (H, W) or (H, W, C); its size, and a few others, decide how mmdet's FPN must resample.

    Returns:
        Notes for the user.

    Raises:
        Unsupported: If mmdet and mmrotate cannot express it.
    """

    def sizes() -> Iterator[tuple[int, int]]:
        for size in (image.shape[:2], *PROBES):
            height, width = prepared(detector, np.zeros((*size, *image.shape[2:]), image.dtype)).shape[-2:]
            yield height, width

    model, notes, parts = plain_config(cfg.model, sizes)
    runtime, more, others = plain_runtime(cfg)
    colour_datasets(runtime)
    needed = parts | others
    if RESIZE not in needed and _hosts_fail(runtime):
        needed |= {MENDS}
    beside = part_files(needed)
    for module, text in beside.items():
        write_whole(folder / f'{module}.py', text)
    if beside:
        names = ' and '.join(sorted(name.removeprefix('Exported') for name in needed))
        notes.append(
            f'{names}: mmdet and mmrotate have no counterpart; keep {", ".join(f"{module}.py" for module in beside)} '
            'next to the config (it needs torch, numpy, mmcv and mmengine)'
        )
    imports = plain_imports(cfg, list(beside))
    exported = Config({**imports, **runtime, 'model': model})
    text = HEAD + (FIND if beside else '') + exported.pretty_text
    write_whole(folder / CONFIG, text if text.endswith('\n') else f'{text}\n')
    weights = plain_weights(plain_detector(detector.model))
    write_checkpoint(folder / CHECKPOINT, weights, {'dataset_meta': dict(meta), 'cfg': exported.pretty_text})
    return notes + more


def _hosts_fail(runtime: Mapping[str, Any]) -> bool:
    """Tell whether detections need the mends: rotated boxes and unequal factors, or a test pipeline without resize."""
    dataset = (runtime.get('test_dataloader') or {}).get('dataset') or {}
    while isinstance(dataset.get('dataset'), Mapping):
        dataset = dataset['dataset']
    resized = any('Resize' in str(step) for step in dataset.get('pipeline') or ())
    return not resized or runtime.get('default_scope') == 'mmrotate'


def write_safetensors(folder: Path, detector: Detector, meta: Mapping[str, Any]) -> int:
    """Write the weights of the plain detector, and read them again.

    The file's metadata hold the classes, as JSON.

    Args:
        folder: Where to write.
        detector: With the weights, on the CPU.
        meta: `classes` of the data set.

    Returns:
        The number of weights.

    Raises:
        RuntimeError: If what was read is not what was written.
    """
    from safetensors.torch import load, save

    weights = {name: value.clone() for name, value in plain_weights(plain_detector(detector.model)).items()}
    data = save(weights, {'format': 'pt', 'classes': json.dumps(list(meta.get('classes', ())))})
    again = load(data)
    if set(again) != set(weights) or not all(torch.equal(again[name], weights[name]) for name in weights):
        raise RuntimeError(f'{SAFETENSORS}: the weights read again are not those that were written')
    write_whole(folder / SAFETENSORS, data)
    return len(weights)


def prepared(detector: Detector, image: NDArray[Any]) -> Tensor:
    """Prepare an image, (H, W) or (H, W, C), for the backbone: (1, C, H', W')."""
    data = detector.pipeline({'img': np.ascontiguousarray(image), 'img_id': 0})
    batch = {'inputs': [data['inputs']], 'data_samples': [data['data_samples']]}
    model: BaseModel = detector.model
    return model.data_preprocessor(batch, False)['inputs']


def dataset_meta(cfg: Config, checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Collect `classes` and a `palette` with a colour for each, from the checkpoint, else the config's test data set.

    Args:
        cfg: The config.
        checkpoint: As loaded, with `meta`.
    """
    from mmengine.registry import DATASETS

    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    while isinstance(dataset.get('dataset'), Mapping):
        dataset = dataset['dataset']
    with DATASETS.switch_scope_and_registry(dataset.get('_scope_')) as registry:
        kind = our_class(dataset, ['DATASETS']) or registry.get(str(dataset.get('type')))
    noted = checkpoint['meta'].get('dataset_meta') or {}
    noted = {**noted, 'classes': names_and_palette(cfg, checkpoint)[0] or None}
    meta: dict[str, Any] = {}
    for source in (getattr(kind, 'METAINFO', None), dataset.get('metainfo'), noted):
        meta |= {key.lower(): value for key, value in (source or {}).items() if value is not None}
    classes = tuple(map(str, meta.get('classes', ())))
    return {'classes': classes, 'palette': _palette(meta.get('palette'), len(classes))} if classes else {}


def _palette(given: Any, count: int) -> list[tuple[int, ...]]:
    """Choose red, green and blue for each class: those given if their number fits, else colours that look different."""
    if not isinstance(given, str) and given is not None and len(given) == count:
        return [tuple(map(int, colour)) for colour in given]
    return [(red, green, blue) for blue, green, red in class_colours(count)]


def colour_datasets(runtime: dict[str, Any]) -> None:
    """Give each data set whose `metainfo` names classes a colour for each, in place; the hosts stop at fewer."""
    for part in ('train', 'val', 'test'):
        dataset = (runtime.get(f'{part}_dataloader') or {}).get('dataset') or {}
        while isinstance(dataset.get('dataset'), Mapping):
            dataset = dataset['dataset']
        info = dataset.get('metainfo')
        if isinstance(info, dict) and isinstance(info.get('classes'), (list, tuple)):
            info['palette'] = _palette(info.get('palette'), len(info['classes']))
