"""Keep detections differentiable, although heads detach what they decode."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from ...adf.moment_rules import RULES

_lock, _own = threading.Lock(), Tensor.detach
_threads: list[int] = []  # one entry for each context that is entered


@contextmanager
def keep_graph() -> Iterator[None]:
    """Temporarily let the method `detach` of tensors keep the graph, in this thread alone.

    A mode of torch would do so, too, at some microseconds for each of a thousand other calls.
    """
    thread = threading.get_ident()
    with _lock:
        _threads.append(thread)
        Tensor.detach = _detach  # type: ignore[assignment]
    try:
        yield
    finally:
        with _lock:
            _threads.remove(thread)
            if not _threads:
                Tensor.detach = _own


def _detach(x: Tensor) -> Tensor:
    return x if threading.get_ident() in _threads else _own(x)


RULES[_detach] = RULES[_own]  # a Gaussian of another thread
