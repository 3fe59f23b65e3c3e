"""Errors that a user can fix: the command line ends with one line and status 2 for each of them."""


class InputError(Exception):
    """Wrong input; the message says what came and what would work.

    The base of every error of this package that is about a config, a file or an option, and not about the code.
    """


class UsageError(InputError):
    """A config, an option or an argument that cannot work."""


class ImageError(UsageError, ValueError):
    """A file that is not an image, or is only part of one, or an image that the network cannot take."""


class CheckFailed(Exception):
    """A comparison that a command was asked to make, and that failed: the command line ends with status 1.

    Args:
        lines: What failed, one line each.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__('\n'.join(lines))
