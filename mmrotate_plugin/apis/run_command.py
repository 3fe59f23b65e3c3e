"""Run a command of the command line: errors of the user end in one line and status 2."""

import os
import sys
from collections.abc import Callable
from typing import TypeVar

from ..adf import NoDropout, NoMomentRule
from ..datasets.utils.broken_files import BrokenFileError
from ..datasets.utils.image_headers import ImageKindError
from ..utils import safe_load
from ..utils.errors import UsageError
from .explanations import explain
from .host_errors import TRACEBACK

Args = TypeVar('Args')


def run(command: Callable[[Args], None], args: Args) -> int:
    """Run a command. Wrong input and broken files end it with one line on stderr and status 2, Ctrl-C with 130.

    What this package or a host refuses amid a run ends it in the same way, see `explain`.

    Checkpoints, whoever reads them meanwhile, are refused if they hold more than weights, unless
    `args.unsafe_checkpoint` is set.
    """
    try:
        with safe_load.loading(unsafe=getattr(args, 'unsafe_checkpoint', None)):
            command(args)
    except (UsageError, safe_load.CheckpointError, NoDropout, NoMomentRule) as error:
        print(f'error: {" ".join(str(error).split())}', file=sys.stderr)  # noqa: T201
        return 2
    except (BrokenFileError, ImageKindError) as error:  # from a data worker it comes with the traceback there
        print(f'error: {str(error).strip().splitlines()[-1].split(f"{type(error).__name__}: ")[-1]}', file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)  # noqa: T201
        return 130
    except Exception as error:
        text = explain(error)
        if text is None or os.environ.get(TRACEBACK, '0') != '0':
            raise
        print(f'error: {" ".join(text.split())}', file=sys.stderr)  # noqa: T201
        return 2
    return 0
