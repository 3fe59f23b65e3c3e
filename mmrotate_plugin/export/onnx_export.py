"""ONNX files, written by torch and checked in onnxruntime against torch."""

import importlib
import inspect
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from .config_rewrite import Unsupported
from .onnx_network import Network
from .onnx_symbolics import moment_symbolics

OPSET = 17  # the highest that torch 2.0 writes; runtimes from 2022 on read it
OPSETS = (16, 20)
STEP = 64  # a dynamic file is checked on sides that differ by this from the image's
TINY = 1e-12


@dataclass(frozen=True)
class Exported:
    """An ONNX file and how far it is from torch.

    Attributes:
        data: The file.
        names: Outputs, in order.
        shapes: Of the outputs, for the image of the check.
        differences: Largest difference from torch over the largest absolute value of the output, for each output, over
            all images of the check.
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
    """Whether optional packages are there.

    Raises:
        Unsupported: If one is missing; the message says how to install it, or to do without.
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
    detector: nn.Module, image: Tensor, *, heads: bool = False, dynamic: bool = False, opset: int = OPSET
) -> Exported:
    """Write backbone and neck of a detector, or these and the raw outputs of its head, as ONNX; check it.

    With an `ADFResNet`, or in an `UncertainDetector`, each output is a mean and a variance, ``level0_mean`` and
    ``level0_var``; the noise of the image is a constant in the file. The check compares onnxruntime on the CPU with the
    detector as it is, equivariant layers included.

    Args:
        detector: A detector on the CPU; it is put into eval mode.
        image: (B, C, H, W), as the data preprocessor gives it. The file takes this size.
        heads: See `Network`.
        dynamic: The file takes any number of images, and any size whose sides differ from the image's by multiples of
            64. Other sizes can take other ways through a neck, which a file does not have. Checked on a batch of two
            that is larger.
        opset: Version of ONNX's operators, 16 to 20; torch 2.0 writes 16 and 17.

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
        data = _write(network, image, reference.names, dynamic, opset)
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


def _write(network: nn.Module, image: Tensor, names: Sequence[str], dynamic: bool, opset: int) -> bytes:
    options: dict[str, Any] = {}
    # the exporter by torch.export, the default from torch 2.9 on, needs onnxscript and is not in torch 2.0
    if 'dynamo' in inspect.signature(torch.onnx.export).parameters:
        options['dynamo'] = False
    if dynamic:
        axes = {0: 'batch', 2: 'height', 3: 'width'}
        of_outputs = {name: {0: 'batch', 2: f'{name}_height', 3: f'{name}_width'} for name in names}
        options['dynamic_axes'] = {'image': axes, **of_outputs}
    file = io.BytesIO()
    # it prints the whole graph before it raises
    silent = patch.object(torch._C, '_jit_onnx_log', lambda *_: None, create=True)
    with warnings.catch_warnings(), moment_symbolics(), silent:
        warnings.simplefilter('ignore')  # of the tracer, at each branch; the check tells whether one was wrong
        try:
            torch.onnx.export(
                network, (image,), file, input_names=['image'], output_names=list(names), opset_version=opset, **options
            )
        except Unsupported:
            raise
        except Exception as error:  # of many kinds, by version
            text = str(error).strip().split('\n')[0]
            raise Unsupported(f'torch {torch.__version__} cannot write ONNX of it: {text}') from error
    return file.getvalue()


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
    return float(difference) if difference.isfinite() else float('inf')  # maxima pass over what is not a number
