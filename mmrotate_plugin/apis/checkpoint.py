"""Read checkpoints, load all of their weights, and describe what they are."""

import io
from collections import OrderedDict
from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any

import torch
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from ..engine.checks.noted_config import noted_config
from ..models.utils.weight_check import MisfitError
from ..utils import safe_load
from ..utils.atomic_files import write_whole
from ..utils.errors import UsageError
from ..utils.messages import similar_path, some, warn, why_no_file


def read_checkpoint(path: str, option: str = 'checkpoint') -> dict[str, Any]:
    """Read a checkpoint to the CPU as `{'state_dict': ..., 'meta': ...}`.

    Raises:
        UsageError: If there is no such file, it is no checkpoint or not whole, or it holds more than weights (but see
            `run`).
    """
    try:
        if '://' in path:
            checkpoint = CheckpointLoader.load_checkpoint(path, map_location='cpu')
        else:
            checkpoint = safe_load.load(path)
    except FileNotFoundError as error:
        raise UsageError(f"{option} '{path}' {why_no_file(Path(path))}{similar_path(Path(path))}") from error
    except safe_load.CheckpointError as error:
        raise UsageError(f'{option} {error}') from error
    except OSError as error:
        raise UsageError(f"{option} '{path}' cannot be read: {error.strerror or error}") from error
    if isinstance(checkpoint, Mapping) and isinstance(checkpoint.get('state_dict'), Mapping):
        state, rest = checkpoint['state_dict'], checkpoint
    else:
        state, rest = checkpoint, {}
    if not isinstance(state, Mapping) or not any(isinstance(v, torch.Tensor) for v in state.values()):
        holds = sorted(map(str, state))[:5] if isinstance(state, Mapping) else type(state).__name__
        raise UsageError(f"{option} '{path}' is not a checkpoint of a model: it holds {holds}")
    metadata = getattr(state, '_metadata', {})
    state = OrderedDict((key.removeprefix('module.'), value) for key, value in state.items())
    vars(state)['_metadata'] = metadata  # torch's attribute of state dicts; notes the group
    return {**rest, 'state_dict': state, 'meta': rest.get('meta') or {}}


def write_checkpoint(path: str | Path, state: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
    """Write weights and meta as a checkpoint, whole or not at all.

    Args:
        path: File to write.
        state: Weights by key; they are moved to the CPU.
        meta: Facts for ``checkpoint['meta']``.

    Raises:
        OSError: If the file cannot be written.
    """
    weights = OrderedDict((key, value.cpu() if hasattr(value, 'cpu') else value) for key, value in state.items())
    if hasattr(state, '_metadata'):  # torch's attribute of state dicts; notes the group
        vars(weights)['_metadata'] = state._metadata
    file = io.BytesIO()
    torch.save({'meta': meta, 'state_dict': weights}, file)
    write_whole(path, file.getvalue())


def load_weights(model: nn.Module, checkpoint: Mapping[str, Any], path: str) -> None:
    """Load all weights of a checkpoint into a model, or refuse; warn of leftover weights.

    mmengine loads what fits and logs the rest; a detector whose head was not loaded then finds nothing.

    Raises:
        UsageError: If parameters or statistics are missing, or have other shapes; says how many, which come first, and
            what the checkpoint seems to be.
    """
    inner = getattr(model, 'module', model)
    model = inner if isinstance(inner, nn.Module) else model
    state, wrong = copy(checkpoint['state_dict']), []  # with its metadata
    try:
        result = model.load_state_dict(state, strict=False)
    except MisfitError as error:  # another depth, group or width, named by the backbone or the neck
        raise UsageError(f"checkpoint '{path}' does not fit the config's model: {error}") from error
    except RuntimeError as error:
        own = model.state_dict()
        for key in [k for k in state if k in own and own[k].shape != state[k].shape]:
            wrong.append(f'{key} (checkpoint {tuple(state[key].shape)}, model {tuple(own[key].shape)})')
            del state[key]
        if not wrong:
            raise UsageError(f"checkpoint '{path}' does not fit the model: {error}") from error
        result = model.load_state_dict(state, strict=False)
    refused = {text.split(' ')[0] for text in wrong}
    missing = [k for k in result.missing_keys if k not in refused and not k.endswith('num_batches_tracked')]
    if wrong or missing:
        parts = []
        if missing:
            parts.append(f'{len(missing)} weights of the model are missing in it ({some(missing, 3)})')
        if wrong:
            parts.append(f'{len(wrong)} have another shape ({some(wrong, 3)})')
        if result.unexpected_keys:
            parts.append(f'{len(result.unexpected_keys)} are unknown to the model ({some(result.unexpected_keys, 3)})')
        raise UsageError(
            f"checkpoint '{path}' does not fit the config's model: {'; '.join(parts)}. "
            f'The checkpoint seems to be {describe_checkpoint(checkpoint)}; the model is {describe_model(model)}'
        )
    if result.unexpected_keys:
        warn(
            f"checkpoint '{path}': {len(result.unexpected_keys)} weights are unknown to the model and were ignored "
            f'({some(result.unexpected_keys, 3)})'
        )


def describe_checkpoint(checkpoint: Mapping[str, Any]) -> str:
    """Describe a checkpoint by the config that mmengine stores in it, or else by its keys."""
    model = (noted_config(checkpoint) or {}).get('model')
    if isinstance(model, Mapping):  # else the keys tell something too
        return describe_config(model)
    keys = list(checkpoint['state_dict'])
    parts = sorted({key.split('.')[0] for key in keys})
    if {'conv1', 'layer1', 'fc'} <= set(parts):
        return f'a classification network ({len(keys)} weights: {some(parts, 6)})'
    return f'a model with the parts {some(parts, 6)} ({len(keys)} weights)'


def describe_config(model: Mapping[str, Any]) -> str:
    """Describe a model by its config: type, backbone, group and number of classes."""
    backbone = model.get('backbone') or {}
    depth = f'-{backbone["depth"]}' if 'depth' in backbone else ''
    group = f' ({backbone["group"]})' if 'group' in backbone else ''
    classes = [head.get('num_classes') for head in _heads(model) if head.get('num_classes')]
    count = f', {classes[0]} classes' if classes else ''
    return f'{model.get("type")} on {backbone.get("type")}{depth}{group}{count}'


def _heads(model: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    heads = [model.get('bbox_head'), (model.get('roi_head') or {}).get('bbox_head')]
    flat = [h for head in heads for h in (head if isinstance(head, list) else [head])]
    return [head for head in flat if isinstance(head, Mapping)]


def describe_model(model: nn.Module) -> str:
    """Describe a model by its class and its backbone."""
    backbone = getattr(model, 'backbone', None)
    if backbone is None:
        return type(model).__name__
    depth = f'-{backbone.depth}' if isinstance(getattr(backbone, 'depth', None), int) else ''
    return f'{type(model).__name__} on {type(backbone).__name__}{depth}'
