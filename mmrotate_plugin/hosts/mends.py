"""Replace parts of the hosts where boxes would leave their pixels or a tool would stop. This is the only such place.

- mmrotate's `RotatedBoxes.rescale_` turns boxes the wrong way if the factors of the axes differ: its `atan2` has width
  and height swapped. mmdet's `Resize` calls it on labels, and every head on its detections. `stretch_rotated` replaces
  it; equal factors are left to mmrotate.
- mmdet's heads know a factor, but not that `SymmetricResize` puts the image into the middle of the network's input.
  All predictions leave a detector through `BaseDetector.forward`, which now moves them back by the offset of a
  `CentredScale`; predictions without one pass untouched. Heads also stop if no step of a pipeline recorded a factor;
  here it is 1.
- mmrotate's `qbox2rbox` fails without boxes, and so does its confusion_matrix.py at an image without objects. Its own
  programs import the function before a config imports this package, so replacing the name would be too late: the
  code of the function itself is replaced.

Importing this module is enough. It imports neither host: modules that are imported already are mended at once, the rest
when they are imported.
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

KEPT = '_qbox2rbox_of_mmrotate'  # name of mmrotate's own function in its module


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

    vars(rescale_)['of_host'] = host
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
        with whole_input(data_samples):  # without an offset, so that a detector inside this one moves nothing
            found = host(self, inputs, data_samples, mode)
        bring_back(found)
        return found

    vars(forward)['of_host'] = host
    detector.forward = forward


def _mend_converters(module: ModuleType) -> None:
    function = getattr(module, 'qbox2rbox', None)
    if isinstance(function, FunctionType) and _fails_without_boxes(function):
        vars(module)[KEPT] = FunctionType(function.__code__, function.__globals__, function.__name__)
        function.__code__ = _qbox2rbox.__code__


def _fails_without_boxes(function: FunctionType) -> bool:
    """Tell whether a function fails at an empty array of one dimension, as confusion_matrix.py passes it."""
    try:
        return tuple(function(torch.zeros(0)).shape) != (0, 5)
    except Exception:  # versions fail in different ways
        return True


def _qbox2rbox(boxes: Any) -> Any:
    """Convert boxes, or none, as `qbox2rbox`; names are looked up in mmrotate's module, where this code runs."""
    if boxes.numel() == 0:
        return boxes.new_zeros((*boxes.shape[:-1], 5) if boxes.ndim > 1 else (0, 5))
    return globals()['_qbox2rbox_of_mmrotate'](boxes)


MENDS: dict[str, Callable[[ModuleType], None]] = {
    'mmrotate.structures.bbox.rotated_boxes': _mend_rotated_boxes,
    'mmrotate.structures.bbox.box_converters': _mend_converters,
    'mmdet.models.detectors.base': _mend_detectors,
}


class _AfterImport(MetaPathFinder):
    """Mend a module of a host right after it is executed."""

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

            vars(spec.loader)['exec_module'] = exec_module
        return spec


def mend_when_imported(name: str, mend: Callable[[ModuleType], None]) -> None:
    """Mend a module of a host: at once if it is imported already, otherwise right after it is.

    Args:
        name: Full name of the module.
        mend: Gets the module; may be called more than once.
    """
    MENDS[name] = mend
    if name in sys.modules:
        mend(sys.modules[name])


for _name, _mend in list(MENDS.items()):
    mend_when_imported(_name, _mend)
sys.meta_path.insert(0, _AfterImport())
