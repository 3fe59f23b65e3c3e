"""Options of ``mmrotate-plugin make-synthetic``."""

from pathlib import Path

from . import options

HELP = 'write synthetic aerial scenes in DOTA format'
DESCRIPTION = 'Write synthetic aerial scenes to disk in DOTA format.'
EPILOG = """
Writes DIR/{train,val}/images/*.png and DIR/{train,val}/labelTxt/*.txt, which the DOTADataset of this package and that
of mmrotate read.
"""


def add_arguments(parser: options.CommandParser) -> None:
    """Add the options of the command."""
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='folder to write to')
    parser.add_argument('--train', type=int, default=500, metavar='N', help='training scenes (default: 500)')
    parser.add_argument('--val', type=int, default=100, metavar='N', help='validation scenes (default: 100)')
    parser.add_argument('--size', type=int, default=193, metavar='S', help='side of an image in pixels (default: 193)')
    parser.add_argument(
        '--objects',
        type=int,
        nargs=2,
        default=(6, 14),
        metavar=('LEAST', 'MOST'),
        help='objects per scene (default: 6 14)',
    )
    parser.add_argument(
        '--noise-std',
        type=float,
        nargs='+',
        default=[0.0],
        metavar='N',
        help='noise in grey levels; two values for the left and the right half (default: 0)',
    )
    parser.add_argument('--header', action='store_true', help="start label files with DOTA's two header lines")
    parser.add_argument('--force', action='store_true', help='write into a folder that holds other files')
    options.add_seed(parser, of='training scenes; validation scenes use the next number')
