"""Options of ``mmrotate-plugin merge-predictions``."""

from pathlib import Path

from . import options
from .convert_dataset import ANGLES, READ

HELP = 'merge detections on patches into a submission of whole images, and score them'
DESCRIPTION = "Merge detections on patches into whole images, as DOTA's server takes them, and score them."
EPILOG = """
PREDICTIONS is the folder that predict --save dota or coco wrote to, or its coco.json; the .bbox.json that test writes
with --cfg-options test_evaluator.outfile_prefix=NAME; or a folder or zip file of Task1_CLASS.txt. Images have the names
of patches, IMAGE__SCALE__X___Y, which are checked before anything is written.
"""
MODES = ('11points', 'area')


def add_arguments(parser: options.CommandParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        'predictions',
        type=Path,
        help='folder or coco.json of predict, .json of test, or Task1_CLASS.txt',
    )
    parser.add_argument('out', type=Path, help='folder to create, for Task1_CLASS.txt and their zip file; or a .json')
    parser.add_argument(
        '--classes',
        nargs='+',
        help='class names in the order of the training, or a .txt file (for .json of test)',
    )
    parser.add_argument(
        '--iou-thr', type=float, default=0.1, help='largest overlap of two detections that both stay (default: 0.1)'
    )
    parser.add_argument('--labels', type=Path, help='data set of the whole images, to score with')
    parser.add_argument('--from', dest='from_format', choices=READ, help='format of --labels (default: recognised)')
    parser.add_argument('--split', help="part of --labels to score, such as 'val' (default: all)")
    parser.add_argument(
        '--iou-thrs', type=float, nargs='+', default=[0.5], help='smallest overlaps of a hit (default: 0.5)'
    )
    parser.add_argument('--eval-mode', choices=MODES, default='11points', help='average precision (default: 11points)')
    parser.add_argument('--angle', choices=ANGLES, help="what the fifth number of a bbox in COCO's JSON of --labels is")
    parser.add_argument('--out-json', type=Path, help='write the scores to this file')
