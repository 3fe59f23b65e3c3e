"""Options of ``mmrotate-plugin report``."""

import argparse
from pathlib import Path

from . import options

HELP = 'write the report of a training or a test again'
DESCRIPTION = (
    'Write report.html, one file that opens offline, from what a training or a test left: curves, average precision '
    'class by class, confusions, errors by size, aspect ratio and angle, the worst images, calibration.'
)
EPILOG = """
train and test write the report themselves, unless --no-report is given. Results of evaluate-angles and
check-equivariance are included if their JSON files lie in SOURCE or are named by --measured. SOURCE may also be a .pkl
file of 'test --out', which names no classes: give them by --classes.
"""
MODES = ('11points', 'area')


def add_arguments(parser: options.CommandParser) -> None:
    """Add the options of the command."""
    parser.add_argument('source', type=Path, help='work directory, or a file of detections: .npz of a report, or .pkl')
    parser.add_argument('--out', type=Path, metavar='DIR', help='output folder (default: SOURCE, or that of the file)')
    parser.add_argument(
        '--measured',
        type=Path,
        nargs='+',
        default=[],
        metavar='JSON',
        help='results of evaluate-angles and check-equivariance to include',
    )
    parser.add_argument('--classes', nargs='+', metavar='NAME', help='names of the classes, for a .pkl file')
    parser.add_argument('--iou-thr', type=float, default=0.5, help='smallest overlap of a hit (default: 0.5)')
    parser.add_argument(
        '--score-thr',
        type=float,
        metavar='SCORE',
        help='lowest score that counts in confusions and errors (default: that of the best F1)',
    )
    parser.add_argument(
        '--eval-mode', choices=MODES, help='how average precision is counted (default: as in the run; else 11points)'
    )


def check(parser: options.CommandParser, args: argparse.Namespace) -> None:
    """Refuse values out of range."""
    if not 0 < args.iou_thr <= 1:
        parser.error(f'--iou-thr must be above 0 and at most 1, not {args.iou_thr:g}')
    if args.score_thr is not None and not 0 <= args.score_thr <= 1:
        parser.error(f'--score-thr must be between 0 and 1, not {args.score_thr:g}')
    if args.classes and args.source.suffix.lower() not in ('.pkl', '.pickle'):
        parser.error('--classes is for a .pkl file; other sources know the names')
