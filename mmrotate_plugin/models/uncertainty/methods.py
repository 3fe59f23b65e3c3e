"""Variances of detections by each method of `UncertainDetector`: linearised, from the pixels, sampled, by dropout.

Each takes the `Trace` of a detector; a context of `contexts` decides whether variances are propagated.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from ...adf import Gaussian
from ...adf._eval_mode import eval_mode
from ...adf.dropout_sampling import sampled_dropout
from ...adf.jacobian import variances
from ...structures import tensor_of
from .contexts import frozen, without_variance
from .data_samples import detach_detections, values_of, variance_of
from .dense_rows import DenseReader
from .head_trace import Outputs, Trace, UnsupportedDetector, untraceable
from .kept_rows import Reader, linearize_rows
from .linearization import Linearization, differentiate, sharing_of
from .region_rows import RegionReader


def linearize(trace: Trace, x: Tensor | Gaussian, samples: Any, rescale: bool) -> tuple[Any, Outputs, Linearization]:
    """Detect, and differentiate the detections with respect to the outputs of the heads.

    Args:
        trace: Trace of the detector.
        x: Normalised images, (B, C, H, W).
        samples: As the detector's `predict` takes them.
        rescale: Boxes in pixels of the original image.

    Returns:
        The samples with their detections, the outputs of the heads with their variances if `x` has one, and how the
        detections depend on the outputs.

    Raises:
        UnsupportedDetector: If boxes or scores do not depend on the outputs.
    """
    if (reader := _reader_of(trace)) is not None:
        with torch.no_grad():
            found, outputs = trace.detect(x, samples, rescale, reader=reader)
            line = linearize_rows(reader.rows(), [leaf for leaf, _ in outputs], values_of(found))
        if line is not None:
            return found, outputs, line
        trace.readable = False
    with frozen(trace.detector), torch.enable_grad():
        found, outputs = trace.detect(x, samples, rescale)
        _check_traced(trace, found)
        values = values_of(found)
        boxes, labels = values[:, :-1], torch.cat([sample.pred_instances.labels for sample in found])
        sharing = sharing_of(boxes.detach(), labels, regions=bool(trace.heads.regions))
        line = differentiate(values, [leaf for leaf, _ in outputs], sharing)
    detach_detections(found)
    return found, [(leaf.detach(), var) for leaf, var in outputs], line


def _reader_of(trace: Trace) -> Reader | None:
    """A reader for the final head, if one knows its kind and could follow it so far."""
    kind = RegionReader if trace.heads.regions else DenseReader
    return kind() if trace.readable and kind.follows(trace.heads.final) else None


def from_pixels(
    trace: Trace, inputs: Tensor, variance: Tensor, samples: Any, rescale: bool, chunk_size: int
) -> tuple[Any, Tensor]:
    """Detect, and propagate the noise to first order from the pixels: one backward pass per number.

    Args:
        trace: Trace of the detector.
        inputs, variance: (B, C, H, W).
        samples: As the detector's `predict` takes them.
        rescale: Boxes in pixels of the original image.
        chunk_size: Backward passes at a time.

    Returns:
        The samples with N detections, and the variances of boxes and scores, (N, D + 1).

    Raises:
        UnsupportedDetector: If boxes or scores do not depend on the pixels by differentiable steps.
    """
    with frozen(trace.detector), torch.enable_grad(), without_variance(trace.detector):
        leaf = inputs.detach().clone().requires_grad_()
        found, _ = trace.detect(leaf.clone(), samples, rescale, end_to_end=True)
        _check_traced(trace, found)
        values = values_of(found)
        data = leaf.new_zeros(0, 1)
        if len(values):
            data = variances(values.reshape(-1), leaf, variance, chunk_size)
    detach_detections(found)
    return found, data.sum(1).reshape(values.shape)


def sampled(
    trace: Trace,
    inputs: Tensor,
    variance: Tensor,
    samples: Any,
    line: Linearization,
    outputs: Outputs,
    passes: Iterable[int],
    seed: int,
) -> Tensor:
    """Sample the outputs of the heads on noisy images, and carry their differences on to the detections.

    In contrast to the sum of variances, this has all covariances of the outputs.

    Args:
        trace: Trace of the detector, after `linearize`.
        inputs, variance: (B, C, H, W).
        samples: As given to `linearize`.
        line, outputs: What it returned.
        passes: Counts the passes, and may show a progress bar.
        seed: Seed of the noise; the global random state is left alone.

    Returns:
        Variances of boxes and scores, (N, D + 1).
    """
    noisy = noisy_outputs(trace, inputs, variance, samples, passes, seed)
    return variance_of(line([v - middle for v, (middle, _) in zip(one, outputs, strict=True)]) for one in noisy)


def noisy_outputs(
    trace: Trace, inputs: Tensor, variance: Tensor, samples: Any, passes: Iterable[int], seed: int
) -> Iterator[list[Tensor]]:
    """Yield the outputs of the heads on noisy images, pass by pass; the arguments are those of `sampled`."""
    generator = torch.Generator(inputs.device).manual_seed(seed)
    std = variance.sqrt()
    with without_variance(trace.detector), eval_mode(trace.detector):
        for _ in passes:
            noise = torch.randn(std.shape, generator=generator, device=std.device, dtype=std.dtype)
            yield _plain_outputs(trace, inputs + std * noise, samples)


def by_dropout(trace: Trace, inputs: Tensor, samples: Any, line: Linearization, passes: int, seed: int) -> Tensor:
    """Variances of boxes and scores, (N, D + 1), over dropped units, for the image as it is.

    Args:
        trace: Trace of the detector, after `linearize`.
        inputs: (B, C, H, W).
        samples, line: As in `sampled`.
        passes: Number of passes.
        seed: Seed of the dropout; the global random state is restored.

    Raises:
        NoDropout: If the detector has nothing to drop.
    """
    devices = [inputs.device] if inputs.device.type == 'cuda' else []
    with without_variance(trace.detector), torch.random.fork_rng(devices):
        with eval_mode(trace.detector):
            first = _plain_outputs(trace, inputs, samples)
        torch.manual_seed(seed)
        with sampled_dropout(trace.detector) as check:

            def difference() -> list[Tensor]:
                dropped = _plain_outputs(trace, inputs, samples)
                check()
                return [value - before for value, before in zip(dropped, first, strict=True)]

            return variance_of(line(difference()) for _ in range(passes))


def _plain_outputs(trace: Trace, x: Tensor, samples: Any) -> list[Tensor]:
    return means(trace.outputs(x, samples))


def means(outputs: Iterable[Tensor | Gaussian]) -> list[Tensor]:
    """Return the means of outputs, some of which may have a variance."""
    return [value.mu if isinstance(value, Gaussian) else value for value in outputs]


def _check_traced(trace: Trace, found: Any) -> None:
    some = [sample.pred_instances for sample in found if len(sample.pred_instances)]
    parts = [part for instances in some for part in (tensor_of(instances.bboxes), instances.scores)]
    if not all(part.requires_grad for part in parts):
        raise UnsupportedDetector(untraceable(trace.heads.final))
