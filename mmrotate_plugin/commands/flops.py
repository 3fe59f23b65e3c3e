"""Count a detector's parameters and multiply-adds."""

import argparse

import torch
from mmengine.model import BaseModel
from torch import nn

from ..apis.checkpoint import describe_model
from ..apis.config import load_config
from ..apis.inference import build_model
from ..export.onnx_network import plain_detector
from ..models.utils.complexity import count_macs, variance_macs
from ..models.utils.detector_parts import parts
from ..utils.errors import UsageError

Row = tuple[str, int, int, int]  # name, parameters, multiply-adds, those on a CPU


def flops(args: argparse.Namespace) -> None:
    """Print a table of parameters and multiply-adds, part by part."""
    cfg = load_config(args.config, args.cfg_options)
    model = build_model(cfg).eval()
    detector: BaseModel = plain_detector(model)
    if getattr(detector, 'backbone', None) is None:
        raise UsageError(f"config '{args.config}' has no backbone: {type(detector).__name__} cannot be counted")
    height, width = args.size[0], args.size[-1]
    channels = getattr(detector.backbone, 'in_channels', 3)
    x = torch.zeros(1, channels, height, width)
    print(f'{describe_model(model)}, {width} x {height} pixels')
    try:
        rows: list[Row] = [
            (name, parameters(part), count_macs(part, run, fourier=False), count_macs(part, run, fourier=True))
            for name, part, run in parts(detector, x)
        ]
        if model is not detector:
            extra = variance_macs(model, x)
            rows.append((f'variance, {model.method}', 0, extra, extra))
    except NotImplementedError as error:
        raise UsageError(f'this detector cannot be counted here: {error}') from error
    rows.append(('total', parameters(model), sum(row[2] for row in rows), sum(row[3] for row in rows)))
    print(f'{"":24}{"parameters":>14}{"multiply-adds":>20}{"of them on a CPU":>20}')
    for name, count, macs, here in rows:
        print(f'{name:24}{count:14,}{macs:20,}{here:20,}')


def parameters(module: nn.Module) -> int:
    """Count the parameters of a module."""
    return sum(p.numel() for p in module.parameters())
