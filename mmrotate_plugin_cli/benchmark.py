"""Options of ``mmrotate-plugin benchmark``."""

import argparse
import shlex

from . import options

HELP = 'measure what equivariance costs, relative to a plain ResNet'
DESCRIPTION = (
    'Compare networks with a plain ResNet of equal width. In each round, each network is timed right before or after '
    'the baseline; results are ratios within such pairs. Outputs that are claimed to be equal are compared first.'
)
EPILOG = 'status: 0 measured, 1 the networks are not alike, 2 wrong input'
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
    parser.add_argument('--batch-size', type=int, default=2, help='images per training step (default: 2)')
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
    options.add_cfg_options(parser)
    options.add_unsafe_checkpoint(parser)


def check(parser: options.CommandParser, args: argparse.Namespace) -> None:
    """Refuse values out of range and options without effect; fill in the values of a full or a quick run."""
    args.quoted = quote(parser, args)
    for name, value in (QUICK if args.quick else FULL).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    options.check_least(
        parser, args, base_channels=1, batch_size=1, eval_batch_size=1, rounds=1, processes=1, threads=1
    )
    for name in ('checkpoint', 'cfg_options'):
        if getattr(args, name) and not args.detector:
            parser.error(f'{options.flag(name)} needs --detector')
    if args.threads is not None and args.threads > 1024:
        parser.error(f'--threads must be 1024 or less, not {args.threads}')
    if min(args.sizes) < 33:
        parser.error(f'--sizes must be 33 pixels or more (else the last map has one), not {min(args.sizes)}')
    if args.widths and (args.widths != sorted(set(args.widths)) or len(args.widths) < 2 or args.widths[0] < 1):
        parser.error(f'--widths must be two or more, ascending from 1, not {" ".join(map(str, args.widths))}')
    args.networks = args.networks.split(',')
    args.baseline = args.baseline.split(',') if args.baseline else None


def quote(parser: options.CommandParser, args: argparse.Namespace) -> str:
    """Return the command that repeats this run, without the places of its files."""
    words = ['python', 'tools/benchmark.py']
    for name, value in vars(args).items():
        if name in ('out', 'markdown') or value == parser.get_default(name):
            continue
        values = value if isinstance(value, list) else [] if value is True else [value]
        words += [options.flag(name), *map(str, values)]
    return shlex.join(words)
