"""Write ONNX files, and check them in onnxruntime against torch."""

import importlib
import inspect
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from ..utils.contexts import temporary_attributes
from .config_rewrite import Unsupported
from .onnx_network import Network
from .onnx_symbolics import moment_symbolics

OPSET = 17  # the highest that torch 2.0 writes; runtimes since 2022 read it
OPSETS = (16, 20)
STEP = 64  # a dynamic file is checked on sides that differ by this from the image's
TINY = 1e-12
MAP = 4  # dimensions of a feature map


@dataclass(frozen=True)
class Exported:
    """An ONNX file, and how much its outputs differ from torch's.

    Attributes:
        data: The file.
        names: Names of the outputs, in order.
        shapes: Shapes of the outputs, for the first image of the check.
        differences: For each output, the largest difference from torch divided by the largest absolute value of the
            output; the maximum over all images of the check.
        sizes: (batch, height, width) of these images.
    """

    data: bytes
    names: list[str]
    shapes: list[tuple[int, ...]]
    differences: list[float]
    sizes: list[tuple[int, int, int]]

    @property
    def difference(self) -> float:
        """The largest of the differences."""
        return max(self.differences)


def require(*packages: str) -> None:
    """Check that optional packages can be imported.

    Args:
        packages: Their names.

    Raises:
        Unsupported: If one is missing; the message says how to install it.
    """
    missing = []
    for name in packages:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    if missing:
        raise Unsupported(f'{", ".join(missing)} cannot be imported: pip install {" ".join(missing)}')


def export_onnx(
    detector: BaseModel, image: Tensor, *, heads: bool = False, dynamic: bool = False, opset: int = OPSET
) -> Exported:
    """Export backbone and neck of a detector, optionally with the raw outputs of its head, to ONNX, and check it.

    With an `ADFResNet`, or in an `UncertainDetector`, each output is a mean and a variance, ``level0_mean`` and
    ``level0_var``; the noise of the image is a constant in the file. The check compares onnxruntime on the CPU with the
    detector as it is, equivariant layers included.

    Args:
        detector: A detector on the CPU; it is put into eval mode.
        image: (B, C, H, W), as the data preprocessor returns it. The file takes this size.
        heads: Include the raw outputs of the head, see `Network`.
        dynamic: Let the file take any number of images, and sides that differ from the image's by multiples of 64.
            Other sizes can take another path through a neck, and a file holds only one. The check uses a larger batch
            of two as well.
        opset: Version of ONNX's operators, 16 to 20; torch 2.0 writes 16 and 17.

    Returns:
        The file and the result of the check.

    Raises:
        Unsupported: If a package is missing, torch cannot write an operation, or the detector has no such part.
        ValueError: If `opset` is out of range.
    """
    require('onnx', 'onnxruntime')
    if not OPSETS[0] <= opset <= OPSETS[1]:
        raise ValueError(f'opset={opset} is out of range: use {OPSETS[0]} to {OPSETS[1]}')
    detector.eval()
    network = Network(detector, heads=heads)
    reference = Network(detector, heads=heads, plain=False)
    images = [image]
    if dynamic:
        b, c, h, w = image.shape
        larger = nn.functional.interpolate(image, (h + STEP, w), mode='nearest')
        images.append(torch.cat([larger, larger.flip(3)]))
    with torch.no_grad():
        expected = [[y.clone() for y in reference(x)] for x in images]
        ranks = {name: y.dim() for name, y in zip(reference.names, expected[0], strict=True)}
        data = _write(network, image, ranks, dynamic, opset)
    actual = _run(data, images)
    differences = [
        max(_difference(a[i], e[i]) for a, e in zip(actual, expected, strict=True)) for i in range(len(reference.names))
    ]
    return Exported(
        data,
        reference.names,
        [tuple(y.shape) for y in expected[0]],
        differences,
        [(x.shape[0], x.shape[2], x.shape[3]) for x in images],
    )


def _write(network: nn.Module, image: Tensor, ranks: Mapping[str, int], dynamic: bool, opset: int) -> bytes:
    options: dict[str, Any] = {}
    # the exporter by torch.export, the default since torch 2.9, needs onnxscript and is not in torch 2.0
    if 'dynamo' in inspect.signature(torch.onnx.export).parameters:
        options['dynamo'] = False
    if dynamic:
        axes = {0: 'batch', 2: 'height', 3: 'width'}
        maps = {name: {2: f'{name}_height', 3: f'{name}_width'} for name, rank in ranks.items() if rank == MAP}
        of_outputs = {name: {0: 'batch', **maps.get(name, {1: 'points'})} for name in ranks}
        options['dynamic_axes'] = {'image': axes, **of_outputs}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), moment_symbolics(), _silent_exporter():
        warnings.simplefilter('ignore')  # of the tracer, at each branch; the check tells whether one was wrong
        path = Path(folder) / 'model.onnx'
        try:
            torch.onnx.export(
                network, (image,), str(path), input_names=['image'], output_names=list(ranks), opset_version=opset,
                **options,
            )  # fmt: skip
        except Unsupported:
            raise
        except Exception as error:  # of many kinds, by version
            text = str(error).strip().split('\n')[0]
            raise Unsupported(f'torch {torch.__version__} cannot write ONNX of it: {text}') from error
        return path.read_bytes()


@contextmanager
def _silent_exporter() -> Iterator[None]:
    """Keep torch from printing the whole graph before it raises."""
    name = '_jit_onnx_log'
    with temporary_attributes(torch._C, **({name: lambda *_: None} if hasattr(torch._C, name) else {})):
        yield


def _run(data: bytes, images: Sequence[Tensor]) -> list[list[Tensor]]:
    import onnx
    import onnxruntime

    onnx.checker.check_model(onnx.load_from_string(data))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=['CPUExecutionProvider'])
    return [[torch.from_numpy(y) for y in session.run(None, {'image': x.numpy()})] for x in images]


def _difference(actual: Tensor, expected: Tensor) -> float:
    if actual.shape != expected.shape:
        return float('inf')
    difference = (actual.double() - expected.double()).abs().max() / expected.double().abs().max().clamp_min(TINY)
    return float(difference) if difference.isfinite() else float('inf')  # a maximum may ignore nan
