"""Options of ``mmrotate-plugin calibrate``."""

import argparse

from . import options

HELP = "fit the variance gains of a detector's uncertainty"
DESCRIPTION = 'Fit variance gains for a detector or its backbone, by Monte Carlo over the noise of its images.'
EPILOG = """
Backbone, neck, head and boxes are fitted if the model of the config is an UncertainDetector, or with --detector; else
the backbone alone. The output holds the weights of CHECKPOINT and the gains, without optimizer states. Use it with an
UncertainDetector around the detector, or with ADFResNet in place of the ResNet of the config. The report, FILE.json,
compares the standard deviations of each layer with those of Monte Carlo, before and after the fit, and those of the
backbone's layers or of the boxes also on held-out images. All images are cropped to one size, around their centres.
"""


def add_arguments(parser: options.CommandParser) -> None:
    """Add the options of the command."""
    options.add_config(parser, help='config file of an UncertainDetector or of any other detector')
    options.add_checkpoint(parser)
    parser.add_argument(
        '--noise-std', type=float, required=True, help='standard deviation of the noise, in grey levels (0 to 255)'
    )
    parser.add_argument('--out', required=True, help='checkpoint to write, .pth; the report goes next to it, .json')
    parser.add_argument(
        '--detector', action='store_true', help='fit neck, head and boxes too, as for an UncertainDetector'
    )
    parser.add_argument(
        '--min-score', type=float, help='lowest score of a detection that counts in the fit of boxes (default: 0.1)'
    )
    parser.add_argument('--figure', help='also draw the report, into this .png file')
    parser.add_argument('--images', help='folder of images (default: the validation data set of the config)')
    parser.add_argument('--num-images', type=int, default=8, help='images to fit on (default: 8)')
    parser.add_argument(
        '--held-out', type=int, default=4, help='further images, on which the gains are checked (default: 4)'
    )
    parser.add_argument('--num-samples', type=int, default=128, help='Monte Carlo passes (default: 128)')
    parser.add_argument('--size', type=int, help='crop images to at most this many pixels a side (default: no limit)')
    options.add_seed(parser, of='the noise')
    options.add_device(parser)


def check(parser: options.CommandParser, args: argparse.Namespace) -> None:
    """Refuse values out of range."""
    options.check_positive(parser, args, 'noise_std', unit=', in grey levels')
    options.check_least(parser, args, num_images=1, held_out=0, num_samples=8, size=33)
    if args.min_score is not None and not 0 <= args.min_score < 1:
        parser.error(f'--min-score must be 0 or more and less than 1, not {args.min_score}')
    if not args.out.endswith('.pth'):
        parser.error(f"--out must end with .pth, not '{args.out}'")
    if args.figure and not args.figure.endswith('.png'):
        parser.error(f"--figure must end with .png, not '{args.figure}'")
