"""Eval mode for a while."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def eval_mode(model: Any) -> Iterator[None]:
    """All modules of `model` in eval mode; afterwards each has the mode it had. Other callables are left alone.

    The flags are set directly, since `train()` of some backbones does more than that.
    """
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    modes = [module.training for module in modules]
    try:
        for module in modules:
            module.training = False
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
