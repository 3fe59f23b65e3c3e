"""Options of ``mmrotate-plugin evaluate-uncertainty``."""

from . import options

HELP = 'compare uncertainty methods on corrupted images'
DESCRIPTION = "Measure how good a detector's standard deviations are on corrupted images, for several methods."
CORRUPTIONS = ('gaussian:4', 'gaussian:8', 'gaussian:16', 'impulse:8', 'blur:1')
EPILOG = """
Corruptions are gaussian:STD and impulse:STD (salt and pepper), with standard deviations in grey levels; blur:PIXELS;
contrast:FACTOR; jpeg:QUALITY. Gains are fitted on validation images with Gaussian noise of the level that the detector
is told; the error model is fitted on half of the test images and evaluated on the other half. DIR/uncertainty.json has
all numbers, also of each checkpoint, and DIR/uncertainty.md the tables; both are rewritten after each condition.
"""


def add_arguments(parser: options.CommandParser) -> None:
    """Add the options of the command."""
    options.add_config(parser, help='config file of a detector, or of an UncertainDetector around one')
    parser.add_argument('checkpoints', nargs='+', metavar='checkpoint', help='checkpoint files, one per training run')
    options.add_unsafe_checkpoint(parser)
    parser.add_argument('--out', required=True, metavar='DIR', help='folder of the results')
    parser.add_argument(
        '--corruptions',
        nargs='+',
        default=CORRUPTIONS,
        metavar='KIND:LEVEL',
        help=f'conditions to compare under (default: {" ".join(CORRUPTIONS)})',
    )
    parser.add_argument('--methods', nargs='+', metavar='METHOD', help='uncertainty methods to compare (default: all)')
    parser.add_argument('--num-images', type=int, default=24, help='test images for the uncertainty (default: 24)')
    parser.add_argument('--num-fit', type=int, default=8, help='validation images for the gains (default: 8)')
    parser.add_argument(
        '--num-samples', type=int, default=100, help='Monte Carlo passes over image noise (default: 100)'
    )
    parser.add_argument('--dropout-samples', type=int, default=30, help='passes of Monte Carlo dropout (default: 30)')
    parser.add_argument('--num-jacobian', type=int, default=2, help='test images for the Jacobian (default: 2)')
    parser.add_argument(
        '--assumed-noise',
        type=float,
        default=4.0,
        help='noise that the detector is told if the corruption is not noise, in grey levels (default: 4)',
    )
    options.add_seed(parser, of='corruptions and Monte Carlo passes')
    options.add_device(parser)
