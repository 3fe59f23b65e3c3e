"""Functions of mmrotate that are wrong in a corner, mended where they are.

mmrotate's own programs import the functions before a config imports this package, so another function under the same
name would come too late: the code of the function itself is replaced. tests/test_mended_hosts.py tells when mmrotate
has mended it.
"""

import sys
from types import FunctionType
from typing import Any

import torch

CONVERTERS = 'mmrotate.structures.bbox.box_converters'


def mend_hosts() -> None:
    """Mend what is imported already, once; whatever works is left alone."""
    converters = sys.modules.get(CONVERTERS)
    function = getattr(converters, 'qbox2rbox', None)
    if isinstance(function, FunctionType) and _fails_without_boxes(function):
        converters._qbox2rbox_of_mmrotate = FunctionType(function.__code__, function.__globals__, function.__name__)
        function.__code__ = _qbox2rbox.__code__


def _fails_without_boxes(function: FunctionType) -> bool:
    """What an image without objects gives in mmrotate's confusion_matrix.py: an empty array of one dimension."""
    try:
        return tuple(function(torch.zeros(0)).shape) != (0, 5)
    except Exception:  # of a version that fails in another way
        return True


def _qbox2rbox(boxes: Any) -> Any:
    """`qbox2rbox`, of no boxes as well; its names are looked up in mmrotate's module."""
    if boxes.numel() == 0:
        return boxes.new_zeros((*boxes.shape[:-1], 5) if boxes.ndim > 1 else (0, 5))
    return _qbox2rbox_of_mmrotate(boxes)  # noqa: F821
