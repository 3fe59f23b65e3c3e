"""Count a detector's parameters and multiply-adds."""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmengine.model import BaseModel, BaseModule
from torch import Tensor, nn

from ..apis.checkpoint import describe_model
from ..apis.config import load_config
from ..apis.inference import build_model
from ..export.onnx_network import plain_detector
from ..models.utils.complexity import count_macs, variance_macs
from ..utils.errors import UsageError

Part = tuple[str, nn.Module, Callable[[], Any]]
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


def parts(detector: BaseModel, x: Tensor) -> list[Part]:
    """Return name, module and call of each part, in the order in which they follow each other."""
    found: list[Part] = [('backbone', detector.backbone, partial(detector.backbone, x))]
    with torch.no_grad():
        maps = detector.backbone(x)
        if getattr(detector, 'neck', None) is not None:
            found.append(('neck', detector.neck, partial(detector.neck, maps)))
            maps = detector.neck(maps)
    for name in ('rpn_head', 'bbox_head'):
        head = getattr(detector, name, None)
        if head is not None and (name == 'rpn_head' or getattr(detector, 'roi_head', None) is None):
            found.append((name, head, partial(forward, head, maps, x)))
    head = getattr(detector, 'roi_head', None)
    if head is not None:
        samples = [sample(x)]
        with torch.no_grad():
            regions = detector.rpn_head.predict(maps, samples, rescale=False)
        call = partial(head.predict, maps, regions, samples, rescale=False)
        found.append((f'roi_head, {len(regions[0])} regions', head, call))
    return found


def forward(head: BaseModule, maps: Any, x: Tensor) -> Any:
    """Return the raw outputs of a head; heads of the DETR family also need the sizes of the images."""
    try:
        return head(maps)
    except TypeError:
        return head.predict(maps, [sample(x)], rescale=False)


def sample(x: Tensor) -> Any:
    """Make a data sample for images of the size of the input, (1, C, H, W)."""
    size = tuple(x.shape[-2:])
    meta = {'img_shape': size, 'ori_shape': size, 'pad_shape': size, 'batch_input_shape': size}
    return DetDataSample(metainfo={**meta, 'scale_factor': (1.0, 1.0), 'img_id': 0})


def parameters(module: nn.Module) -> int:
    """Count the parameters of a module."""
    return sum(p.numel() for p in module.parameters())
