"""Options of ``mmrotate-plugin predict``."""

import argparse
import math

from . import options

HELP = 'detect on images and videos, draw, and write text, JSON and crops'
DESCRIPTION = 'Detect on images, folders, patterns, lists and videos: draw the boxes, or write them to files.'
EPILOG = """
A broken file does not stop the others: it is named at the end, and the exit status is 1. After an interruption the
same command continues where it stopped.
"""
KINDS = ('pictures', 'dota', 'yolo-obb', 'coco', 'geojson', 'crops')
METHODS = ('propagated', 'jacobian', 'monte_carlo')


def add_arguments(parser: options.CommandParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        'image',
        nargs='+',
        help="image, video, folder of them, pattern ('scenes/**/*.tif'), or .txt with a path in each line; or several",
    )
    options.add_config(parser)
    options.add_checkpoint(parser)
    parser.add_argument('--out', required=True, help='folder to write to; for one image, its picture')
    parser.add_argument(
        '--save',
        nargs='+',
        choices=KINDS,
        default=['pictures'],
        metavar='KIND',
        help='what to write: pictures, dota and yolo-obb (lines of text with scores), coco (one JSON file), geojson '
        '(in the coordinates of a GeoTIFF; needs rasterio), crops (turned upright) (default: pictures)',
    )
    options.add_tta(parser)
    parser.add_argument('--score-thr', type=float, default=0.3, help='lowest score of a detection (default: 0.3)')
    parser.add_argument(
        '--batch-size',
        type=int,
        default=1,
        metavar='N',
        help='images per forward pass; those of one size share one (default: 1)',
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
    options.check_least(parser, args, batch_size=1)
    if args.patch_size is not None and args.batch_size != 1:
        parser.error(f'--batch-size {args.batch_size}: with --patch-size, --patch-batch-size is what counts')
    if not 0 <= args.score_thr <= 1:
        parser.error(f'--score-thr must be from 0 to 1, not {args.score_thr}')


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
