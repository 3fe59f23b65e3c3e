"""Options of ``mmrotate-plugin browse-dataset``."""

import argparse
from pathlib import Path

from . import convert_dataset, options

HELP = 'look at a data set: counts, faults, samples before and after the pipeline'
DESCRIPTION = (
    'Look at a data set before training: objects by class, sizes, angles, faults of labels and images, and samples '
    'before and after the pipeline.'
)
EPILOG = """
Writes dataset.html, one file that opens offline, dataset.json with the numbers, and pictures/. The pipelines are those
of the config; a folder has none, so its samples are drawn as they are stored.
"""
PARTS = ('train', 'val', 'test')


def add_arguments(parser: options.CommandParser) -> None:
    """Add the options of the command."""
    options.add_config(parser, help="config file; or a labelled folder, its data.yaml, or a file of COCO's JSON")
    parser.add_argument('--out', type=Path, help='folder to write to (default: work_dirs/browse/<name>)')
    parser.add_argument(
        '--number', type=int, default=6, help='samples of each part that are drawn, 0 for none (default: 6)'
    )
    parser.add_argument(
        '--parts', nargs='+', choices=PARTS, default=PARTS, help='parts of a config to look at (default: all)'
    )
    parser.add_argument(
        '--from',
        dest='from_format',
        choices=convert_dataset.READ,
        help='format of the folder (default: recognised by what the files contain)',
    )
    parser.add_argument(
        '--angle',
        choices=convert_dataset.ANGLES,
        help="what the fifth number of a bbox in COCO's JSON is; such files do not say it",
    )
    options.add_seed(parser, of='the choice of samples and random transforms')


def check(parser: options.CommandParser, args: argparse.Namespace) -> None:
    """Refuse a negative number of samples."""
    options.check_least(parser, args, number=0)
