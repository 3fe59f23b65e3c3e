"""Options of ``mmrotate-plugin flops``."""

import argparse

from . import options

HELP = 'count parameters and multiply-adds'
DESCRIPTION = "Count a detector's parameters, and the multiply-adds for one image."
EPILOG = """
A multiply-add of a convolution or a matrix product counts once. The first column is the same on every device: an
equivariant layer counts as the convolution that it becomes on export, like a plain layer of its width. The second is
what this CPU computes, where wide 1x1 layers use the Fourier transform. An UncertainDetector has a row for what it
adds, up to the outputs of the heads. Region heads are counted for the regions that random weights find, usually the
maximum.
"""


def add_arguments(parser: options.CommandParser) -> None:
    """Add the options of the command."""
    options.add_config(parser)
    parser.add_argument(
        '--size',
        type=int,
        nargs='+',
        default=[1025],
        metavar='PIXELS',
        help='side of the image as the backbone gets it, or height and width (default: 1025)',
    )


def check(parser: options.CommandParser, args: argparse.Namespace) -> None:
    """Refuse sizes that the networks cannot take."""
    if len(args.size) > 2 or min(args.size) < 33:
        parser.error(f'--size must be one or two numbers of 33 pixels or more, not {" ".join(map(str, args.size))}')
