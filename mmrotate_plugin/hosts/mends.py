"""What is replaced in the hosts because boxes would leave their pixels, or a tool would stop; this is the only place.

- mmrotate's `RotatedBoxes.rescale_` turns boxes the wrong way where the factors of the axes differ: `atan2` has width
  and height exchanged. mmdet's `Resize` calls it on labels, and every head on its detections. `stretch_rotated` takes
  its place; equal factors are left to mmrotate.
- mmdet's heads know a factor, but not that `SymmetricResize` puts the image into the middle of the network's input.
  `BaseDetector.forward`, through which all predictions pass that leave a detector, moves them back by the offset of a
  `CentredScale`; predictions without one pass untouched. Heads also stop where no step of a pipeline noted a factor;
  here it is 1.
- mmrotate's `qbox2rbox` stops at no boxes, as its confusion_matrix.py does at an image without objects. mmrotate's own
  programs import the function before a config imports this package, so another function under the same name would come
  too late: the code of the function itself is replaced.

Importing this module is enough. It imports neither host: what is imported already is mended at once, the rest when it
is imported.
"""

import functools
import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import FunctionType, ModuleType
from typing import Any

import torch

from ..structures import bring_back, stretch_rotated, whole_input


def _mend_rotated_boxes(module: ModuleType) -> None:
    boxes = getattr(module, 'RotatedBoxes', None)
    if boxes is None or hasattr(boxes.rescale_, 'of_host'):
        return
    host = boxes.rescale_

    @functools.wraps(host)
    def rescale_(self: Any, scale_factor: Any) -> None:
        scale_x, scale_y = scale_factor
        if scale_x == scale_y:
            host(self, scale_factor)
        else:
            self.tensor = stretch_rotated(self.tensor, float(scale_x), float(scale_y))

    rescale_.of_host = host
    boxes.rescale_ = rescale_


def _mend_detectors(module: ModuleType) -> None:
    detector = getattr(module, 'BaseDetector', None)
    if detector is None or hasattr(detector.forward, 'of_host'):
        return
    host = detector.forward

    @functools.wraps(host)
    def forward(self: Any, inputs: Any, data_samples: Any = None, mode: str = 'tensor') -> Any:
        if mode != 'predict':
            return host(self, inputs, data_samples, mode)
        with whole_input(data_samples):  # without an offset, so that a detector within this one moves nothing
            found = host(self, inputs, data_samples, mode)
        bring_back(found)
        return found

    forward.of_host = host
    detector.forward = forward


def _mend_converters(module: ModuleType) -> None:
    function = getattr(module, 'qbox2rbox', None)
    if isinstance(function, FunctionType) and _fails_without_boxes(function):
        module._qbox2rbox_of_mmrotate = FunctionType(function.__code__, function.__globals__, function.__name__)
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


MENDS: dict[str, Callable[[ModuleType], None]] = {
    'mmrotate.structures.bbox.rotated_boxes': _mend_rotated_boxes,
    'mmrotate.structures.bbox.box_converters': _mend_converters,
    'mmdet.models.detectors.base': _mend_detectors,
}


class _AfterImport(MetaPathFinder):
    """Mends a module of a host right after it is executed."""

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in MENDS:
            return None
        rest = sys.meta_path[sys.meta_path.index(self) + 1 :]
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in rest)), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                MENDS[name](module)

            spec.loader.exec_module = exec_module
        return spec


for _name, _mend in MENDS.items():
    if _name in sys.modules:
        _mend(sys.modules[_name])
sys.meta_path.insert(0, _AfterImport())
