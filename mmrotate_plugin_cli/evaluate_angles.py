"""Options of ``mmrotate-plugin evaluate-angles``."""

import argparse
import math

from . import options

HELP = 'measure the mAP of a detector over the angle of the scene'
DESCRIPTION = (
    'Evaluate a detector on its test data at one angle after the other. Prints a table, and writes it (JSON) and a '
    'figure. With --compare, the figure shows earlier results, too.'
)
EPILOG = """
Scenes of SyntheticAerialDataset are drawn with all objects at the angle (its `angles`, clockwise). Other data sets, or
with --method turn, are turned counter-clockwise with their labels: by multiples of 90 degrees exactly, by other angles
within the disc that all of them show. Without CONFIG, the results named by --compare are drawn. Results of one name are
taken for training runs of one detector: the figure shows their mean and their range.
"""
METHODS = ('auto', 'draw', 'turn')
MOST = 720  # angles


def add_arguments(parser: options.CommandParser) -> None:
    """Add the options of the command."""
    options.add_config(parser, nargs='?')
    options.add_checkpoint(parser, nargs='?')
    parser.add_argument('--out', metavar='DIR', help='output folder (default: work_dirs/evaluate_angles/<config>)')
    angles = parser.add_mutually_exclusive_group()
    angles.add_argument(
        '--angles',
        nargs='+',
        type=float,
        metavar='DEGREES',
        help='angles (default: 0 to 90 by 11.25 for drawn scenes, else 0 90 180 270)',
    )
    angles.add_argument('--step', type=float, metavar='DEGREES', help='angles from 0 by this step, over the circle')
    parser.add_argument(
        '--method', choices=METHODS, default='auto', help='draw scenes at the angle, or turn images (default: auto)'
    )
    parser.add_argument('--mirrored', action='store_true', help='evaluate each angle with mirrored images, too')
    parser.add_argument('--num-images', type=int, metavar='N', help='number of images per angle (default: all)')
    parser.add_argument('--per-class', action='store_true', help='show each class in the table')
    parser.add_argument('--name', help='name in the figure (default: that of the config)')
    parser.add_argument(
        '--compare', nargs='+', default=[], metavar='FILE', help='angles.json of earlier runs, to draw along'
    )
    options.add_device(parser)


def check(parser: options.CommandParser, args: argparse.Namespace) -> None:
    """Refuse values out of range, and nothing to do."""
    if args.config is None and not args.compare:
        parser.error('give CONFIG and CHECKPOINT to evaluate, or --compare FILE ... to draw')
    if args.config is not None and args.checkpoint is None:
        parser.error('give the CHECKPOINT to evaluate, too')
    if args.config is None and not args.out:
        parser.error('without CONFIG, --out must say where to write the figure')
    options.check_least(parser, args, num_images=1)
    if args.step is not None and not (math.isfinite(args.step) and 360 / MOST <= args.step <= 360):
        parser.error(f'--step must be from {360 / MOST:g} to 360 degrees, not {args.step:g}')
    for angle in args.angles or ():
        if not -360 <= angle <= 360:
            parser.error(f'--angles must be from -360 to 360 degrees, not {angle:g}')
    if len(set(args.angles or ())) < len(args.angles or ()):
        parser.error('--angles has an angle twice')
