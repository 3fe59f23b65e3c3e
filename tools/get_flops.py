#!/usr/bin/env python
"""Count a detector's parameters and multiply-adds: python tools/get_flops.py CONFIG --size 1025."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works uninstalled

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

EPILOG = """
A multiply-add of a convolution or a matrix product counts once. The first column is the same on every device: an
equivariant layer counts as the convolution that it is after export, as much as a plain layer of its width. The second
is what this CPU computes, where wide 1x1 layers go by Fourier. An UncertainDetector has a row for what it adds up to
the outputs of the heads. Region heads are counted for the regions that random weights find, usually as many as allowed.
"""


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Count a detector's parameters, and the multiply-adds of one image.", epilog=EPILOG
    )
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--size', type=int, nargs='+', default=[1025], metavar='PIXELS',
        help='side of the image as the backbone gets it, or height and width (default 1025)',
    )  # fmt: skip
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='change the config, see train.py')
    args = parser.parse_args(argv)
    if len(args.size) > 2 or min(args.size) < 33:
        parser.error(f'--size must be one or two numbers of 33 pixels or more, not {" ".join(map(str, args.size))}')
    return args


def get_flops(args: argparse.Namespace) -> None:
    import torch

    from mmrotate_plugin.apis.checkpoint import describe_model
    from mmrotate_plugin.apis.config import load_config
    from mmrotate_plugin.apis.inference import build_model
    from mmrotate_plugin.export.onnx_network import plain_detector
    from mmrotate_plugin.models.utils.complexity import count_macs, variance_macs
    from mmrotate_plugin.utils.errors import UsageError

    cfg = load_config(args.config, args.cfg_options)
    model = build_model(cfg).eval()
    detector = plain_detector(model)
    if getattr(detector, 'backbone', None) is None:
        raise UsageError(f"config '{args.config}' has no backbone: {type(detector).__name__} cannot be counted")
    height, width = args.size[0], args.size[-1]
    channels = getattr(detector.backbone, 'in_channels', 3)
    x = torch.zeros(1, channels, height, width)
    print(f'{describe_model(model)}, {width} x {height} pixels')
    try:
        rows = [
            (name, parameters(part), *(count_macs(part, run, fourier=fourier) for fourier in (False, True)))
            for name, part, run in parts(detector, x)
        ]
        rows.append(('in all', parameters(model), *(sum(row[i] for row in rows) for i in (2, 3))))
        if model is not detector:
            extra = variance_macs(model, x)
            rows[-1:] = [(f'variance, {model.method}', 0, extra, extra), rows[-1]]
            rows[-1] = ('in all', rows[-1][1], rows[-1][2] + extra, rows[-1][3] + extra)
    except NotImplementedError as error:
        raise UsageError(f'this detector cannot be counted here: {error}') from error
    print(f'{"":24}{"parameters":>14}{"multiply-adds":>20}{"of them on a CPU":>20}')
    for name, count, macs, here in rows:
        print(f'{name:24}{count:14,}{macs:20,}{here:20,}')


def parts(detector: 'nn.Module', x: 'Tensor') -> 'list[tuple[str, nn.Module, Callable[[], Any]]]':
    """Name, module and call of each part that follows the one before."""
    import torch

    found = [('backbone', detector.backbone, lambda: detector.backbone(x))]
    with torch.no_grad():
        maps = detector.backbone(x)
        if getattr(detector, 'neck', None) is not None:
            found.append(('neck', detector.neck, lambda given=maps: detector.neck(given)))
            maps = detector.neck(maps)
    for name in ('rpn_head', 'bbox_head'):
        head = getattr(detector, name, None)
        if head is not None and (name == 'rpn_head' or getattr(detector, 'roi_head', None) is None):
            found.append((name, head, lambda head=head: forward(head, maps, x)))
    if getattr(detector, 'roi_head', None) is not None:
        samples = [sample(x)]
        with torch.no_grad():
            regions = detector.rpn_head.predict(maps, samples, rescale=False)
        found.append(
            (f'roi_head, {len(regions[0])} regions', detector.roi_head,
             lambda: detector.roi_head.predict(maps, regions, samples, rescale=False))
        )  # fmt: skip
    return found


def forward(head: 'nn.Module', maps: Any, x: 'Tensor') -> Any:
    """Its raw outputs; heads of the DETR family want the images' sizes too."""
    try:
        return head(maps)
    except TypeError:
        return head.predict(maps, [sample(x)], rescale=False)


def sample(x: 'Tensor') -> Any:
    from mmdet.structures import DetDataSample

    size = tuple(x.shape[-2:])
    meta = {'img_shape': size, 'ori_shape': size, 'pad_shape': size, 'batch_input_shape': size}
    return DetDataSample(metainfo={**meta, 'scale_factor': (1.0, 1.0), 'img_id': 0})


def parameters(module: 'nn.Module') -> int:
    return sum(p.numel() for p in module.parameters())


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    from mmrotate_plugin.apis import run_command

    return run_command.run(get_flops, args)


if __name__ == '__main__':
    sys.exit(main())
