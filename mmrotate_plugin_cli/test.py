"""Options of ``mmrotate-plugin test``."""

import argparse

from . import options

HELP = 'test a detector'
DESCRIPTION = (
    'Test a detector. Prints the table of the metric and writes test_metrics.json and report.html into the work '
    'directory.'
)


def add_arguments(parser: options.CommandParser) -> None:
    """Add the options of the command."""
    options.add_config(parser)
    options.add_checkpoint(parser)
    parser.add_argument('--out', help='write all predictions to this pickle file (.pkl)')
    parser.add_argument('--show-dir', help='write pictures to this folder: ground truth next to prediction')
    parser.add_argument('--show-num', type=int, default=-1, help='number of pictures (default: -1, all)')
    parser.add_argument(
        '--show-score-thr', type=float, default=0.3, help='lowest score of a detection to draw (default: 0.3)'
    )
    options.add_tta(parser, more='; says how far the views agree')
    options.add_no_report(parser)
    options.add_work_dir(parser)
    options.add_launcher(parser)


def check(parser: options.CommandParser, args: argparse.Namespace) -> None:
    """Refuse values out of range."""
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        parser.error(f"--out must end with .pkl or .pickle, not '{args.out}'")
    if args.show_num < -1:
        parser.error(f'--show-num must be -1 (all) or more, not {args.show_num}')
