"""Options of ``mmrotate-plugin demo``."""

from pathlib import Path

from . import options

HELP = 'train, test and draw a small detector on synthetic scenes'
DESCRIPTION = (
    'Train a small rotated detector on synthetic scenes, test it, and draw its detections and their uncertainty. Each '
    'step is a command that is printed first. A second run skips a finished training and continues an interrupted one.'
)
CONFIG = 'configs/synthetic/re-fcos_re18_refpn_synthetic.py'


def add_arguments(parser: options.CommandParser) -> None:
    """Add the options of the command."""
    parser.add_argument('--config', default=CONFIG, help='config to train (default: %(default)s)')
    parser.add_argument(
        '--uncertain-config',
        help='config of an UncertainDetector around the same detector, for the last steps (default: that of the '
        'default config; other configs skip these steps)',
    )
    parser.add_argument('--fresh', action='store_true', help='delete an earlier demo and train again')
    parser.common.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/demo'), help='output folder (default: %(default)s)'
    )
    options.add_cfg_options(parser)
