"""Options of ``mmrotate-plugin convert-dataset``."""

from pathlib import Path

from . import options

HELP = 'convert a labelled data set to another format'
DESCRIPTION = 'Convert a labelled data set from one format to another.'
EPILOG = """
The format of SOURCE is recognised by what its files contain; a folder that mixes formats is an error. Boxes, class
names, difficult objects and images without objects are kept; what the new format cannot hold is counted at the end.
"""
READ = ('dota', 'yolo-obb', 'coco', 'rolabelimg', 'labelme', 'hrsc', 'dior')
WRITTEN = ('dota', 'yolo-obb', 'coco', 'rolabelimg', 'labelme')
IMAGES = ('copy', 'link', 'none')
ANGLES = ('ccw-degrees', 'cw-degrees', 'ccw-radians', 'cw-radians')


def add_arguments(parser: options.CommandParser) -> None:
    """Add the options of the command."""
    parser.add_argument('source', type=Path, help="folder of the data set, its data.yaml, or its file of COCO's JSON")
    parser.add_argument('out', type=Path, help='folder to write to; new, empty, or of the same call, to continue it')
    parser.add_argument('--to', required=True, choices=WRITTEN, help='format to write')
    parser.add_argument(
        '--from',
        dest='from_format',
        choices=READ,
        help='format of SOURCE (default: recognised by what the files contain)',
    )
    parser.add_argument('--images', choices=IMAGES, default='copy', help='what to do with images (default: copy)')
    parser.add_argument(
        '--angle', choices=ANGLES, help="what the fifth number of a bbox in COCO's JSON is; such files do not say it"
    )
    parser.add_argument('--strict', action='store_true', help='stop at the first object or file that cannot be used')
