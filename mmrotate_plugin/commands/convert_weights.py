"""Convert checkpoints between the keys of mmrotate and those of this package."""

import argparse
import os
from collections import OrderedDict
from pathlib import Path

from ..apis.checkpoint import describe_checkpoint, read_checkpoint, write_checkpoint
from ..models.utils import weight_conversion
from ..utils.errors import UsageError

REDET_HEADS = ('bbox_head.', 'rbbox_head.')


def convert_weights(args: argparse.Namespace) -> None:
    """Read a checkpoint, convert its weights and write them."""
    checkpoint = read_checkpoint(args.input, 'IN')
    if os.path.exists(args.output) and os.path.samefile(args.input, args.output):
        raise UsageError(f"OUT '{args.output}' is IN: give another name")
    if Path(args.output).is_dir():
        raise UsageError(f"OUT '{args.output}' is a folder; give the name of a file")
    state = OrderedDict(checkpoint['state_dict'])
    # torch's attribute of state dicts; notes the group
    vars(state)['_metadata'] = getattr(checkpoint['state_dict'], '_metadata', {})

    kind = weight_conversion.kind_of(state)
    if kind is None:
        seems = describe_checkpoint(checkpoint)
        raise UsageError(f"IN '{args.input}' holds no weights of ReResNet or ReFPN: it seems to be {seems}")
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

    try:
        write_checkpoint(args.output, result, checkpoint['meta'])
    except OSError as error:
        raise UsageError(f"OUT '{args.output}' cannot be written: {error.strerror or error}") from error

    left = sorted(set(checkpoint) - {'meta', 'state_dict'})
    if left:
        print(f'left out: {", ".join(left)} (OUT holds weights and meta)')
    if heads:
        print(f"left out: {len(heads)} weights of ReDet's bbox_head and rbbox_head, whose boxes differ (see --help)")
    if args.to == 'mmrotate' and group != 'C8':
        print(f"note: the group is {group}; mmrotate's classes are written for C8 and cannot take it")
    print(f'{args.output}: {len(result)} weights, group {group}, keys of {args.to}')
