"""The files of an exported detector: config, checkpoint, safetensors, and parts beside the config."""

import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from numpy.typing import NDArray
from torch import Tensor

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
# besides the image at hand: sizes and shapes, to see which kinds of sizes a test pipeline makes
PROBES = ((600, 800), (800, 600), (1024, 1024), (333, 499))


def write_plain(
    folder: Path, detector: Detector, cfg: Config, meta: Mapping[str, Any], image: NDArray[Any]
) -> list[str]:
    """Write config and checkpoint, and beside them the parts that mmdet and mmrotate lack.

    Args:
        folder: Where to.
        detector: With the weights, on the CPU.
        cfg: Its config.
        meta: The data set's `classes` and `palette`.
        image: (H, W) or (H, W, C); its size, and a few others, decide what mmdet's FPN has to do.

    Returns:
        What the user should know.

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
            f'{names}: mmdet and mmrotate have nothing equal; keep {", ".join(f"{module}.py" for module in beside)} '
            'beside the config (torch, numpy, mmcv and mmengine suffice for it)'
        )
    imports = plain_imports(cfg, list(beside))
    exported = Config({**imports, **runtime, 'model': model})
    text = HEAD + (FIND if beside else '') + exported.pretty_text
    write_whole(folder / CONFIG, text if text.endswith('\n') else f'{text}\n')
    weights = plain_weights(plain_detector(detector.model))
    file = io.BytesIO()
    torch.save({'meta': {'dataset_meta': dict(meta), 'cfg': exported.pretty_text}, 'state_dict': weights}, file)
    write_whole(folder / CHECKPOINT, file.getvalue())
    return notes + more


def _hosts_fail(runtime: Mapping[str, Any]) -> bool:
    """Whether detections need the mends: rotated boxes at unequal factors, or a test pipeline without a resize."""
    dataset = (runtime.get('test_dataloader') or {}).get('dataset') or {}
    while isinstance(dataset.get('dataset'), Mapping):
        dataset = dataset['dataset']
    resized = any('Resize' in str(step) for step in dataset.get('pipeline') or ())
    return not resized or runtime.get('default_scope') == 'mmrotate'


def write_safetensors(folder: Path, detector: Detector, meta: Mapping[str, Any]) -> int:
    """Write the weights of the plain detector, read them again; returns their number.

    Classes are in the file's metadata, as JSON.

    Raises:
        RuntimeError: If they are not what was written.
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
    """What the backbone gets of an image, (H, W) or (H, W, C): (1, C, H', W')."""
    data = detector.pipeline({'img': np.ascontiguousarray(image), 'img_id': 0})
    batch = {'inputs': [data['inputs']], 'data_samples': [data['data_samples']]}
    return detector.model.data_preprocessor(batch, False)['inputs']


def dataset_meta(cfg: Config, checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """`classes`, with a `palette` of as many, as the checkpoint notes them, else the config's test data set."""
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
    """Red, green and blue for each class: those given if they are as many, else colours that look different."""
    if not isinstance(given, str) and given is not None and len(given) == count:
        return [tuple(map(int, colour)) for colour in given]
    return [(red, green, blue) for blue, green, red in class_colours(count)]


def colour_datasets(runtime: dict[str, Any]) -> None:
    """Give each data set whose `metainfo` names classes as many colours, in place; the hosts stop at fewer."""
    for part in ('train', 'val', 'test'):
        dataset = (runtime.get(f'{part}_dataloader') or {}).get('dataset') or {}
        while isinstance(dataset.get('dataset'), Mapping):
            dataset = dataset['dataset']
        info = dataset.get('metainfo')
        if isinstance(info, dict) and isinstance(info.get('classes'), (list, tuple)):
            info['palette'] = _palette(info.get('palette'), len(info['classes']))
