"""Options of ``mmrotate-plugin benchmark``."""

import argparse
import math
import shlex

from . import options

HELP = 'measure what equivariance costs, relative to a plain ResNet'
DESCRIPTION = (
    'Compare networks with a plain ResNet of equal width. In each round, each network is timed right before or after '
    'the baseline; results are ratios within such pairs. Outputs that are claimed to be equal are compared first.'
)
EPILOG = 'status: 0 measured, 1 the networks are not alike, or a regression with --fail-on-regression, 2 wrong input'
MEASURES = ('build', 'train', 'eval', 'memory', 'checkpoint')
DEPTHS = (18, 34, 50, 101, 152)
FULL = {
    'networks': 'plain,folded,C8,C8+cp,exported-C8,fourier-C8',
    'depth': 50,
    'base_channels': 64,
    'sizes': [256, 512],
    'rounds': 7,
    'processes': 3,
    'threads': None,
}
QUICK = {
    'networks': 'plain,folded,C8,exported-C8,fourier-C8',
    'depth': 18,
    'base_channels': 16,
    'sizes': [33, 65],
    'rounds': 2,
    'processes': 1,
    'threads': 1,
}


def add_arguments(parser: options.CommandParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        '--networks',
        help='names separated by commas: plain, folded, C8 or another group, C8+cp (recomputes maps), exported-C8, '
        f'fourier-C8, adf, adf-bfloat16, adf-rank1, adf-delta, mmrotate (default: {FULL["networks"]})',
    )
    parser.add_argument(
        '--baseline',
        help='one or more of the networks; a baseline for inference is compared only with networks for inference '
        '(default: plain,folded)',
    )
    parser.add_argument(
        '--measures', nargs='+', choices=MEASURES, default=list(MEASURES), help='what to measure (default: all)'
    )
    parser.add_argument('--depth', type=int, choices=DEPTHS, help='depth of all networks (default: 50)')
    parser.add_argument('--base-channels', type=int, help='width of the first stage, of all networks (default: 64)')
    parser.add_argument('--sizes', type=int, nargs='+', help='sides of the images, in pixels (default: 256 512)')
    parser.add_argument(
        '--batch-size', type=int, help="images per training step (default: 2; the config's with --configs, --profile)"
    )
    parser.add_argument(
        '--eval-batch-size', type=int, default=1, help='images per forward pass in eval mode (default: 1)'
    )
    parser.add_argument(
        '--widths', type=int, nargs='+', help='also time building at these base channels, in ascending order'
    )
    parser.add_argument('--compiled', action='store_true', help='also time eval passes with torch.compile')
    parser.add_argument('--rounds', type=int, help='pairs per measurement (default: 7)')
    parser.add_argument(
        '--processes', type=int, help='new processes per network, for first build and memory (default: 3)'
    )
    parser.add_argument('--threads', type=int, help='threads of torch (default: chosen by torch)')
    parser.add_argument(
        '--out', default='work_dirs/benchmark', help='folder of table, numbers and figure (default: %(default)s)'
    )
    parser.add_argument('--markdown', metavar='FILE', help='also update the table in this page')
    parser.add_argument('--quick', action='store_true', help='small networks and two rounds, to try the command')
    options.add_device(parser, default='cpu')
    group = parser.add_argument_group('uncertain detectors')
    group.add_argument(
        '--detector',
        metavar='CONFIG',
        help='also time this UncertainDetector against the detector inside it, on images of its val_dataloader',
    )
    group.add_argument('--checkpoint', metavar='FILE', help='weights of --detector; what it finds depends on them')
    group = parser.add_argument_group('whole configs')
    group.add_argument(
        '--configs',
        nargs='+',
        metavar='CONFIG',
        help='time these in place of networks, relative to the first: training steps on images of train_dataloader, '
        'and inference up to the outputs of the heads, as it is and exported',
    )
    group.add_argument(
        '--profile',
        metavar='CONFIG',
        help='write time, bytes and operations of each layer, beside what the machine can do, in place of measuring '
        '(with --measures train, eval or both, and --sizes PIXELS)',
    )
    group = parser.add_argument_group('comparison')
    group.add_argument(
        '--compare',
        nargs='+',
        metavar='FILE',
        help='tell which ratios differ from those of this earlier benchmark.json by more than the noise; with two '
        'files, compare these and measure nothing',
    )
    group.add_argument(
        '--fail-on-regression', action='store_true', help='end with status 1 if something became slower or larger'
    )
    group.add_argument(
        '--least-change', type=float, default=3.0, metavar='PERCENT', help='smallest change that counts (default: 3)'
    )
    options.add_cfg_options(parser)
    options.add_unsafe_checkpoint(parser)


def check(parser: options.CommandParser, args: argparse.Namespace) -> None:
    """Refuse values out of range and options without effect; fill in the values of a full or a quick run."""
    args.quoted = quote(parser, args)
    check_modes(parser, args)
    for name, value in (QUICK if args.quick else FULL).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    options.check_least(
        parser, args, base_channels=1, batch_size=1, eval_batch_size=1, rounds=1, processes=1, threads=1
    )
    if args.checkpoint and not args.detector:
        parser.error('--checkpoint needs --detector')
    if args.cfg_options and not (args.detector or args.configs or args.profile):
        parser.error('--cfg-options needs --detector, --configs or --profile')
    if args.threads is not None and args.threads > 1024:
        parser.error(f'--threads must be 1024 or less, not {args.threads}')
    if min(args.sizes) < 33:
        parser.error(f'--sizes must be 33 pixels or more (else the last map has one), not {min(args.sizes)}')
    if args.widths and (args.widths != sorted(set(args.widths)) or len(args.widths) < 2 or args.widths[0] < 1):
        parser.error(f'--widths must be two or more, ascending from 1, not {" ".join(map(str, args.widths))}')
    args.networks = args.networks.split(',')
    args.baseline = args.baseline.split(',') if args.baseline else None


def check_modes(parser: options.CommandParser, args: argparse.Namespace) -> None:
    """Refuse options that exclude each other or have no effect; training steps have the batches of their configs."""
    modes = [name for name in ('configs', 'profile', 'detector') if getattr(args, name)]
    if len(modes) > 1:
        parser.error(f'--{modes[0]} and --{modes[1]} exclude each other')
    if args.configs and len(args.configs) < 2:
        parser.error('--configs needs two or more: the first is the baseline')
    if args.compare and (len(args.compare) > 2 or (len(args.compare) == 2 and modes)):
        parser.error('--compare takes one file to compare this run with, or two files without measuring')
    if args.profile and args.compare:
        parser.error('--compare compares ratios, which --profile does not measure')
    if not math.isfinite(args.least_change) or args.least_change < 0:
        parser.error(f'--least-change must be a percentage of 0 or more, not {args.least_change}')
    if args.fail_on_regression and not args.compare:
        parser.error('--fail-on-regression needs --compare')
    if args.configs or args.profile:
        for name in ('networks', 'baseline', 'depth', 'base_channels', 'widths', 'compiled'):
            if options.given(args, name):
                parser.error(f'{options.flag(name)} is for networks; it has no effect with --{modes[0]}')
    if args.profile:
        for name in ('markdown', 'processes'):
            if options.given(args, name):
                parser.error(f'{options.flag(name)} has no effect with --profile')
        args.sizes = args.sizes or [513]
        if len(args.sizes) > 1:
            parser.error('--profile takes one of --sizes')
        args.rounds = args.rounds or 3
    if not (args.configs or args.profile):
        args.batch_size = args.batch_size or 2


def quote(parser: options.CommandParser, args: argparse.Namespace) -> str:
    """Return the command that repeats this run, without the places of its files."""
    words = ['python', 'tools/benchmark.py']
    for name, value in vars(args).items():
        if name in ('out', 'markdown', 'compare') or value == parser.get_default(name):
            continue
        values = value if isinstance(value, list) else [] if value is True else [value]
        words += [options.flag(name), *map(str, values)]
    return shlex.join(words)
