"""Run a command of the command line: errors of the user end in one line and status 2."""

import os
import sys
from collections.abc import Callable
from typing import TypeVar

from ..adf import NoDropout, NoMomentRule
from ..utils import safe_load
from ..utils.errors import CheckFailed, InputError
from .explanations import explain
from .host_errors import TRACEBACK

Args = TypeVar('Args')


def run(command: Callable[[Args], object], args: Args) -> int:
    """Run a command and return its exit status.

    Wrong input ends it with one line on stderr and status 2, a failed check with status 1, Ctrl-C with 130. What this
    package or a host refuses in the middle of a run ends it in one line too, see `explain`.

    Any checkpoint that is read meanwhile is refused if it holds more than weights, unless `args.unsafe_checkpoint` is
    set.
    """
    try:
        with safe_load.loading(unsafe=getattr(args, 'unsafe_checkpoint', None)):
            command(args)
    except CheckFailed as error:
        _say(str(error))
        return 1
    except (InputError, NoDropout, NoMomentRule) as error:  # the latter two know nothing of this package
        return _refuse(_from_worker(error))
    except KeyboardInterrupt:
        _say('interrupted')
        return 130
    except Exception as error:
        text = explain(error)
        if text is None or os.environ.get(TRACEBACK, '0') != '0':
            raise
        return _refuse(text)
    return 0


def _refuse(text: str) -> int:
    _say(f'error: {" ".join(text.split())}')
    return 2


def _say(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201


def _from_worker(error: Exception) -> str:
    """Return the text of an error; from a data worker it comes at the end of the traceback there."""
    text = str(error).strip()
    return text.splitlines()[-1].split(f'{type(error).__name__}: ')[-1] if 'Original Traceback' in text else text
