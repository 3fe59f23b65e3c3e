"""Options of ``mmrotate-plugin show-basis``."""

import argparse

from . import options

HELP = 'draw the steerable basis of a layer'
DESCRIPTION = (
    'Draw the steerable basis of a layer, its coefficients, and the filter that they add up to; print how many '
    'coefficients there are, and why.'
)
DEFAULT_LAYER = 'backbone.conv1'
OF_A_LAYER = ('group', 'kernel_size', 'dilation', 'trivial_input', 'in_channels', 'out_channels')
OF_A_MODEL = ('checkpoint', 'layer', 'cfg_options', 'unsafe_checkpoint')


def add_arguments(parser: options.CommandParser) -> None:
    """Add the options of the command."""
    parser.add_argument('--out', default='work_dirs/basis', help='folder, or one .png (default: work_dirs/basis)')
    parser.add_argument(
        '--field-pair',
        type=int,
        nargs=2,
        default=(0, 0),
        metavar=('INPUT', 'OUTPUT'),
        help='input and output field whose coefficients are drawn, counted from 0 (default: 0 0)',
    )
    options.add_seed(parser, of='initial coefficients')
    layer = parser.add_argument_group('a layer by its arguments')
    layer.add_argument('--group', help='fiber group: C4, C8, C16, D4, D8, ... (default: C8)')
    layer.add_argument('--kernel-size', type=int, help='odd, in pixels (default: 7 with --trivial-input, else 3)')
    layer.add_argument('--dilation', type=int, help="spacing of the kernel's pixels (default: 1)")
    layer.add_argument(
        '--trivial-input', action='store_true', default=None, help='take image channels instead of regular fields'
    )
    layer.add_argument('--in-channels', type=int, help='input channels (default: 3 with --trivial-input, else 64)')
    layer.add_argument('--out-channels', type=int, help='output channels (default: 64)')
    model = parser.add_argument_group('a layer of a model')
    model.add_argument('--config', help='config file of the model')
    model.add_argument('--checkpoint', help='its weights (default: initial weights)')
    model.add_argument('--layer', help=f'path of the layer in the model (default: {DEFAULT_LAYER})')
    options.add_cfg_options(parser)
    options.add_unsafe_checkpoint(parser)


def check(parser: options.CommandParser, args: argparse.Namespace) -> None:
    """Refuse values out of range and options without effect."""
    if not 0 <= args.seed < 2**63:
        parser.error(f'--seed must be from 0 to 2**63 - 1, not {args.seed}')
    reason = 'has no effect on a layer of a --config' if args.config else 'needs a --config'
    for name in OF_A_LAYER if args.config else OF_A_MODEL:
        if options.given(args, name):
            parser.error(f'{options.flag(name)} {reason}')
