"""Errors that a user can mend: the command line ends with one line and status 2 for each of them."""


class InputError(Exception):
    """Wrong input: the message says what came and what would work.

    The base of every error of this package that is about a config, a file or an option, and not about the code.
    """


class UsageError(InputError):
    """A config, an option or an argument that cannot work."""


class ImageError(UsageError, ValueError):
    """A file that is no image, or only a part of one, or an image that the network cannot take."""
