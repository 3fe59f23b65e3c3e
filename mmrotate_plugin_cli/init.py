"""Options of ``mmrotate-plugin init``."""

from pathlib import Path

from . import convert_dataset, options

HELP = 'write a config for a folder of images and labels'
DESCRIPTION = 'Look at a folder of images and labels and write a config that trains on it.'
EPILOG = """
Format, classes, scale, widths, batch size and epochs are chosen from the files and the machine; a comment in the
config gives the reason of each choice. 'mmrotate-plugin train' on it works at once.
"""
DEVICES = ('cpu', 'cuda')


def add_arguments(parser: options.CommandParser) -> None:
    """Add the options of the command."""
    parser.add_argument('folder', type=Path, help="labelled folder, its data.yaml, or a file of COCO's JSON")
    parser.add_argument('--out', type=Path, help='config to write (default: <folder>.py in the current folder)')
    parser.add_argument(
        '--from',
        dest='from_format',
        choices=convert_dataset.READ,
        help='format of the folder (default: recognised by what the files contain)',
    )
    parser.add_argument('--force', action='store_true', help='replace an existing config')
    parser.common.add_argument(
        '--device', choices=DEVICES, help='machine to choose widths and batches for (default: a GPU if there is one)'
    )
