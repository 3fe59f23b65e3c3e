"""Buffers of a detector that hold what was fitted to its detections, in its state dict."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...adf.gains import is_gain

GAIN = 'detection_gain'  # factors of the variances of box and score, (D + 1,)
ERROR = 'detection_error'  # factor and constant that turn a box's variance into that of its error, (D, 2)
BUFFERS = (GAIN, ERROR)


def is_fitted(key: str) -> bool:
    """Tell whether a key of a state dict comes from a calibration: gains of layers or detections, or fitted errors."""
    return is_gain(key) or key.rpartition('.')[2] in BUFFERS


def set_fitted(model: nn.Module, name: str, value: Tensor | None) -> None:
    """Set one of the `BUFFERS` of a model; None removes it, also from the state dict."""
    model._buffers.pop(name, None)
    if value is not None:
        model.register_buffer(name, value)


def expect_fitted(module: nn.Module, state: Mapping[str, Tensor], prefix: str, *_: Any) -> None:
    """Make room for the `BUFFERS` in a state dict, and remove those that it lacks. A pre-hook of `load_state_dict`."""
    some = next(module.parameters(), torch.empty(0))
    for name in BUFFERS:
        stored = state.get(prefix + name)
        set_fitted(module, name, None if stored is None else torch.ones_like(stored, device=some.device))
