"""Options that several commands share, each defined once.

A command that reads a config has ``--cfg-options`` and one that reads a checkpoint has ``--unsafe-checkpoint``:
`add_config` and `add_checkpoint` add both.
"""

import argparse
import math

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')


class CommandParser(argparse.ArgumentParser):
    """Parser of one command; options that commands share stand in a group of their own."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]  # argparse's own keywords, passed on
        self.common = self.add_argument_group('common options')


def add_config(parser: CommandParser, *, help: str = 'config file', nargs: str | None = None) -> None:
    """Add the positional config and ``--cfg-options``."""
    parser.add_argument('config', nargs=nargs, help=help)
    add_cfg_options(parser)


def add_cfg_options(parser: CommandParser) -> None:
    """Add ``--cfg-options``; `mmrotate_plugin.apis.config` parses the values."""
    parser.common.add_argument(
        '--cfg-options',
        nargs='+',
        metavar='KEY=VALUE',
        help='override values of the config, e.g. optim_wrapper.optimizer.lr=0.01 or key="[(a,b),(c,d)]"',
    )


def add_checkpoint(parser: CommandParser, *names: str, help: str = 'checkpoint file', nargs: str | None = None) -> None:
    """Add the checkpoint, positional unless `names` give an option, and ``--unsafe-checkpoint``."""
    parser.add_argument(*(names or ('checkpoint',)), nargs=nargs, help=help)
    add_unsafe_checkpoint(parser)


def add_unsafe_checkpoint(parser: CommandParser) -> None:
    """Add ``--unsafe-checkpoint``, for commands whose config or options name checkpoints."""
    parser.common.add_argument(
        '--unsafe-checkpoint',
        action='store_true',
        help='load checkpoints that hold more than weights; this runs whatever code is in them',
    )


def add_device(parser: CommandParser, *, default: str | None = None) -> None:
    """Add ``--device``."""
    shown = 'a GPU if there is one' if default is None else default
    parser.common.add_argument('--device', default=default, help=f'cpu, cuda, cuda:1, ... (default: {shown})')


def add_seed(parser: CommandParser, *, of: str, default: int | None = 0) -> None:
    """Add ``--seed``; `of` says what is random."""
    shown = '' if default is None else f' (default: {default})'
    parser.common.add_argument('--seed', type=int, default=default, help=f'random seed for {of}{shown}')


def add_work_dir(parser: CommandParser) -> None:
    """Add ``--work-dir`` for commands that run mmengine's runner."""
    parser.common.add_argument(
        '--work-dir', help='output folder (default: work_dir of the config, or work_dirs/<config>)'
    )


def add_tta(parser: CommandParser, *, more: str = '') -> None:
    """Add ``--tta``; `more` says what else comes of it."""
    parser.add_argument(
        '--tta',
        action='store_true',
        help='merge the detections on several views of each image, by tta_model and tta_pipeline of the config, '
        f'by default the four quarter turns{more}',
    )


def add_no_report(parser: CommandParser) -> None:
    """Add ``--no-report`` for commands that write report.html."""
    parser.add_argument('--no-report', action='store_true', help='write no report.html into the work directory')


def add_launcher(parser: CommandParser) -> None:
    """Add ``--launcher``, and the rank that older launchers pass on the command line."""
    parser.common.add_argument(
        '--launcher', choices=LAUNCHERS, default='none', help='what started the processes of a distributed run'
    )
    parser.common.add_argument(
        '--local_rank', '--local-rank', type=int, default=0, help='rank on this machine; the launcher sets it'
    )


def check_least(parser: CommandParser, args: argparse.Namespace, **least: int) -> None:
    """End with an error if an option is below its least value; options that were not given pass."""
    for name, smallest in least.items():
        value = getattr(args, name)
        if value is not None and value < smallest:
            parser.error(f'{flag(name)} must be {smallest} or more, not {value}')


def check_positive(parser: CommandParser, args: argparse.Namespace, name: str, *, unit: str = '') -> None:
    """End with an error unless an option is a finite number above 0."""
    value = getattr(args, name)
    if not (math.isfinite(value) and value > 0):
        parser.error(f'{flag(name)} must be a number above 0{unit}, not {value}')


def given(args: argparse.Namespace, name: str) -> bool:
    """Return whether an option without a default was given."""
    value = getattr(args, name)
    return value is not None and value is not False


def flag(name: str) -> str:
    """Return an option as it is typed, from the attribute that holds its value."""
    return f'--{name.replace("_", "-")}'
