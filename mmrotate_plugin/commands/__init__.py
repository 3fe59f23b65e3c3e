"""The work of the command line's commands: `train.train` is that of ``mmrotate-plugin train``, and so on.

`mmrotate_plugin_cli` parses the options and calls `run`.
"""

import argparse
from importlib import import_module

from ..apis.config import register_hosts
from ..apis.run_command import run as run_function


def run(name: str, args: argparse.Namespace) -> int:
    """Run a command and return its exit status.

    Args:
        name: A module of this package, and the function in it.
        args: The parsed options.
    """

    def command(args: argparse.Namespace) -> None:
        try:
            module = import_module(f'{__name__}.{name}')
        except Exception:
            register_hosts()  # says which of them is missing or does not fit, if that is the reason
            raise
        getattr(module, name)(args)

    return run_function(command, args)
