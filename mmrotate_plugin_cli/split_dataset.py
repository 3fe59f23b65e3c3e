"""Options of ``mmrotate-plugin split-dataset``."""

import argparse
from pathlib import Path

from . import options
from .convert_dataset import ANGLES, READ, WRITTEN

HELP = 'split large images and their labels into overlapping patches'
DESCRIPTION = 'Split a labelled data set of large images into one of overlapping patches.'
EPILOG = """
The options have the names of mmrotate's img_split.py. Patches keep the bits and channels of their image, and are named
IMAGE__SIDE__X___Y; merge-predictions puts detections back. An object that is no larger than the gap is whole in a
patch. The same call continues after an interruption.
"""
ENDINGS = ('png', 'tif', 'tiff', 'bmp', 'jpg', 'jpeg')


def add_arguments(parser: options.CommandParser) -> None:
    """Add the options of the command."""
    parser.add_argument('source', type=Path, help="folder of the data set, its data.yaml, or its file of COCO's JSON")
    parser.add_argument('out', type=Path, help='folder to write to; new, empty, or of the same call, to continue it')
    parser.add_argument('--to', choices=WRITTEN, help="format to write (default: the source's, or dota)")
    parser.add_argument(
        '--from',
        dest='from_format',
        choices=(*READ, 'images'),
        help="format of SOURCE (default: recognised); 'images' for images without labels",
    )
    parser.add_argument('--sizes', type=int, nargs='+', default=[1024], help='sides of patches, pixels (default: 1024)')
    parser.add_argument(
        '--gaps', type=int, nargs='+', default=[200], help='overlaps of neighbours, pixels: one, or one per size (200)'
    )
    parser.add_argument(
        '--rates', type=float, nargs='+', default=[1.0], help='sides and gaps are divided by each of these (default: 1)'
    )
    parser.add_argument(
        '--img-rate-thr', type=float, default=0.6, help='smallest part of a patch that the image fills (default: 0.6)'
    )
    parser.add_argument(
        '--iof-thr', type=float, default=0.7, help='smallest share of an object in a patch (default: 0.7)'
    )
    parser.add_argument('--no-padding', action='store_true', help='leave patches beyond the image smaller')
    parser.add_argument(
        '--padding-value', type=float, nargs='+', default=[0], help='value of the padding, or one per channel (0)'
    )
    parser.add_argument('--save-ext', choices=ENDINGS, help='ending of the patches (default: tif for TIFFs, else png)')
    parser.add_argument('--nproc', type=int, help='threads (default: one for each core)')
    parser.add_argument(
        '--angle', choices=ANGLES, help="what the fifth number of a bbox in COCO's JSON is; such files do not say it"
    )
    parser.add_argument('--strict', action='store_true', help='stop at the first object or file that cannot be used')
    parser.add_argument('--out-json', type=Path, help='write the counts by class to this file')


def check(parser: options.CommandParser, args: argparse.Namespace) -> None:
    """Refuse a number of threads below 1."""
    options.check_least(parser, args, nproc=1)
