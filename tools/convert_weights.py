#!/usr/bin/env python
"""Convert a checkpoint to mmrotate's keys or to ours: python tools/convert_weights.py IN OUT --to {mmrotate,plugin}."""

import argparse
import io
import os
import sys
from collections import OrderedDict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works uninstalled

REDET_HEADS = ('bbox_head.', 'rbbox_head.')
EPILOG = """
No conversion is needed to load a file of mmrotate or of ReDet here: init_cfg=dict(type='Pretrained', ...), load_from
and the tools take it as it is. --to plugin makes it smaller: it leaves out what e2cnn derives from the weights.

--to mmrotate writes parameters and running statistics. mmrotate's classes have further keys (sampled kernels, indices,
expanded filters), which they compute themselves: load with strict=False, mmengine's default, and before eval(), because
e2cnn expands its filters on the switch to it. mmrotate's classes are written for C8.

Checkpoints of the original ReDet repository (mmdet 1.x, --to plugin): backbone, neck and rpn_head are converted;
bbox_head and rbbox_head are left out, since their weights mean other boxes than the heads of mmrotate: class 0 is the
background, regions are turned by -90 degrees and one pixel larger, and their sides are not ordered. The anchors of that
rpn_head lie (stride - 1) / 2 pixels to the right and below mmrotate's. Train the heads again.
"""


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Convert the weights of ReResNet and ReFPN between mmrotate and this package. '
        'Other weights and meta stay as they are; optimizer states are left out.',
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('input', metavar='IN', help='checkpoint file')
    parser.add_argument('output', metavar='OUT', help='checkpoint file to write; must not be IN')
    parser.add_argument('--to', choices=['mmrotate', 'plugin'], required=True, help='whose keys OUT has')
    parser.add_argument(
        '--unsafe-checkpoint', action='store_true', help='take any pickle for a checkpoint, and run what it says'
    )
    return parser.parse_args(argv)


def convert(args: argparse.Namespace) -> None:
    import torch

    from mmrotate_plugin.apis.checkpoint import describe_checkpoint, read_checkpoint
    from mmrotate_plugin.models.utils import weight_conversion
    from mmrotate_plugin.utils.atomic_files import write_whole
    from mmrotate_plugin.utils.errors import UsageError

    checkpoint = read_checkpoint(args.input, 'IN')
    if os.path.exists(args.output) and os.path.samefile(args.input, args.output):
        raise UsageError(f"OUT '{args.output}' is IN: give another name")
    if Path(args.output).is_dir():
        raise UsageError(f"OUT '{args.output}' is a folder; give the name of a file")
    state = OrderedDict(checkpoint['state_dict'])
    state._metadata = getattr(checkpoint['state_dict'], '_metadata', {})  # notes the group

    kind = weight_conversion.kind_of(state)
    if kind is None:
        raise UsageError(f"IN '{args.input}' holds no weights of ReResNet or ReFPN: it seems to be "
                             f'{describe_checkpoint(checkpoint)}')  # fmt: skip
    if kind == args.to:
        raise UsageError(f"IN '{args.input}' has the keys of {kind} already: nothing to do for --to {args.to}")
    heads = (
        [key for key in state if key.startswith(REDET_HEADS)] if any(k.startswith('rbbox_head.') for k in state) else []
    )
    for key in heads:
        del state[key]
    try:
        group = weight_conversion.group_of(state)
        result = weight_conversion.to_mmrotate(state) if args.to == 'mmrotate' else weight_conversion.to_plugin(state)
    except weight_conversion.ConversionError as error:
        raise UsageError(f"IN '{args.input}' cannot be converted: {error}") from error

    file = io.BytesIO()
    torch.save({'meta': checkpoint['meta'], 'state_dict': result}, file)
    try:
        write_whole(args.output, file.getvalue())
    except OSError as error:
        raise UsageError(f"OUT '{args.output}' cannot be written: {error.strerror or error}") from error

    left = sorted(set(checkpoint) - {'meta', 'state_dict'})
    if left:
        print(f'left out: {", ".join(left)} (OUT holds weights and meta)')
    if heads:
        print(
            f"left out: {len(heads)} weights of ReDet's bbox_head and rbbox_head, which mean other boxes (see --help)"
        )
    if args.to == 'mmrotate' and group != 'C8':
        print(f"note: the group is {group}; mmrotate's classes are written for C8 and cannot take it")
    print(f'{args.output}: {len(result)} weights, group {group}, keys of {args.to}')


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    from mmrotate_plugin.apis.run_command import run

    return run(convert, args)


if __name__ == '__main__':
    sys.exit(main())
