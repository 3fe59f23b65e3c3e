"""Read the predictions that ``test --out`` writes, without running code in the file."""

import io
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ...utils import safe_load
from ...utils.errors import InputError, UsageError
from ...utils.messages import first_line
from .collect import Image, read_image

TENSORS = {
    ('torch._utils', '_rebuild_tensor_v2'): torch._utils._rebuild_tensor_v2,
    ('torch', 'Size'): torch.Size,
}


def load_results(path: Path, classes: Sequence[str] | None = None) -> tuple[list[Image], list[str]]:
    """Read a pickle of mmengine's DumpResults: images with labels, and names of the classes.

    Args:
        path: The file.
        classes: Names, by label; by default 'class 0', 'class 1', ...

    Raises:
        UsageError: If it holds something else or no labels, refers to functions that predictions do not need, or has a
            label beyond `classes`.
    """
    try:
        with path.open('rb') as stream:
            samples = _Unpickler(stream).load()
        images = [image for image in map(read_image, samples) if image is not None]
    except InputError:
        raise
    except Exception as error:  # a pickle fails in many ways
        reason = f'{type(error).__name__}: {first_line(error)}'
        raise UsageError(f"'{path}' is no file of test --out: {reason}") from error
    if not images:
        raise UsageError(f"'{path}' has no image with detections and labels: nothing can be compared")
    most = max(int(image[key].max(initial=-1)) for image in images for key in ('labels', 'gt_labels'))
    if classes is None:
        return images, [f'class {label}' for label in range(most + 1)]
    if most >= len(classes):
        raise UsageError(f"--classes names {len(classes)}, and '{path}' has the label {most}: {most + 1} are needed")
    return images, list(classes)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return what predictions consist of; tensors are read as those of a checkpoint."""
        if (module, name) == ('torch.storage', '_load_from_bytes'):
            return _storage
        known = safe_load.allowed_globals().get(f'{module}.{name}') or TENSORS.get((module, name))
        if known is None:
            raise UsageError(f'the file refers to {module}.{name}, which predictions do not need; it is not read')
        return known


def _storage(data: bytes) -> Any:
    return safe_load.load(io.BytesIO(data), name='a tensor of the predictions')
