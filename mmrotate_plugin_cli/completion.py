"""Print completion scripts for shells, made by shtab."""

import argparse
from collections.abc import Sequence
from typing import Any

SHELLS = ('bash', 'zsh', 'tcsh')
FILES = ('config', 'uncertain_config', 'checkpoint', 'checkpoints', 'detector', 'image', 'img', 'input', 'output',
         'out', 'figure', 'markdown', 'resume')  # fmt: skip
FOLDERS = ('work_dir', 'show_dir', 'images')


class PrintCompletion(argparse.Action):
    """``--print-completion SHELL``: print the script and exit."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, choices=SHELLS, default=argparse.SUPPRESS, **options)

    def __call__(self, parser: argparse.ArgumentParser, _args: Any, values: Any, _option: str | None = None) -> None:
        """Print the script for the shell `values`, or say how to install shtab."""
        try:
            import shtab  # here, so that other calls start without it
        except ImportError:
            parser.error('--print-completion needs shtab: pip install shtab')
        for each in (parser, *commands(parser).values()):
            for action in each._actions:
                kind = shtab.FILE if action.dest in FILES else shtab.DIRECTORY if action.dest in FOLDERS else None
                if kind is not None:
                    vars(action)['complete'] = kind
        print(shtab.complete(parser, shell=values))
        parser.exit()


def commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of the commands, by name."""
    return next(dict(a.choices) for a in parser._actions if isinstance(a, argparse._SubParsersAction))
