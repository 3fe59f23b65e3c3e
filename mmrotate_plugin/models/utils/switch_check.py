"""Tell of weights that were trained with other layers without parameters, such as blurs: their shapes cannot tell."""

import logging
from collections.abc import Mapping
from typing import Any

from mmengine.logging import print_log
from torch import nn

from ..any_angle import Switches
from ..layers import Cfg

KEY = 'switches'


def describe(parts: Switches, act_cfg: Cfg | None) -> dict[str, Any]:
    """Name the layers without parameters that `parts` switch on, as the metadata of a state dict hold them.

    Args:
        parts: What a network was built with.
        act_cfg: Its activation; None for none.
    """
    return {'activation': _name(act_cfg), 'antialiased': parts.antialiased, 'act_blur': parts.act_blur}


def _name(act_cfg: Cfg | None) -> str:
    return 'none' if act_cfg is None else str(act_cfg['type']).rpartition('.')[2].removeprefix('enn')


def warn_of_other_switches(module: nn.Module, prefix: str, metadata: Mapping[str, Any]) -> None:
    """Warn if a state dict was made with other switches than `module` has.

    That is right when training goes on from such weights on purpose, and ends in wrong detections otherwise.

    Args:
        module: A network with the attribute `switches`, from `describe`.
        prefix: Prefix of the network's keys, such as 'backbone.'.
        metadata: The network's part of the state dict's metadata; files without a note are not judged.
    """
    own: Mapping[str, Any]
    noted, own = metadata.get(KEY), getattr(module, KEY)
    if not isinstance(noted, Mapping):
        return
    others = [name for name, value in own.items() if noted.get(name, value) != value]
    if others:
        differences = ', '.join(f'{name}={noted[name]!r} instead of {own[name]!r}' for name in others)
        where = f'{prefix[:-1]}: ' if prefix else ''
        print_log(
            f'{where}the checkpoint was trained with {differences}. Detections will be wrong unless training '
            "goes on from it: give the model the checkpoint's values",
            logger='current',
            level=logging.WARNING,
        )
