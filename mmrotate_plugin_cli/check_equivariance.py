"""Options of ``mmrotate-plugin check-equivariance``."""

import argparse

from . import options

HELP = 'measure how equivariant a detector is'
DESCRIPTION = (
    'Measure over a circle of angles how equivariant a detector is: the error of each stage and pyramid level, and how '
    'its boxes turn with the image. Check that quarter turns are exact. Writes two figures and a table (JSON).'
)
EPILOG = 'status: 0 the claimed exactness holds, 1 it does not, 2 wrong input'
SIZE = 257


def add_arguments(parser: options.CommandParser) -> None:
    """Add the options of the command."""
    options.add_config(parser)
    options.add_checkpoint(parser, nargs='?', help='checkpoint file (default: random weights and norms)')
    parser.add_argument('--img', help='image file (default: a synthetic scene)')
    parser.add_argument('--out', help='output folder (default: work_dirs/check_equivariance/<config>)')
    parser.add_argument(
        '--size', type=int, help=f'resize to this side instead of that of the test pipeline; {SIZE} suits a CPU'
    )
    parser.add_argument(
        '--angles',
        type=int,
        help='angles on the circle, a multiple of 4 (default: twice those of the group, 8 to 24)',
    )
    parser.add_argument(
        '--tol', type=float, default=1e-5, help='largest relative error at quarter turns (default: 1e-5)'
    )
    parser.add_argument(
        '--score-thr',
        type=float,
        metavar='SCORE',
        help='lowest score of a detection to compare (default: 0.3; with random weights, the 100 best are compared)',
    )
    parser.add_argument('--no-detections', action='store_true', help='measure the maps alone, not the detections')
    parser.add_argument('--no-compare', action='store_true', help='skip the comparison with a plain ResNet')
    options.add_device(parser)


def check(parser: options.CommandParser, args: argparse.Namespace) -> None:
    """Refuse values out of range."""
    if args.size is not None and args.size < 33:
        parser.error(f'--size must be 33 pixels or more, not {args.size}')
    if args.angles is not None and (args.angles < 4 or args.angles % 4):
        parser.error(f'--angles must be a multiple of 4, so that it includes quarter turns, not {args.angles}')
    if args.score_thr is not None and not 0 <= args.score_thr < 1:
        parser.error(f'--score-thr must be at least 0 and below 1, not {args.score_thr:g}')
    if args.score_thr is not None and args.no_detections:
        parser.error('--score-thr is for detections, which --no-detections leaves out')
    if not 0 < args.tol < 1:
        parser.error(f'--tol must be between 0 and 1, not {args.tol:g}')
