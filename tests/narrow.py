"""Configs of full size, made narrow: what the tests say of a head does not depend on its width, and its time does."""

from typing import Any


def narrow_(cfg: dict[str, Any], before: int = 256, after: int = 64) -> None:
    """Change the width of neck and heads, wherever it stands in a config."""
    narrow_hidden_(cfg)
    for key, value in cfg.items():
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, dict):
                narrow_(part, before, after)
        if value == before and key in ('in_channels', 'out_channels', 'feat_channels', 'channels'):
            cfg[key] = after


def narrow_hidden_(cfg: dict[str, Any], hidden: int = 32) -> None:
    """Narrow only what is within the heads of regions: 1024 hidden numbers are 14 million weights for each head."""
    for key, value in cfg.items():
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, dict):
                narrow_hidden_(part, hidden)
        if key == 'fc_out_channels':
            cfg[key] = hidden
