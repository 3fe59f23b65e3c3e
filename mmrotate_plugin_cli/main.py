"""Parse the command line and run a command: ``mmrotate-plugin COMMAND ...``, or ``python tools/COMMAND.py ...``."""

import argparse
import difflib
import runpy
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from . import (
    benchmark,
    browse_dataset,
    calibrate,
    check_equivariance,
    convert_dataset,
    convert_weights,
    demo,
    evaluate_angles,
    evaluate_uncertainty,
    export,
    flops,
    init,
    make_synthetic,
    merge_predictions,
    predict,
    report,
    show_basis,
    split_dataset,
    test,
    train,
)
from .completion import PrintCompletion
from .options import CommandParser

DESCRIPTION = 'Rotation-equivariant backbones and uncertainty for OpenMMLab detectors.'
EPILOG = "'%(prog)s COMMAND --help' lists the options of a command."
PACKAGE = 'mmrotate_plugin'  # names and no imports, which would import torch
COMMANDS = f'{PACKAGE}.commands'


class Command(Protocol):
    """A module that describes a command.

    It may also have `EPILOG`, text below the options; `VERBATIM`, whether the line breaks of that text stay; and
    ``check(parser, args)``, which refuses what argparse accepts.
    """

    @property
    def HELP(self) -> str:
        """One line for the list of commands."""

    @property
    def DESCRIPTION(self) -> str:
        """Text above the options."""

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options of the command."""


TABLE: dict[str, Command] = {
    'train': train,
    'test': test,
    'predict': predict,
    'report': report,
    'calibrate': calibrate,
    'evaluate-angles': evaluate_angles,
    'evaluate-uncertainty': evaluate_uncertainty,
    'check-equivariance': check_equivariance,
    'export': export,
    'benchmark': benchmark,
    'flops': flops,
    'convert-weights': convert_weights,
    'init': init,
    'browse-dataset': browse_dataset,
    'convert-dataset': convert_dataset,
    'split-dataset': split_dataset,
    'merge-predictions': merge_predictions,
    'make-synthetic': make_synthetic,
    'show-basis': show_basis,
    'demo': demo,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name; return its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    parser, parsers = make_parser()
    if argv and not argv[0].startswith('-') and argv[0] not in TABLE:
        close = difflib.get_close_matches(argv[0], TABLE, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f'commands: {", ".join(TABLE)}'
        parser.error(f"unknown command '{argv[0]}'; {hint}")
    args = parser.parse_args(argv)
    name = vars(args).pop('command')
    return run(name, parsers[name], args)


def tool(name: str, file: str) -> Callable[[Sequence[str] | None], int]:
    """Make the `main` of a script that runs one command.

    Args:
        name: The command.
        file: The script; usage and errors show its name.
    """

    def main(argv: Sequence[str] | None = None) -> int:
        parser = CommandParser(prog=Path(file).name, **texts(name))
        TABLE[name].add_arguments(parser)
        return run(name, parser, parser.parse_args(argv))

    return main


def make_parser() -> tuple[argparse.ArgumentParser, dict[str, CommandParser]]:
    """Make the parser of the command line, and those of the commands by name."""
    parser = argparse.ArgumentParser(prog='mmrotate-plugin', description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument('--version', action=Version, help='print the version and exit')
    parser.add_argument(
        '--print-completion', action=PrintCompletion, metavar='SHELL', help='print completion for bash, zsh or tcsh'
    )
    group = parser.add_subparsers(
        dest='command', metavar='COMMAND', required=True, title='commands', parser_class=CommandParser
    )
    parsers = {name: group.add_parser(name, help=TABLE[name].HELP, **texts(name)) for name in TABLE}
    for name, command in TABLE.items():
        command.add_arguments(parsers[name])
    return parser, parsers


def texts(name: str) -> dict[str, Any]:
    """Collect what a command says in its help, as keywords of its parser."""
    command = TABLE[name]
    found: dict[str, Any] = {'description': command.DESCRIPTION, 'epilog': getattr(command, 'EPILOG', None)}
    if getattr(command, 'VERBATIM', False):
        found['formatter_class'] = argparse.RawDescriptionHelpFormatter
    return found


def run(name: str, parser: CommandParser, args: argparse.Namespace) -> int:
    """Check the arguments, import the command and run it."""
    check = getattr(TABLE[name], 'check', None)
    if check is not None:
        check(parser, args)
    try:
        commands = import_module(COMMANDS)
    except ImportError as error:
        if not str(error).startswith(PACKAGE):  # that of `mmrotate_plugin._dependencies` says what to install
            raise
        print(f'error: {error}', file=sys.stderr)
        return 2
    status: int = commands.run(name.replace('-', '_'), args)
    return status


class Version(argparse.Action):
    """``--version``: print the version of the package next to this one, without importing it."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print and exit."""
        file = Path(__file__).resolve().parents[1] / 'mmrotate_plugin/version.py'
        print(f'{parser.prog} {runpy.run_path(str(file))["__version__"]}')
        parser.exit()
