"""Messages of data sets, in the log of the run."""

import logging
from collections.abc import Iterable

from mmengine.logging import print_log


def warn(text: str) -> None:
    print_log(text, logger='current', level=logging.WARNING)


def tell(text: str) -> None:
    print_log(text, logger='current', level=logging.INFO)


def some(texts: Iterable[str], number: int = 5) -> str:
    """The first few of a list, for a message."""
    texts = list(texts)
    return ', '.join(texts[:number]) + (', ...' if len(texts) > number else '')


def clip(text: str, length: int = 80) -> str:
    text = text.strip()
    return text if len(text) <= length else text[: length - 3] + '...'
