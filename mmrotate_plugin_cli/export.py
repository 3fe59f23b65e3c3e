"""Options of ``mmrotate-plugin export``."""

import argparse

from . import options

HELP = 'export a detector to run without this package'
DESCRIPTION = (
    'Export a detector with ReResNet, ReFPN or ADFResNet as an ordinary config and checkpoint, as ONNX and as '
    'safetensors. Each is compared with the detector on an image.'
)
FORMATS = ('config', 'onnx', 'safetensors')
EPILOG = """
DIR gets config.py and weights.pth, which mmdet and mmrotate use without this package and e2cnn (with exported_*.py
next to them, for modules that have no counterpart there); model.onnx; weights.safetensors; and export.json, a report of
the comparison. Nothing is written if a check fails. Status: 0 exported, 1 a check failed, 2 wrong input.
"""


def add_arguments(parser: options.CommandParser) -> None:
    """Add the options of the command."""
    options.add_config(parser)
    options.add_checkpoint(parser)
    parser.add_argument('--out', required=True, metavar='DIR', help='folder to write to')
    parser.add_argument('--formats', nargs='+', choices=FORMATS, default=FORMATS, help='what to write (default: all)')
    parser.add_argument(
        '--onnx',
        choices=('features', 'heads'),
        help='what ONNX returns: maps of backbone and neck, or also the raw outputs of the head (default: features)',
    )
    parser.add_argument(
        '--dynamic',
        action='store_true',
        help='let ONNX take any batch, and sides that differ from those of the image by multiples of 64',
    )
    parser.add_argument('--opset', type=int, help='version of ONNX operators, 16 to 20 (default: 17)')
    parser.add_argument('--img', help='image to compare on (default: the first of the test data, or a scene)')
    parser.add_argument('--tol', type=float, default=1e-4, help='largest difference that passes (default: 1e-4)')


def check(parser: options.CommandParser, args: argparse.Namespace) -> None:
    """Refuse values out of range and options without effect; fill in the defaults of ONNX."""
    options.check_positive(parser, args, 'tol')
    if 'onnx' not in args.formats:
        for name in ('onnx', 'dynamic', 'opset'):
            if options.given(args, name):
                parser.error(f'--{name} is about ONNX, which --formats {" ".join(args.formats)} leaves out')
    args.onnx, args.opset = args.onnx or 'features', 17 if args.opset is None else args.opset
    if not 16 <= args.opset <= 20:
        parser.error(f'--opset must be 16 to 20, not {args.opset}')
