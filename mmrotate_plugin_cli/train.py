"""Options of ``mmrotate-plugin train``."""

import argparse

from . import options

HELP = 'train a detector'
DESCRIPTION = 'Train a detector. Log, config, checkpoints, pictures and a report go into the work directory.'


def add_arguments(parser: options.CommandParser) -> None:
    """Add the options of the command."""
    options.add_config(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='continue from CHECKPOINT, or without one from the last intact checkpoint in the work directory',
    )
    parser.add_argument(
        '--resume-schedule',
        choices=['checkpoint', 'config'],
        help='whose learning rates a resumed run follows (default: those of the checkpoint)',
    )
    parser.add_argument('--amp', action='store_true', help='mixed precision: float16 on GPUs, bfloat16 on CPUs')
    parser.add_argument('--accumulate', type=int, metavar='N', help='accumulate gradients over N iterations per step')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the learning rates with the number of images per step'
    )
    parser.add_argument('--no-validate', action='store_true', help='train without validation')
    parser.add_argument('--pictures', type=int, default=8, help='pictures per validation; 0 for none (default: 8)')
    parser.add_argument('--tensorboard', action='store_true', help='also write scalars and pictures for TensorBoard')
    options.add_no_report(parser)
    options.add_work_dir(parser)
    options.add_seed(parser, of='initial weights, data order and augmentation', default=None)
    options.add_unsafe_checkpoint(parser)
    options.add_launcher(parser)


def check(parser: options.CommandParser, args: argparse.Namespace) -> None:
    """Refuse values out of range and options without effect."""
    options.check_least(parser, args, pictures=0, accumulate=1)
    if args.resume_schedule and not args.resume:
        parser.error(f'--resume-schedule {args.resume_schedule} needs --resume')
