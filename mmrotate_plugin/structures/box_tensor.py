"""Boxes as plain tensors."""

from typing import Any


def tensor_of(boxes: Any) -> Any:
    """Unwrap the tensor of boxes, which mmdet and mmrotate may hold in a class of their own.

    Args:
        boxes: A tensor or array, returned as it is; or mmdet's `BaseBoxes`.
    """
    return getattr(boxes, 'tensor', boxes)
