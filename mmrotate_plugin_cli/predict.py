"""Options of ``mmrotate-plugin predict``."""

import argparse
import math

from . import options

HELP = 'draw detections on images'
DESCRIPTION = 'Draw rotated or horizontal detections on an image, or on all images of a folder.'
METHODS = ('propagated', 'jacobian', 'monte_carlo')


def add_arguments(parser: options.CommandParser) -> None:
    """Add the options of the command."""
    parser.add_argument('image', help='image file, or a folder of them')
    options.add_config(parser)
    options.add_checkpoint(parser)
    parser.add_argument('--out', required=True, help='picture to write; for a folder of images, a folder')
    parser.add_argument(
        '--score-thr', type=float, default=0.3, help='lowest score of a detection to draw (default: 0.3)'
    )
    parser.add_argument(
        '--patch-size', type=int, metavar='PIXELS', help='detect on large images patch by patch, with this side'
    )
    parser.add_argument(
        '--patch-overlap',
        type=int,
        metavar='PIXELS',
        help='overlap of neighbouring patches, as long as the longest object (default: a fifth of the patch size)',
    )
    parser.add_argument('--patch-batch-size', type=int, metavar='N', help='patches per forward pass (default: 1)')
    parser.add_argument(
        '--bands',
        nargs=3,
        type=int,
        metavar=('RED', 'GREEN', 'BLUE'),
        help='channels, counted from 0, to draw multi-band images with (default: 2 1 0)',
    )
    options.add_device(parser)
    group = parser.add_argument_group(
        'uncertainty', 'works with any config; the propagated method needs a calibrated checkpoint'
    )
    group.add_argument(
        '--uncertainty',
        action='store_true',
        help='draw the one-sigma band of each box, and write a heat map of the scores to *.heatmap.png',
    )
    group.add_argument(
        '--noise-std',
        metavar='N',
        type=noise_level,
        help="noise of the images in grey levels, or 'estimate' (default: that of the config, else estimate)",
    )
    group.add_argument(
        '--method',
        choices=METHODS,
        help='how the noise reaches the boxes (default: that of the config, else propagated)',
    )


def check(parser: options.CommandParser, args: argparse.Namespace) -> None:
    """Refuse options without effect."""
    for name in ('noise_std', 'method'):
        if getattr(args, name) is not None and not args.uncertainty:
            parser.error(f'{options.flag(name)} {getattr(args, name)} needs --uncertainty')
    if args.patch_size is None and (args.patch_overlap, args.patch_batch_size) != (None, None):
        parser.error('--patch-overlap and --patch-batch-size need --patch-size')


def noise_level(text: str) -> float | str:
    """Parse a noise level.

    Raises:
        ArgumentTypeError: If it is neither a level nor 'estimate'.
    """
    if text == 'estimate':
        return text
    try:
        level = float(text)
    except ValueError:
        level = math.nan
    if not (math.isfinite(level) and level >= 0):
        raise argparse.ArgumentTypeError(f"'{text}' must be grey levels, such as 8, or 'estimate'")
    return level
